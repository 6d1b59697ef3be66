package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/craft"
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
			binary.BigEndian.PutUint16(request[2:], ^craft.Sum(request))
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

// transferSize is what a transfer sends each way: many segments, and more than fits the first burst.
const transferSize = 64 << 10

// transfer sends that from the near host to the far one and, unless one way is enough, at the same time back, over TCP, until a deadline.
// It says whether a connection came about at all.
func (h hosts) transfer(mark []byte, oneWay bool, deadline time.Time) (begun bool, err error) {
	var l net.Listener
	if err := h.b.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(h.far, "0"))
		return err
	}); err != nil {
		return false, err
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(deadline)
	text := bytes.Repeat(mark, transferSize/len(mark)+1)[:transferSize]
	exchange := func(c net.Conn, send, receive []byte) error {
		defer c.Close()
		c.SetDeadline(deadline)
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(send)
			sent <- err
		}()
		got := make([]byte, len(receive))
		k, err := io.ReadFull(c, got)
		if err = errors.Join(err, <-sent); err != nil {
			return fmt.Errorf("%v got %d of %d bytes: %w", c.LocalAddr(), k, len(receive), err)
		}
		if !bytes.Equal(got, receive) {
			return fmt.Errorf("%v got other bytes than were sent", c.LocalAddr())
		}
		return nil
	}
	back := text
	if oneWay {
		back = nil
	}
	far := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = exchange(c, back, text)
		}
		far <- err
	}()
	c, err := rig.Dial(h.a, "tcp", l.Addr().String(), nil)
	if err != nil {
		return false, errors.Join(err, l.Close(), <-far)
	}
	return true, errors.Join(exchange(c, text, back), <-far)
}
