package datagram

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Opener opens a UDP socket of family unix.AF_INET or unix.AF_INET6 (of that family only), bound to port on every address,
// which says to which address a datagram came (IP_PKTINFO, IPV6_RECVPKTINFO).
type Opener func(family int, port uint16) (fd int, err error)

// Sockets are the kernel's UDP sockets for IKE: ports 500 and 4500 in both families. The kernel reassembles and
// cuts up, and follows routes that workers cannot.
type Sockets struct {
	list [4]socket
	wait sync.WaitGroup

	received, malformed, sent atomic.Uint64
}

type socket struct {
	family int
	port   uint16
	conn   *net.UDPConn // nil if it could not be opened
}

// messageMax is the longest datagram that is received: what UDP can say.
const messageMax = 65535

// Listen opens the sockets and starts to hand on what they receive. Each that cannot be opened is left out and
// named in the error; with all of them missing the result is nil.
func Listen(open Opener, h Handler) (*Sockets, error) {
	s := &Sockets{list: [4]socket{
		{family: unix.AF_INET, port: PortIKE}, {family: unix.AF_INET, port: PortNATT},
		{family: unix.AF_INET6, port: PortIKE}, {family: unix.AF_INET6, port: PortNATT},
	}}
	var failed []error
	opened := 0
	for i := range s.list {
		k := &s.list[i]
		conn, err := connOf(open, k.family, k.port)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		k.conn = conn
		opened++
		s.wait.Add(1)
		go s.receive(k, h)
	}
	if opened == 0 {
		s = nil
	}
	return s, errors.Join(failed...)
}

// connOf makes the descriptor one of the runtime's poller.
func connOf(open Opener, family int, port uint16) (*net.UDPConn, error) {
	fd, err := open(family, port)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("udp port %d", port))
	defer f.Close() // FilePacketConn duplicates it
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("UDP port %d: %w", port, err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("UDP port %d: not a UDP socket", port)
	}
	return u, nil
}

// Close closes the sockets and returns when the last handler has.
func (s *Sockets) Close() {
	for i := range s.list {
		if s.list[i].conn != nil {
			s.list[i].conn.Close()
		}
	}
	s.wait.Wait()
}

// Counters returns how many datagrams were handed on, how many had no marker or no address, and how many were sent.
func (s *Sockets) Counters() (received, malformed, sent uint64) {
	return s.received.Load(), s.malformed.Load(), s.sent.Load()
}

func (s *Sockets) receive(k *socket, h Handler) {
	defer s.wait.Done()
	data, oob := make([]byte, messageMax), make([]byte, 256)
	for {
		n, on, flags, from, err := k.conn.ReadMsgUDPAddrPort(data, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about something sent: IKE retransmits
		}
		to, ok := destination(oob[:on])
		message, marked := unmark(k.port, data[:n])
		if !ok || !marked || flags&unix.MSG_TRUNC != 0 {
			s.malformed.Add(1)
			continue
		}
		s.received.Add(1)
		h(netip.AddrPortFrom(to, k.port), unmapped(from), message)
	}
}

// destination finds the address that a datagram came to.
func destination(oob []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return netip.AddrFrom4([4]byte(m.Data[8:12])), true // struct in_pktinfo: ifindex, spec_dst, addr
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return netip.AddrFrom16([16]byte(m.Data[:16])), true
		}
	}
	return netip.Addr{}, false
}

// Send sends data from local, whose port chooses the socket, to remote, with the marker if marked.
func (s *Sockets) Send(local, remote netip.AddrPort, marked bool, data []byte) error {
	if !local.Addr().IsValid() || local.Addr().BitLen() != remote.Addr().BitLen() || local.Addr().Is4In6() || remote.Addr().Is4In6() {
		return ErrAddress
	}
	family := unix.AF_INET6
	if remote.Addr().Is4() {
		family = unix.AF_INET
	}
	for i := range s.list {
		k := &s.list[i]
		if k.conn == nil || k.family != family || k.port != local.Port() {
			continue
		}
		if marked {
			data = append(make([]byte, markerLen, markerLen+len(data)), data...)
		}
		err := k.send(data, local.Addr(), remote)
		if err == nil {
			s.sent.Add(1)
		}
		return err
	}
	return fmt.Errorf("no kernel socket for UDP port %d", local.Port())
}

// send sends at once or not at all.
func (k *socket) send(data []byte, local netip.Addr, remote netip.AddrPort) error {
	raw, err := k.conn.SyscallConn()
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(remote.Port()), Addr: remote.Addr().As16()}
	if remote.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		_, failed = unix.SendmsgN(int(fd), data, source(local), to, unix.MSG_DONTWAIT)
		return true
	})
	if err == nil && failed != nil {
		err = fmt.Errorf("send by UDP port %d: %w", k.port, failed)
	}
	return err
}

// source is the control message that chooses a datagram's source address.
func source(a netip.Addr) []byte {
	if a.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
}

// Open is the [Opener] of a process that may bind port 500 itself.
func Open(family int, port uint16) (fd int, err error) {
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, fmt.Errorf("open a UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	level, name := unix.IPPROTO_IP, unix.IP_PKTINFO
	if family == unix.AF_INET6 {
		to, level, name = &unix.SockaddrInet6{Port: int(port)}, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, fmt.Errorf("keep a UDP socket to IPv6: %w", err)
		}
	}
	if err = unix.SetsockoptInt(fd, level, name, 1); err != nil {
		return fd, fmt.Errorf("ask for the addresses of datagrams: %w", err)
	}
	// IKE messages may be cut up on their way: no path MTU discovery.
	if family == unix.AF_INET {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	} else {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
	}
	if err = unix.Bind(fd, to); err != nil {
		return fd, fmt.Errorf("bind UDP port %d: %w", port, err)
	}
	return fd, nil
}

// Route returns the address that the kernel gives packets to remote as their source: what a connected socket,
// which sends nothing, is bound to.
func Route(remote netip.Addr) (netip.Addr, error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: PortIKE, Addr: remote.As16()}
	if remote.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: PortIKE, Addr: remote.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("open a UDP socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return netip.Addr{}, fmt.Errorf("find the source address for packets to %s: %w", remote, err)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the source address for packets to %s: %w", remote, err)
	}
	switch a := local.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr), nil
	}
	return netip.Addr{}, fmt.Errorf("find the source address for packets to %s: no IP address", remote)
}
