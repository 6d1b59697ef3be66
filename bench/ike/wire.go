package ike

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sallyport/ike"
	"sallyport/ike/ikesa"
)

// wire carries datagrams between the two servers of this process.
type wire interface {
	// end returns the transport of one side, which delivers to the server that start is called with.
	end(side int) *end
	close()
}

// end is one side's transport.
type end struct {
	send   func(ikesa.Datagram) error
	server atomic.Pointer[ike.Server]
}

func (e *end) Send(d ikesa.Datagram) error                  { return e.send(d) }
func (e *end) Keepalive(local, remote netip.AddrPort) error { return nil }

// memoryWire hands every datagram to the other server by a call: what is measured is IKE alone.
type memoryWire struct{ ends [2]*end }

func newMemoryWire() wire {
	w := &memoryWire{[2]*end{new(end), new(end)}}
	for i, e := range w.ends {
		other := w.ends[1-i]
		e.send = func(d ikesa.Datagram) error {
			if s := other.server.Load(); s != nil {
				s.Receive(ikesa.Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})
			}
			return nil
		}
	}
	return w
}

func (w *memoryWire) end(side int) *end { return w.ends[side] }
func (w *memoryWire) close()            {}

// udpWire is the kernel's loopback, where every address of 127.0.0.0/8 is local: one socket a side, with the local
// address of each datagram beside it.
type udpWire struct {
	ends    [2]*end
	sockets [2]*net.UDPConn
	running sync.WaitGroup
}

// socketBuffer is what the kernel may queue for one side, in bytes: all first messages of a burst fit.
const socketBuffer = 8 << 20

func newUDPWire() (wire, error) {
	w := new(udpWire)
	for i := range w.ends {
		// Both listen on the same port of the wildcard address would clash: each has its own, and the logical port 500
		// is what the servers see.
		c, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			w.close()
			return nil, err
		}
		w.sockets[i] = c
		c.SetReadBuffer(socketBuffer)
		c.SetWriteBuffer(socketBuffer)
		if err := packetInfo(c); err != nil {
			w.close()
			return nil, err
		}
	}
	for i := range w.ends {
		own, peerPort := w.sockets[i], uint16(w.sockets[1-i].LocalAddr().(*net.UDPAddr).Port)
		e := &end{send: func(d ikesa.Datagram) error {
			info := sourceOf(d.Local.Addr())
			_, _, err := own.WriteMsgUDPAddrPort(d.Data, info[:], netip.AddrPortFrom(d.Remote.Addr(), peerPort))
			return err
		}}
		w.ends[i] = e
		w.running.Go(func() { receive(own, e) })
	}
	return w, nil
}

func (w *udpWire) end(side int) *end { return w.ends[side] }

func (w *udpWire) close() {
	for _, c := range w.sockets {
		if c != nil {
			c.Close()
		}
	}
	w.running.Wait()
}

// receive hands to the server whatever comes until the socket is closed.
func receive(c *net.UDPConn, e *end) {
	data, info := make([]byte, 65536), make([]byte, 64)
	for {
		n, infoLen, _, from, err := c.ReadMsgUDPAddrPort(data, info)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		local, ok := destination(info[:infoLen])
		if s := e.server.Load(); ok && s != nil {
			s.Receive(ikesa.Datagram{Local: netip.AddrPortFrom(local, ikePort), Remote: netip.AddrPortFrom(from.Addr().Unmap(), ikePort), Data: data[:n]})
		}
	}
}

const ikePort = 500

func packetInfo(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	if err = errors.Join(err, set); err != nil {
		return fmt.Errorf("ask for packets' addresses: %w", err)
	}
	return nil
}

// sourceOf is the control message IP_PKTINFO (ip(7)) that sets the source address: cmsghdr 16, in_pktinfo 12, padding 4.
func sourceOf(a netip.Addr) (b [32]byte) {
	b[0] = 28
	b[8], b[12] = unix.IPPROTO_IP, unix.IP_PKTINFO
	v4 := a.As4()
	copy(b[20:], v4[:]) // ipi_spec_dst
	return b
}

// destination reads the address that a datagram came to.
func destination(b []byte) (netip.Addr, bool) {
	if len(b) < 28 || b[12] != unix.IP_PKTINFO {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(b[24:28])), true // ipi_addr
}
