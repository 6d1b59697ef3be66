package ikesa

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"net/netip"

	"sallyport/ike/message"
)

// natHash is the content of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP
// (RFC 7296, 2.23). SHA-1 hides nothing here and protects nothing.
func natHash(spiI, spiR message.SPI, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 40), uint64(spiI))
	b = binary.BigEndian.AppendUint64(b, uint64(spiR))
	b = append(b, a.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	sum := sha1.Sum(b)
	return sum[:]
}

// natPayloads are the two notifies for a message from local to remote. Who forces
// encapsulation pretends not to be where it is.
func (s *SA) natPayloads(local, remote netip.AddrPort) []message.Payload {
	source := natHash(s.spiI, s.spiR, local)
	if s.conn.Encap {
		// Not random, so that one message sent twice is the same twice: the hash of no address.
		source = natHash(s.spiI, s.spiR, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	}
	return []message.Payload{
		&message.Notify{Notify: message.NATDetectionSourceIP, Data: source},
		&message.Notify{Notify: message.NATDetectionDestinationIP, Data: natHash(s.spiI, s.spiR, remote)},
	}
}

// noteNAT keeps what the notifies of IKE_SA_INIT tell.
func (s *SA) noteNAT(m *message.Message, d Datagram) {
	s.natHere, s.natThere, s.natChecked = s.detectNAT(m, d)
	s.forced = s.natChecked && s.conn.Encap
}

// detectNAT compares the peer's notifies with the addresses of the datagram that
// brought them. The peer may name several sources; one that fits is enough.
func (s *SA) detectNAT(m *message.Message, d Datagram) (here, there, checked bool) {
	destination := m.Notify(message.NATDetectionDestinationIP)
	source := m.Notify(message.NATDetectionSourceIP)
	if destination == nil || source == nil {
		return false, false, false
	}
	h := m.Header
	here = !bytes.Equal(destination.Data, natHash(h.InitiatorSPI, h.ResponderSPI, d.Local))
	there = true
	want := natHash(h.InitiatorSPI, h.ResponderSPI, d.Remote)
	for n := range message.All[*message.Notify](m) {
		if n.Notify == message.NATDetectionSourceIP && bytes.Equal(n.Data, want) {
			there = false
		}
	}
	return here, there, true
}

// float moves an initiator to the ports of RFC 3948: because of a NAT (RFC 7296,
// 2.23), or because one may come with the next address (RFC 4555, 3.3).
func (s *SA) float() {
	if !s.natChecked || !s.encap() && !s.conn.MOBIKE {
		return
	}
	if s.remote.Port() == portIKE {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), portNAT)
	}
	if s.local.Port() == portIKE && s.remote.Port() != portIKE {
		s.local = netip.AddrPortFrom(s.local.Addr(), portNAT)
	}
}

// follow answers to where an authentic, newest message came from. A half-open
// responder goes along with the initiator's change of ports; later only a peer behind a
// NAT is followed, whose mapping has changed (RFC 7296, 2.23), and with MOBIKE nobody:
// the peer says where it is (RFC 4555, 3.8).
func (s *SA) follow(d Datagram, out *Outputs) {
	if d.Remote == s.remote && d.Local == s.local {
		return
	}
	switch {
	case s.state < StateEstablished && !s.initiator:
		s.local, s.remote = d.Local, d.Remote
	case s.state == StateEstablished && !s.mobikeOn && s.natThere && !s.natHere:
		s.moveTo(d.Local, d.Remote, out)
	}
}

// moveTo changes the endpoints of the SA and its children.
func (s *SA) moveTo(local, remote netip.AddrPort, out *Outputs) {
	s.local, s.remote = local, remote
	s.updateChildren(out)
	s.report(out, Event{Kind: EventMoved})
}

func (s *SA) updateChildren(out *Outputs) {
	s.restartPath()
	for _, c := range s.children {
		out.add(UpdateChild{s.describe(c)})
	}
}
