package tun_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sallyport/dataplane/keeper"
	"sallyport/dataplane/tun"
	"sallyport/tools/testbed"
)

// queue is an unbounded stand-in for the in-memory queue of the workers.
type queue struct {
	mu      sync.Mutex
	full    bool
	arrived [][]byte // injected: on their way to the worker
	sent    [][]byte // transmitted by the worker
	bell    chan struct{}
}

func (q *queue) Inject(frame []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.full {
		q.arrived = append(q.arrived, bytes.Clone(frame))
	}
	return !q.full
}

func (q *queue) Drain(f func([]byte)) int {
	q.mu.Lock()
	sent := q.sent
	q.sent = nil
	q.mu.Unlock()
	for _, frame := range sent {
		f(frame)
	}
	return len(sent)
}

func (q *queue) Wait(d time.Duration) {
	select {
	case <-q.bell:
	case <-time.After(d):
	}
}

func (q *queue) Interrupt() {
	select {
	case q.bell <- struct{}{}:
	default:
	}
}

func (q *queue) transmit(frame []byte) {
	q.mu.Lock()
	q.sent = append(q.sent, frame)
	q.mu.Unlock()
	q.Interrupt()
}

func sum(b []byte, s uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// echo makes an echo request in an Ethernet frame with padding behind it.
func echo(src, dst netip.Addr) []byte {
	payload := []byte("are you there?")
	icmp := append([]byte{8, 0, 0, 0, 0, 7, 0, 1}, payload...)
	frame := make([]byte, 12)
	if src.Is4() {
		binary.BigEndian.PutUint16(icmp[2:], sum(icmp, 0))
		ip := append([]byte{0x45, 0, 0, byte(20 + len(icmp)), 0, 1, 0, 0, 64, 1, 0, 0}, append(src.AsSlice(), dst.AsSlice()...)...)
		binary.BigEndian.PutUint16(ip[10:], sum(ip, 0))
		frame = append(append(append(frame, 0x08, 0), ip...), icmp...)
	} else {
		icmp[0] = 128
		addrs := append(src.AsSlice(), dst.AsSlice()...)
		pseudo := append(append([]byte{}, addrs...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, 58)
		binary.BigEndian.PutUint16(icmp[2:], sum(append(pseudo, icmp...), 0))
		ip := append([]byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 64}, addrs...)
		frame = append(append(append(frame, 0x86, 0xdd), ip...), icmp...)
	}
	return append(frame, 0, 0, 0, 0, 0)
}

func TestKernelAnswersThroughThePump(t *testing.T) {
	testbed.Thread(t)
	k, err := keeper.NewLocal()
	testbed.Must(t, err)
	defer k.Close()
	dev, err := k.OpenTUN("spt1", 1400)
	testbed.Must(t, err)
	defer dev.File.Close()
	testbed.Must(t, k.AddAddress("spt1", netip.MustParsePrefix("198.51.100.1/24")))
	testbed.Must(t, k.AddAddress("spt1", netip.MustParsePrefix("2001:db8:7::1/64")))
	q := &queue{bell: make(chan struct{}, 1)}
	for range 2 { // a second pump on the same device works too
		p := tun.Start(dev.File, q, 1400)
		for _, pair := range [][2]string{{"198.51.100.9", "198.51.100.1"}, {"2001:db8:7::9", "2001:db8:7::1"}} {
			peer, us := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
			q.transmit(echo(peer, us))
			testbed.Eventually(t, "an echo reply to "+pair[0], func() bool {
				q.mu.Lock()
				defer q.mu.Unlock()
				for _, f := range q.arrived {
					etherType := binary.BigEndian.Uint16(f[12:])
					if peer.Is4() && etherType == 0x0800 && f[14+9] == 1 && f[14+20] == 0 || peer.Is6() && etherType == 0x86dd && f[14+6] == 58 && f[14+40] == 129 {
						return bytes.HasSuffix(f, []byte("are you there?"))
					}
				}
				return false
			})
		}
		for _, bad := range [][]byte{{1}, make([]byte, 14), make([]byte, 60), echo(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))[:40]} {
			q.transmit(bad)
		}
		testbed.Eventually(t, "bad frames are counted", func() bool { return p.Counters().ToKernelBad == 4 })
		p.Close()
		c := p.Counters()
		q.mu.Lock()
		if c.ToKernel != 2 || c.FromKernel != uint64(len(q.arrived)) || c.FromKernelBad != 0 || c.ToKernelFailed != 0 {
			t.Errorf("counters %+v, %d injected", c, len(q.arrived))
		}
		q.arrived = nil
		q.mu.Unlock()
	}
	q.full = true
	p := tun.Start(dev.File, q, 1400)
	defer p.Close()
	q.transmit(echo(netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("198.51.100.1")))
	testbed.Eventually(t, "a full queue is counted", func() bool { return p.Counters().FromKernelFull > 0 })
}
