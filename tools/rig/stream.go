package rig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sallyport/tools/testbed"
)

// Stream is a counted stream of datagrams each way between two hosts.
type Stream struct {
	ways  [2]*way
	stop  chan struct{}
	group sync.WaitGroup
}

// way is one direction of it.
type way struct {
	name     string
	conn     net.PacketConn // sends; the far side's receives
	to       net.Addr
	mu       sync.Mutex
	sent     uint64
	seen     map[uint64]bool
	repeated uint64
}

// streamPort is the UDP port of both ends; streamTail how long the last datagrams may be under way; streamBurst how many a
// sender that is late sends at once.
const (
	streamPort  = 7001
	streamTail  = 700 * time.Millisecond
	streamBurst = 32
)

// StartStream sends so many datagrams a second each way between an address of one host and an address of another, each with
// the mark in it.
func StartStream(a *testbed.Namespace, addrA string, b *testbed.Namespace, addrB string, rate int, mark []byte) (*Stream, error) {
	s := &Stream{stop: make(chan struct{})}
	var conns [2]net.PacketConn
	for i, x := range []struct {
		ns   *testbed.Namespace
		addr string
	}{{a, addrA}, {b, addrB}} {
		c, err := ListenPacket(x.ns, "udp", net.JoinHostPort(x.addr, fmt.Sprint(streamPort)))
		if err != nil {
			if i == 1 {
				conns[0].Close()
			}
			return nil, err
		}
		conns[i] = c
	}
	for i, x := range []struct{ name, to string }{{"a to b", addrB}, {"b to a", addrA}} {
		w := &way{name: x.name, conn: conns[i], to: &net.UDPAddr{IP: net.ParseIP(x.to), Port: streamPort}, seen: map[uint64]bool{}}
		s.ways[i] = w
		s.group.Go(func() { w.send(rate, mark, s.stop) })
		go w.receive(conns[1-i], mark)
	}
	return s, nil
}

// send keeps to its rate: what is due leaves, late or not, unless the machine stood still for longer than a burst.
func (w *way) send(rate int, mark []byte, stop <-chan struct{}) {
	gap := time.Second / time.Duration(rate)
	tick := time.NewTicker(max(gap, time.Millisecond))
	defer tick.Stop()
	due := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		if late := now.Add(-streamBurst * gap); due.Before(late) {
			due = late
		}
		for ; !due.After(now); due = due.Add(gap) {
			w.mu.Lock()
			seq := w.sent
			w.sent++
			w.mu.Unlock()
			w.conn.WriteTo(append(binary.BigEndian.AppendUint64(nil, seq), mark...), w.to) // a refusal counts as a loss
		}
	}
}

func (w *way) receive(conn net.PacketConn, mark []byte) {
	b := make([]byte, 1500)
	for {
		k, _, err := conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || k != 8+len(mark) || !bytes.Equal(b[8:k], mark) {
			continue
		}
		seq := binary.BigEndian.Uint64(b)
		w.mu.Lock()
		if w.seen[seq] {
			w.repeated++
		}
		w.seen[seq] = true
		w.mu.Unlock()
	}
}

// Flow is what became of one direction.
type Flow struct {
	Way      string   `json:"way"`
	Sent     uint64   `json:"sent"`
	Lost     uint64   `json:"lost"`
	Repeated uint64   `json:"repeated"`
	Gaps     []uint64 `json:"lost_numbers,omitempty"` // the first few
}

// End stops sending, waits for what is under way and counts.
func (s *Stream) End() []Flow {
	close(s.stop)
	s.group.Wait()
	time.Sleep(streamTail)
	var flows []Flow
	for _, w := range s.ways {
		w.conn.Close()
	}
	for _, w := range s.ways {
		w.mu.Lock()
		f := Flow{Way: w.name, Sent: w.sent, Repeated: w.repeated}
		for seq := range w.sent {
			if w.seen[seq] {
				continue
			}
			f.Lost++
			if len(f.Gaps) < 10 {
				f.Gaps = append(f.Gaps, seq)
			}
		}
		w.mu.Unlock()
		flows = append(flows, f)
	}
	return flows
}
