package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/craft"
	"sallyport/tools/rig"
)

// family is what differs between IPv4 and IPv6 for a host that sends.
type family struct {
	name, icmp, udp, tcp string
	near, far            string
	echo, reply          byte // ICMP types
	header               int  // bytes of the IP header
	level, discover, mtu int  // socket options
	always               int  // the value of discover that sets DF and never fragments
	port                 func(addr string, port int) string
}

var families = []family{
	{"IPv4", "ip4:icmp", "udp4", "tcp4", rig.HostA4, rig.HostB4, 8, 0, 20, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU, unix.IP_PMTUDISC_DO, hostPort},
	{"IPv6", "ip6:ipv6-icmp", "udp6", "tcp6", rig.HostA6, rig.HostB6, 128, 129, 40, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPV6_PMTUDISC_DO, hostPort},
}

func hostPort(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// traffic is everything that the hosts do through the tunnels.
func traffic(r *result, n *rig.Network, size int) error {
	for _, f := range families {
		say("ping over %s", f.name)
		p, err := pings(n, f)
		if err != nil {
			return err
		}
		r.Ping = append(r.Ping, p)
		fmt.Printf("  %d of %d answered; round trip %.2f ms in the middle, %.2f at worst; %d lost before the first answer\n", p.Answered, p.Sent, p.MedianMS, p.WorstMS, p.Warmup)
	}
	for _, f := range families {
		say("the tunnel's MTU, as the gateway tells a host over %s", f.name)
		mtu, err := pathMTU(n, f)
		if err != nil {
			return err
		}
		r.MTU[f.name] = mtu
		fmt.Printf("  %d bytes\n", mtu)
	}
	for _, f := range families {
		say("UDP over %s, every size from 1 to %d bytes, echoed", f.name, r.MTU[f.name]-f.header-8)
		s, err := everySize(n, f, r.MTU[f.name]-f.header-8)
		if err != nil {
			return err
		}
		r.UDP = append(r.UDP, s)
		fmt.Printf("  all %d came back whole; %d had to be sent again\n", s.Sizes, s.Again)
	}
	for i, f := range families {
		bytes := size >> (2 * i)
		for _, back := range []bool{false, true} {
			from, to := "host-a", "host-b"
			if back {
				from, to = to, from
			}
			say("TCP over %s, %d MiB from %s to %s", f.name, bytes>>20, from, to)
			t, err := tcp(n, f, bytes, back)
			if err != nil {
				return err
			}
			r.TCP = append(r.TCP, t)
			fmt.Printf("  %.0f Mbit/s; SHA-256 of both ends equal\n", t.Mbits)
		}
	}
	return nil
}

// ping is the outcome of the pings over one family.
type ping struct {
	Family   string  `json:"family"`
	Sent     int     `json:"sent"`
	Answered int     `json:"answered"`
	Warmup   int     `json:"lost_before_first_answer"` // while neighbours were resolved
	MedianMS float64 `json:"median_ms"`
	WorstMS  float64 `json:"worst_ms"`
}

// pings sends echo requests until the first is answered (at most ten seconds), then
// twenty more that all must be.
func pings(n *rig.Network, f family) (ping, error) {
	p := ping{Family: f.name}
	conn, err := rig.ListenPacket(n.HostA, f.icmp, f.near)
	if err != nil {
		return p, err
	}
	defer conn.Close()
	to, err := net.ResolveIPAddr(f.icmp[:3], f.far)
	if err != nil {
		return p, err
	}
	id := uint16(os.Getpid())
	var seq uint16
	once := func(wait time.Duration) (time.Duration, error) {
		seq++
		request := append([]byte{f.echo, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}, n.Mark...)
		if f.echo == 8 { // the kernel writes the checksum of ICMPv6 itself
			binary.BigEndian.PutUint16(request[2:], ^craft.Sum(request))
		}
		start := time.Now()
		if _, err := conn.WriteTo(request, to); err != nil {
			return 0, err
		}
		conn.SetReadDeadline(start.Add(wait))
		answer := make([]byte, 1500)
		for {
			k, _, err := conn.ReadFrom(answer)
			if err != nil {
				return 0, err
			}
			if k == len(request) && answer[0] == f.reply && bytes.Equal(answer[4:k], request[4:]) {
				return time.Since(start), nil
			}
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err = once(200 * time.Millisecond); err == nil {
			break
		}
		p.Warmup++
		if time.Now().After(deadline) {
			return p, fmt.Errorf("no answer to %d pings over %s: %w", p.Warmup, f.name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	var trips []time.Duration
	for p.Sent < 20 {
		p.Sent++
		trip, err := once(2 * time.Second)
		if err != nil {
			return p, fmt.Errorf("ping %d over %s was not answered: %w", p.Sent, f.name, err)
		}
		p.Answered++
		trips = append(trips, trip)
		time.Sleep(10 * time.Millisecond)
	}
	slices.Sort(trips)
	p.MedianMS = trips[len(trips)/2].Seconds() * 1000
	p.WorstMS = trips[len(trips)-1].Seconds() * 1000
	return p, nil
}

// neverFragment makes a socket set DF and report what does not fit.
func (f family) neverFragment(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), f.level, f.discover, f.always)
	}), err)
}

