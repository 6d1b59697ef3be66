package dataplane

import (
	"sallyport/bpf"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
	"sallyport/dataplane/xsk"
)

// Stats is what the engine has counted since its start. Once no packet is in flight,
//
//	Received + Originated = Sent + Punted + Delivered + Merged + sum of Drops
type Stats struct {
	Total   WorkerStats // the workers' sums; Busy is the mean
	Workers []WorkerStats
	Ports   []PortStats
	// Drops is indexed by reason.
	Drops [packet.DropCount]uint64
	// XDP are the steering program's verdicts, in the order of its table.
	XDP []Verdict
	// Kernel is what following the kernel's routes took.
	Kernel fib.Counters
	// IKE is what the way of IKE datagrams took.
	IKE IKEStats
	// Paths is what ICMP errors about ESP came to.
	Paths PathStats
	// Steering is how telling the steering program went.
	Steering SteeringStats
}

// WorkerStats are one worker's figures.
type WorkerStats struct {
	Worker int
	Core   int // -1: not pinned
	// Busy is the share of the last full second spent on packets, 0 to 1.
	Busy float64
	// BusyNanoseconds is the time spent on batches with at least one packet.
	BusyNanoseconds              uint64
	Batches, Sleeps              uint64
	Received, ReceivedBytes      uint64
	Sent, SentBytes, SentESP     uint64
	Punted, Originated, Bypassed uint64
	Delivered                    uint64 // to the IKE side
	Merged, Reassembled          uint64 // outer fragments that became part of another, and datagrams that came of it
	Fragmented, FragmentedESP    uint64 // packets that were cut up, before encryption and after it
	Sealed, Opened               uint64
	HandedOut, HandedIn, Parked  uint64
	Waited                       uint64 // for an association
	ICMPSuppressed, EventsLost   uint64
	Dropped, FreeFrames          uint64
}

// PortStats describes one port.
type PortStats struct {
	Name    string
	Role    worker.Role
	TUN     bool // the way to the kernel, not an interface of the machine
	Ifindex int  // 0: gone, or in memory
	MTU     int
	Up      bool
	// Mode is how frames cross between interface and UMEM, and Reason why.
	Mode, Reason string
	Queues       []QueueStats
}

// QueueStats describes one queue of a port.
type QueueStats struct {
	Queue, Worker  int
	Received, Sent uint64 // packets that workers took from and put on its rings
	Stats          xsk.Stats
}

// Verdict is one counter of the steering program.
type Verdict struct {
	Name, Sentence string
	Packets        uint64
}

// Stats returns the engine's counters. It never waits for a worker.
func (e *Engine) Stats() Stats {
	var s Stats
	s.Total.Worker, s.Total.Core = -1, -1
	busy := e.busy.Load()
	for i, w := range e.group.Workers {
		one := workerStats(&w.Counters)
		one.Worker, one.Core = i, -1
		if len(e.cfg.Cores) > 0 {
			one.Core = e.cfg.Cores[i]
		}
		for r := range s.Drops {
			n := w.Counters.Drops[r].Load()
			s.Drops[r] += n
			one.Dropped += n
		}
		if busy != nil {
			one.Busy = (*busy)[i]
			s.Total.Busy += one.Busy / float64(len(*busy))
		}
		s.Workers = append(s.Workers, one)
		s.Total.add(&one)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		if p.number == e.tables.IKE {
			continue
		}
		one := p.stats()
		if p.number == e.tables.TUN {
			one.TUN, one.Mode = true, "tun"
		}
		s.Ports = append(s.Ports, one)
	}
	if e.steering != nil {
		values, err := e.steering.Counters()
		if err == nil {
			for i, v := range values {
				s.XDP = append(s.XDP, Verdict{bpf.CounterInfos[i].Name, bpf.CounterInfos[i].Sentence, v})
			}
		}
	}
	s.Steering = e.steered.stats()
	if e.watcher != nil {
		s.Kernel = e.watcher.Counters()
	}
	if e.ike != nil {
		s.IKE = e.ike.stats()
	}
	s.Paths = e.paths.stats()
	return s
}

func workerStats(c *worker.Counters) WorkerStats {
	return WorkerStats{
		BusyNanoseconds: c.Busy.Load(), Batches: c.Batches.Load(), Sleeps: c.Sleeps.Load(),
		Received: c.Received.Load(), ReceivedBytes: c.ReceivedBytes.Load(),
		Sent: c.Sent.Load(), SentBytes: c.SentBytes.Load(), SentESP: c.SentESP.Load(),
		Punted: c.Punted.Load(), Originated: c.Originated.Load(), Bypassed: c.Bypassed.Load(),
		Delivered: c.Delivered.Load(), Merged: c.Merged.Load(), Reassembled: c.Reassembled.Load(),
		Fragmented: c.Fragmented.Load(), FragmentedESP: c.FragmentedESP.Load(),
		Sealed: c.Sealed.Load(), Opened: c.Opened.Load(),
		HandedOut: c.HandedOut.Load(), HandedIn: c.HandedIn.Load(), Parked: c.Parked.Load(), Waited: c.Waited.Load(),
		ICMPSuppressed: c.ICMPSuppressed.Load(), EventsLost: c.EventsLost.Load(), FreeFrames: c.FreeFrames.Load(),
	}
}

func (s *WorkerStats) add(o *WorkerStats) {
	s.BusyNanoseconds += o.BusyNanoseconds
	s.Batches += o.Batches
	s.Sleeps += o.Sleeps
	s.Received += o.Received
	s.ReceivedBytes += o.ReceivedBytes
	s.Sent += o.Sent
	s.SentBytes += o.SentBytes
	s.SentESP += o.SentESP
	s.Punted += o.Punted
	s.Originated += o.Originated
	s.Bypassed += o.Bypassed
	s.Delivered += o.Delivered
	s.Merged += o.Merged
	s.Reassembled += o.Reassembled
	s.Fragmented += o.Fragmented
	s.FragmentedESP += o.FragmentedESP
	s.Sealed += o.Sealed
	s.Opened += o.Opened
	s.HandedOut += o.HandedOut
	s.HandedIn += o.HandedIn
	s.Parked += o.Parked
	s.Waited += o.Waited
	s.ICMPSuppressed += o.ICMPSuppressed
	s.EventsLost += o.EventsLost
	s.Dropped += o.Dropped
	s.FreeFrames += o.FreeFrames
}

func (p *port) stats() PortStats {
	s := PortStats{Name: p.config.Name, Role: p.config.Role, Ifindex: p.ifindex, MTU: p.mtu, Up: p.up, Mode: p.mode.String(), Reason: p.reason}
	if p.config.Queues != nil {
		s.Mode, s.Up = "memory", true
	}
	if p.generic {
		s.Mode = "generic"
	}
	for _, k := range p.sockets {
		q := QueueStats{Queue: k.number, Worker: k.worker, Received: k.counters.Received.Load(), Sent: k.counters.Sent.Load()}
		if st, ok := k.queue.(statistician); ok {
			q.Stats, _ = st.Stats()
		}
		s.Queues = append(s.Queues, q)
	}
	return s
}

// Associations calls f with every association that is installed, until it returns false.
func (e *Engine) Associations(f func(*sad.Info) bool) {
	e.sad.Range(func(i *sad.Info) bool {
		i.Retiring = e.retired.retires(i.Handle)
		return f(i)
	})
}
