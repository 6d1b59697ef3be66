package soak

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// crossing is a family and a direction.
type crossing struct {
	udp, near, far string
	back           bool // begun by host-b
}

var crossings = []crossing{
	{"udp4", rig.HostA4, rig.HostB4, false}, {"udp4", rig.HostB4, rig.HostA4, true},
	{"udp6", rig.HostA6, rig.HostB6, false}, {"udp6", rig.HostB6, rig.HostA6, true},
}

// payloads are the sizes of the datagrams, in turn: about those of a mix of the Internet, within every tunnel's MTU.
var payloads = []int{40, 40, 512, 40, 1300, 40, 512, 40, 40, 1300, 40, 512}

// second is what happened to the datagrams that were sent in one second.
type second struct {
	sent, returned, bytes int
	micros                []float64 // round trips
}

// stream is datagrams that the far host echoes, at a steady rate, timed from when each was due.
type stream struct {
	near, far net.PacketConn
	stop      chan struct{}
	wait      sync.WaitGroup
	paused    atomic.Bool
	sent      atomic.Uint64
	marked    atomic.Uint64 // number of the first datagram that counts as sent since the mark
	best      atomic.Uint64 // highest number that came back, plus one

	mu      sync.Mutex
	began   time.Time
	seconds []second
}

func start(n *rig.Network, c crossing, index, rate int) (*stream, error) {
	nearNS, farNS := n.HostA, n.HostB
	if c.back {
		nearNS, farNS = farNS, nearNS
	}
	port := uint16(7100 + index)
	x := &stream{stop: make(chan struct{}), began: time.Now()}
	var err error
	listen := func(ns *testbed.Namespace, addr string) net.PacketConn {
		var conn net.PacketConn
		if err == nil {
			conn, err = rig.ListenPacket(ns, c.udp, netip.AddrPortFrom(netip.MustParseAddr(addr), port).String())
		}
		return conn
	}
	x.far = listen(farNS, c.far)
	x.near = listen(nearNS, c.near)
	if err != nil {
		if x.far != nil {
			x.far.Close()
		}
		return nil, err
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.far), port))
	x.wait.Add(3)
	go x.echo()
	go x.receive()
	go x.send(to, n.Mark, rate)
	return x, nil
}

func (x *stream) echo() {
	defer x.wait.Done()
	b := make([]byte, 2048)
	for {
		k, from, err := x.far.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			x.far.WriteTo(b[:k], from)
		}
	}
}

// A datagram is its number, when it was due (nanoseconds since the epoch), and the mark.
const header = 16

func (x *stream) send(to net.Addr, mark []byte, rate int) {
	defer x.wait.Done()
	b := make([]byte, slices.Max(payloads))
	for i := header; i+len(mark) <= len(b); i += len(mark) {
		copy(b[i:], mark)
	}
	gap := time.Second / time.Duration(rate)
	due := time.Now()
	for {
		if wait := time.Until(due); wait > 0 {
			select {
			case <-x.stop:
				return
			case <-time.After(wait):
			}
		} else if wait < -time.Second {
			due = time.Now() // after a standstill of the machine nothing is made up for
		}
		select {
		case <-x.stop:
			return
		default:
		}
		if !x.paused.Load() {
			number := x.sent.Load()
			size := payloads[number%uint64(len(payloads))]
			binary.BigEndian.PutUint64(b, number)
			binary.BigEndian.PutUint64(b[8:], uint64(due.UnixNano()))
			x.sent.Add(1)
			x.note(due, func(s *second) { s.sent++ })
			x.near.WriteTo(b[:size], to) // what the host refuses while a link is down counts as lost
		}
		due = due.Add(gap)
	}
}

func (x *stream) receive() {
	defer x.wait.Done()
	b := make([]byte, 2048)
	for {
		k, _, err := x.near.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || k < header {
			continue
		}
		number, due := binary.BigEndian.Uint64(b), time.Unix(0, int64(binary.BigEndian.Uint64(b[8:])))
		x.best.Store(max(x.best.Load(), number+1))
		x.note(due, func(s *second) {
			s.returned++
			s.bytes += k
			s.micros = append(s.micros, float64(time.Since(due).Nanoseconds())/1e3)
		})
	}
}

// samplesMax bounds the round trips that are kept of one second: memory for hours.
const samplesMax = 200

func (x *stream) note(due time.Time, f func(s *second)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := int(due.Sub(x.began) / time.Second)
	if due.Before(x.began) {
		return
	}
	for len(x.seconds) <= at {
		x.seconds = append(x.seconds, second{})
	}
	s := &x.seconds[at]
	f(s)
	if len(s.micros) > samplesMax {
		s.micros[int(s.sent*31)%samplesMax] = s.micros[samplesMax]
		s.micros = s.micros[:samplesMax]
	}
}

// from forgets what was and counts seconds from now on.
func (x *stream) from(began time.Time) {
	x.mu.Lock()
	x.began, x.seconds = began, nil
	x.mu.Unlock()
}

func (x *stream) pause(on bool) { x.paused.Store(on) }
func (x *stream) mark()         { x.marked.Store(x.sent.Load()) }

func (x *stream) returnedSinceMark() bool { return x.best.Load() > x.marked.Load() }

func (x *stream) close() {
	close(x.stop)
	x.near.Close()
	x.far.Close()
	x.wait.Wait()
}

// window is what all streams did in a part of the run, second by second.
type window struct {
	mbits, lost []float64
	micros      [][]float64
}

// quantile returns a quantile of the round trips of each second.
func (w window) quantile(q float64) (all []float64) {
	for _, m := range w.micros {
		if len(m) > 0 {
			slices.Sort(m)
			all = append(all, m[min(len(m)-1, int(q*float64(len(m))))])
		}
	}
	return all
}

// window returns the whole seconds between two moments. The run's last second is left out: its echoes are under way.
func (s *soak) window(from, to float64) (w window) {
	for at := int(from); at < int(to)-1; at++ {
		var sum second
		for _, x := range s.streams {
			x.mu.Lock()
			if at < len(x.seconds) {
				y := x.seconds[at]
				sum.sent, sum.returned, sum.bytes = sum.sent+y.sent, sum.returned+y.returned, sum.bytes+y.bytes
				sum.micros = append(sum.micros, y.micros...)
			}
			x.mu.Unlock()
		}
		w.mbits = append(w.mbits, float64(sum.bytes)*8/1e6)
		w.lost = append(w.lost, float64(sum.sent-sum.returned))
		w.micros = append(w.micros, sum.micros)
	}
	return w
}