// pathMTU sends datagrams as large as the interface until the gateway's ICMP has
// told the host's kernel what the tunnel takes, then checks that the kernel refuses
// one byte more. A path that takes the interface's MTU has that MTU.
func pathMTU(n *rig.Network, f family) (int, error) {
	conn, err := rig.Dial(n.HostA, f.udp, f.port(f.far, 9), f.neverFragment)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	full := 1500 - f.header - 8
	mtu := 0
	for range 20 {
		_, sendErr := conn.Write(make([]byte, full))
		if sendErr != nil && !errors.Is(sendErr, unix.EMSGSIZE) && !errors.Is(sendErr, unix.ECONNREFUSED) {
			return 0, fmt.Errorf("a datagram of the interface's size over %s: %w", f.name, sendErr)
		}
		time.Sleep(50 * time.Millisecond)
		if mtu, err = f.pathMTUOf(conn); err != nil {
			return 0, err
		}
		if mtu < 1500 {
			break
		}
	}
	if mtu == 1500 {
		return mtu, nil
	}
	if mtu < 1280 {
		return 0, fmt.Errorf("the gateway told the host an MTU of %d over %s", mtu, f.name)
	}
	conn.Write(nil) // takes a pending ICMP error off the socket
	if _, err := conn.Write(make([]byte, mtu-f.header-8+1)); !errors.Is(err, unix.EMSGSIZE) {
		return 0, fmt.Errorf("one byte more than the MTU of %d over %s was not refused (%v)", mtu, f.name, err)
	}
	return mtu, nil
}

func (f family) pathMTUOf(conn net.Conn) (mtu int, err error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var optionErr error
	err = raw.Control(func(fd uintptr) { mtu, optionErr = unix.GetsockoptInt(int(fd), f.level, f.mtu) })
	return mtu, errors.Join(err, optionErr)
}

// sweep is the outcome of the datagrams of every size.
type sweep struct {
	Family string `json:"family"`
	Sizes  int    `json:"sizes"`
	Again  int    `json:"sent_again"` // datagrams that had to be sent more than once
}

// windowPackets bounds the datagrams under way: well below the 256 that a veth's ring holds.
const windowPackets = 32

// echo sends datagrams back to where they came from, until the socket is closed.
func echo(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		k, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.WriteTo(b[:k], from)
		}
	}
}

