package worker

import (
	"encoding/binary"

	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// Rate and burst of the ICMP errors about ESP that one worker passes on.
const (
	complaintRate  = 100 // a second
	complaintBurst = 32
)

// ICMP types of errors (RFC 792; RFC 4443).
const (
	icmpUnreachable = 3
	icmp6TooBig     = 2
	codeTooBig      = 4 // of icmpUnreachable
)

// classifyError judges packet i, an ICMP error to one of our outer addresses. One that quotes ESP or AH of ours is for whoever
// knows all associations, at a bounded rate; any other for the kernel.
func (w *Worker) classifyError(i int) (packet.Class, packet.Drop) {
	b := &w.batch
	p := &b.P[i]
	q, ok := packet.QuoteOf(b, i)
	if !ok {
		return packet.ClassPunt, 0
	}
	esp := q.Data
	switch {
	case (q.Proto == packet.ProtoESP || q.Proto == packet.ProtoAH) && esp == nil:
		return 0, packet.DropICMPUnverified // about a later fragment
	case q.Proto == packet.ProtoESP:
	case q.Proto == packet.ProtoAH:
		if esp = esp[4:]; len(esp) < 8 {
			return 0, packet.DropICMPUnverified // eight bytes (RFC 792) do not reach AH's sequence number
		}
	case q.Proto == packet.ProtoUDP && esp != nil && (q.SrcPort == portESP || q.DstPort == portESP):
		if esp = esp[8:]; len(esp) < 8 || binary.BigEndian.Uint32(esp) == 0 {
			return packet.ClassPunt, 0 // IKE, or not to be told from it
		}
	default:
		return packet.ClassPunt, 0
	}
	h := b.IP(i)
	icmp := h[p.L4-p.L3:]
	var pseudo uint32
	if p.Version == 6 {
		pseudo = packet.PseudoSum(h[8:24], h[24:40], packet.ProtoICMPv6, uint32(len(icmp)))
	}
	// What is fragmented does not show its checksum to be right; errors are small.
	if p.Flags&packet.FlagFragment != 0 || packet.Checksum(icmp, pseudo) != 0 {
		return 0, packet.DropICMPUnverified
	}
	e := Event{Kind: EventComplaint, Version: p.Version, Flow: q.Flow, Error: Error{
		SPI: binary.BigEndian.Uint32(esp), Sequence: binary.BigEndian.Uint32(esp[4:]), Length: q.Total, Type: icmp[0], Code: icmp[1],
	}}
	if p.Version == 4 {
		e.Error.MTU = int(binary.BigEndian.Uint16(icmp[6:]))
	} else {
		e.Error.MTU = int(min(binary.BigEndian.Uint32(icmp[4:]), 0xffff))
	}
	if !w.complaints.Allow(w.now) || !w.tell(e) {
		return 0, packet.DropICMPExcess
	}
	return 0, packet.DropICMPHeeded
}

// Complaint translates the event for the association table. What there is to say to senders of inner packets is that the
// peer is unreachable, whatever befell its packets on the way (RFC 2003, 4.5; RFC 2473, 8).
func (e *Event) Complaint() sad.Complaint {
	c := sad.Complaint{
		Local: e.Flow.SrcAddr(), Remote: e.Flow.DstAddr(), AH: e.Flow.Proto == packet.ProtoAH, Encap: e.Flow.Proto == packet.ProtoUDP, LocalPort: e.Flow.SrcPort, RemotePort: e.Flow.DstPort,
		SPI: e.Error.SPI, Sequence: e.Error.Sequence, Length: e.Error.Length, Why: sad.HostUnreachable,
	}
	kind, code := e.Error.Type, e.Error.Code
	if e.Version == 4 {
		c.TooBig = kind == icmpUnreachable && code == codeTooBig
		if kind == icmpUnreachable && (code == 9 || code == 10 || code == 13) { // RFC 1812, 5.2.7.1
			c.Why = sad.AdminProhibited
		}
	} else {
		c.TooBig = kind == icmp6TooBig
		if kind == 1 && (code == 1 || code == 5 || code == 6) { // RFC 4443, 3.1
			c.Why = sad.AdminProhibited
		}
	}
	if c.TooBig {
		c.MTU = e.Error.MTU
	}
	return c
}

// complaintKey keeps the errors passed on to senders apart from other events, see recent.
const complaintKey = 2 << 32

// passOn tells the sender of packet i, which was to go into an association, that packets of that do not arrive, and ends it. At most
// one in a second and association does: the error is not authenticated, and must not stop the traffic. It reports whether the packet
// ended.
func (w *Worker) passOn(i uint8, why sad.Unreachable) bool {
	p := &w.batch.P[i]
	if p.Flags&(packet.FlagLocal|packet.FlagRouted) != 0 || !w.told.again(complaintKey|uint64(p.SPI), w.now) {
		return false
	}
	reason := forward.HostUnreachable
	if why == sad.AdminProhibited {
		reason = forward.AdminProhibited
	}
	w.unreachable(i, packet.DropPeerUnreachable, reason)
	return true
}
