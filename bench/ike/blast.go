package ike

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/threads"
	"sallyport/tools/craft"
	"sallyport/tools/testbed"
)

// blast is a sender of hand-made frames out of one interface of a namespace, at a steady rate.
type blast struct {
	fd    int
	frame []byte
	next  func(packet []byte, n uint64) // changes it before it is sent for the n-th time; nil for always the same
	place []int                         // the CPU that it runs on; none for any
	pause time.Duration                 // between bursts, so that what is late does not overflow a ring that it need not
}

// newBlast opens a packet socket on the interface. The frame's Ethernet header is written here.
func newBlast(ns *testbed.Namespace, name string, to net.HardwareAddr, packet []byte) (*blast, error) {
	index, err := ns.Index(name)
	if err != nil {
		return nil, err
	}
	from, err := ns.MAC(name)
	if err != nil {
		return nil, err
	}
	b := &blast{frame: append(append(append(append([]byte{}, to...), from...), 8, 0), packet...)}
	err = ns.Do(func() (err error) {
		// Of protocol 0: it receives nothing.
		if b.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(b.fd, &unix.SockaddrLinklayer{Ifindex: index}); err == nil {
			err = unix.SetsockoptInt(b.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s in %s: %w", name, ns.Name, err)
	}
	return b, nil
}

func (b *blast) close() { unix.Close(b.fd) }

// run sends until the context ends and returns how many frames left, and for how long. What is late is made up for, in bursts,
// but for what a standstill of more than 100 ms leaves.
func (b *blast) run(ctx context.Context, rate int) (sent uint64, took time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()                               // ends with this goroutine, preferred as it is
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness) // this thread's; without the right to, it is less even
		for _, cpu := range b.place {
			_ = threads.Pin(cpu)
		}
		sent, took = b.paced(ctx, rate)
	}()
	<-done
	return sent, took
}

// burstMax is how many frames are sent without a pause; a veth's ring has room for 256.
const burstMax = 64

// niceness of a sender: on a machine without a CPU to spare, what is sent to comes second.
const niceness = -15

func (b *blast) paced(ctx context.Context, rate int) (sent uint64, took time.Duration) {
	start := time.Now()
	began := start
	due := uint64(0) // frames since began
	for n := uint64(0); ctx.Err() == nil; {
		elapsed := time.Since(began)
		target := uint64(elapsed.Seconds() * float64(rate))
		if most := uint64(rate / 10); target > due+most {
			began, due = time.Now(), 0
			target = most
		}
		if target == due {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		for target = min(target, due+burstMax); due < target; due++ {
			if b.next != nil {
				b.next(b.frame[14:], n)
			}
			n++
			if _, err := unix.Write(b.fd, b.frame); err == nil {
				sent++
			}
		}
		time.Sleep(b.pause)
	}
	return sent, time.Since(start)
}

// datagram is an IPv4 packet with a UDP datagram without checksum in it.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	source, destination := from.Addr().As4(), to.Addr().As4()
	copy(b[12:], source[:])
	copy(b[16:], destination[:])
	binary.BigEndian.PutUint16(b[20:], from.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	return append(craft.FixIPv4(b), payload...)
}

// newSpoofer sends gw-b complete IKE_SA_INIT requests, each from an address of spoofedNet and with an SPI of its own, out of the
// transit network's bridge.
func newSpoofer(d *daemons, s scenario) (*blast, error) {
	request, err := spoofed(s)
	if err != nil {
		return nil, err
	}
	mac, err := d.network.GwB.MAC("wan")
	if err != nil {
		return nil, err
	}
	first := netip.MustParsePrefix(spoofedNet).Addr().As4()
	to := netip.AddrPortFrom(gwB, ikePort)
	b, err := newBlast(d.network.Transit, "br0", mac, datagram(netip.AddrPortFrom(netip.AddrFrom4(first), ikePort), to, request))
	if err != nil {
		return nil, err
	}
	var spi [8]byte
	rand.Read(spi[:])
	base := binary.BigEndian.Uint64(spi[:]) >> 1
	b.pause = 50 * time.Microsecond
	b.next = func(packet []byte, n uint64) {
		binary.BigEndian.PutUint32(packet[12:], binary.BigEndian.Uint32(first[:])|uint32(n)&0x1ffff)
		binary.BigEndian.PutUint64(packet[28:], base+n)
		craft.FixIPv4(packet)
	}
	return b, nil
}