// everySize has a datagram of each size echoed by the far host, and compares every
// byte. A size that does not come back is sent again, twice at most.
func everySize(n *rig.Network, f family, largest int) (sweep, error) {
	s := sweep{Family: f.name, Sizes: largest}
	far, err := rig.ListenPacket(n.HostB, f.udp, f.port(f.far, 7))
	if err != nil {
		return s, err
	}
	defer far.Close()
	go echo(far)
	conn, err := rig.Dial(n.HostA, f.udp, f.port(f.far, 7), f.neverFragment)
	if err != nil {
		return s, err
	}
	defer conn.Close()

	want := make([]byte, largest)
	rand.Read(want)
	for i := 0; i+len(n.Mark) <= largest; i += 64 {
		copy(want[i:], n.Mark)
	}
	open := make([]bool, largest+1)
	answer := make([]byte, 2048)
	for try := range 3 {
		left, underway := 0, 0
		receive := func() error {
			conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			k, err := conn.Read(answer)
			if err != nil {
				return err
			}
			if k > largest || !bytes.Equal(answer[:k], want[:k]) {
				return fmt.Errorf("a datagram of %d bytes over %s came back changed", k, f.name)
			}
			if open[k] {
				open[k] = false
				underway--
			}
			return nil
		}
		for size := 1; size <= largest; size++ {
			if try > 0 && !open[size] {
				continue
			}
			if try > 0 {
				s.Again++
			}
			if _, err := conn.Write(want[:size]); err != nil {
				return s, fmt.Errorf("sending %d bytes over %s: %w", size, f.name, err)
			}
			open[size] = true
			underway++
			for underway >= windowPackets {
				if err := receive(); errors.Is(err, os.ErrDeadlineExceeded) {
					underway = 0 // all of them are lost; the next try sends them again
				} else if err != nil {
					return s, err
				}
			}
		}
		for underway > 0 {
			if err := receive(); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				return s, err
			}
		}
		for size := 1; size <= largest; size++ {
			if open[size] {
				left++
			}
		}
		if left == 0 {
			return s, nil
		}
	}
	var missing []int
	for size, lost := range open {
		if lost {
			missing = append(missing, size)
		}
	}
	return s, fmt.Errorf("UDP over %s: %d sizes never came back, the first are %v", f.name, len(missing), missing[:min(8, len(missing))])
}

// transfer is the outcome of one TCP transfer.
type transfer struct {
	Family  string  `json:"family"`
	From    string  `json:"from"`
	Bytes   int     `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Mbits   float64 `json:"mbit_per_s"` // of payload
	SHA256  string  `json:"sha256"`     // what both ends computed
}

// receiveBuffer bounds the TCP window, and with it the packets under way, to what
// a veth's ring of 256 holds.
const receiveBuffer = 192 << 10

func smallWindow(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}), err)
}

// tcp sends bytes from host-a to host-b, or back, and compares what both ends hashed.
func tcp(n *rig.Network, f family, size int, back bool) (transfer, error) {
	t := transfer{Family: f.name, Bytes: size, From: "host-a"}
	source, sink, addr := n.HostA, n.HostB, f.far
	if back {
		t.From = "host-b"
		source, sink, addr = n.HostB, n.HostA, f.near
	}
	var listener net.Listener
	err := sink.Do(func() error {
		var err error
		listener, err = (&net.ListenConfig{Control: smallWindow}).Listen(context.Background(), f.tcp, f.port(addr, 5001))
		return err
	})
	if err != nil {
		return t, err
	}
	defer listener.Close()
	deadline := time.Now().Add(30 * time.Second)

	type end struct {
		bytes int64
		sum   []byte
		err   error
	}
	received := make(chan end, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- end{err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(deadline)
		h := sha256.New()
		k, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		received <- end{k, h.Sum(nil), err}
	}()

	conn, err := rig.Dial(source, f.tcp, f.port(addr, 5001), smallWindow)
	if err != nil {
		return t, err
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	block := make([]byte, 256<<10)
	rand.Read(block)
	h := sha256.New()
	start := time.Now()
	for done := 0; done < size; done += len(block) {
		// A mark every 512 bytes stands whole in every full segment; the counter
		// makes the blocks different.
		for i := 0; i < len(block); i += 512 {
			binary.BigEndian.PutUint64(block[i:], uint64(done+i))
			copy(block[i+8:], n.Mark)
		}
		part := block[:min(len(block), size-done)]
		h.Write(part)
		if _, err := conn.Write(part); err != nil {
			return t, fmt.Errorf("TCP over %s from %s, after %d bytes: %w", f.name, t.From, done, err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return t, err
	}
	got := <-received
	t.Seconds = time.Since(start).Seconds()
	t.Mbits = float64(size) * 8 / t.Seconds / 1e6
	t.SHA256 = fmt.Sprintf("%x", h.Sum(nil))
	if got.err != nil || got.bytes != int64(size) || !bytes.Equal(got.sum, h.Sum(nil)) {
		return t, fmt.Errorf("TCP over %s from %s: sent %d bytes, the far end has %d and another checksum (%v)", f.name, t.From, size, got.bytes, got.err)
	}
	return t, nil
}
