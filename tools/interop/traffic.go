package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// hosts are the ends of the traffic over one inner family: behind the gateways or, with a
// virtual address, a gateway itself.
type hosts struct {
	family     int // 4 or 6
	a, b       *testbed.Namespace
	near, far  string
	echo, icmp byte // types of ICMP request and reply
}

func (n *network) hosts(family string) (hosts, error) {
	switch family {
	case "4":
		return hosts{4, n.hostA, n.hostB, rig.HostA4, rig.HostB4, 8, 0}, nil
	case "6":
		return hosts{6, n.hostA, n.hostB, rig.HostA6, rig.HostB6, 128, 129}, nil
	}
	return hosts{}, fmt.Errorf("there is no IP version %q", family)
}

// pingsNeeded is how many must be answered one after the other once the first was.
const pingsNeeded = 5

// ping sends echo requests to the far host until one is answered, while the context lasts, then some
// more, which all must be. It returns how many got lost before the first answer, for each of which it waited with patience.
func (h hosts) ping(ctx context.Context, mark []byte, patience time.Duration) (warmup int, err error) {
	network := map[int]string{4: "ip4:icmp", 6: "ip6:ipv6-icmp"}[h.family]
	conn, err := rig.ListenPacket(h.a, network, h.near)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	to := &net.IPAddr{IP: net.ParseIP(h.far)}
	for seq := uint16(1); ; seq++ {
		request := append([]byte{h.echo, 0, 0, 0, 0, 1, byte(seq >> 8), byte(seq)}, mark...)
		if h.family == 4 { // the kernel writes the checksum of ICMPv6 itself
			binary.BigEndian.PutUint16(request[2:], checksum(request))
		}
		wait := patience
		if int(seq) > warmup+1 { // this one must be answered, however busy the machine is
			wait = 3 * time.Second
		}
		answered, err := h.answered(conn, to, request, wait)
		switch {
		case err != nil:
			return warmup, err
		case answered && int(seq) >= warmup+1+pingsNeeded:
			return warmup, nil
		case answered:
			time.Sleep(10 * time.Millisecond)
		case int(seq) > warmup+1:
			return warmup, fmt.Errorf("ping %d from %s to %s was not answered, though earlier ones were", seq, h.near, h.far)
		default:
			warmup++
		}
		if ctx.Err() != nil {
			return warmup, fmt.Errorf("no answer to %d pings from %s to %s: %w", warmup, h.near, h.far, ctx.Err())
		}
	}
}

func (h hosts) answered(conn net.PacketConn, to net.Addr, request []byte, wait time.Duration) (bool, error) {
	if _, err := conn.WriteTo(request, to); err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
		return false, err
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	answer := make([]byte, 1500)
	for {
		k, _, err := conn.ReadFrom(answer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		case k == len(request) && answer[0] == h.icmp && bytes.Equal(answer[4:k], request[4:]):
			return true, nil
		}
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// stream is a counted stream of datagrams each way between the hosts.
type stream struct {
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

// streamPort is the UDP port of both ends; streamTail how long the last datagrams may be under way.
const (
	streamPort = 7001
	streamTail = 700 * time.Millisecond
)

// start begins to send so many datagrams a second each way.
func (h hosts) start(rate int, mark []byte) (*stream, error) {
	network := fmt.Sprintf("udp%d", h.family)
	s := &stream{stop: make(chan struct{})}
	var conns [2]net.PacketConn
	for i, x := range []struct {
		ns   *testbed.Namespace
		addr string
	}{{h.a, h.near}, {h.b, h.far}} {
		c, err := rig.ListenPacket(x.ns, network, net.JoinHostPort(x.addr, fmt.Sprint(streamPort)))
		if err != nil {
			if i == 1 {
				conns[0].Close()
			}
			return nil, err
		}
		conns[i] = c
	}
	for i, x := range []struct{ name, to string }{{"a to b", h.far}, {"b to a", h.near}} {
		w := &way{name: x.name, conn: conns[i], to: &net.UDPAddr{IP: net.ParseIP(x.to), Port: streamPort}, seen: map[uint64]bool{}}
		s.ways[i] = w
		s.group.Add(1)
		go func() { defer s.group.Done(); w.send(rate, mark, s.stop) }()
		go w.receive(conns[1-i], mark)
	}
	return s, nil
}

func (w *way) send(rate int, mark []byte, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		seq := w.sent
		w.sent++
		w.mu.Unlock()
		w.conn.WriteTo(append(binary.BigEndian.AppendUint64(nil, seq), mark...), w.to) // a refusal counts as a loss
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

// flow is what became of one direction.
type flow struct {
	Way      string   `json:"way"`
	Sent     uint64   `json:"sent"`
	Lost     uint64   `json:"lost"`
	Repeated uint64   `json:"repeated"`
	Gaps     []uint64 `json:"lost_numbers,omitempty"` // the first few
}

// end stops sending, waits for what is under way and counts.
func (s *stream) end() []flow {
	close(s.stop)
	s.group.Wait()
	time.Sleep(streamTail)
	var flows []flow
	for _, w := range s.ways {
		w.conn.Close()
	}
	for _, w := range s.ways {
		w.mu.Lock()
		f := flow{Way: w.name, Sent: w.sent, Repeated: w.repeated}
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
