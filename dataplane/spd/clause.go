package spd

import (
	"errors"
	"fmt"
	"math/bits"

	"sallyport/dataplane/packet"
)

// clausesMax bounds a database: the pairs of local and remote ranges in all selectors.
const clausesMax = 1 << 22

// clause is one pair of a local and a remote range of a selector.
type clause struct {
	local, remote           span
	localPorts, remotePorts PortRange
	policy                  uint32
	version                 uint8 // of the addresses
	proto                   uint8
	anyPorts                bool
}

// span is a Range as numbers.
type span struct{ first, last packet.Addr }

func spanOf(r Range) span { return span{packet.AddrOf(r.First), packet.AddrOf(r.Last)} }

func (s *span) contains(a packet.Addr) bool {
	_, below := bits.Sub64(a.Lo, s.first.Lo, 0)
	_, below = bits.Sub64(a.Hi, s.first.Hi, below)
	_, above := bits.Sub64(s.last.Lo, a.Lo, 0)
	_, above = bits.Sub64(s.last.Hi, a.Hi, above)
	return below|above == 0
}

// localRange and remoteRange return the ranges again.
func (c *clause) localRange() *Range  { return c.local.rangeOf(c.version) }
func (c *clause) remoteRange() *Range { return c.remote.rangeOf(c.version) }

func (s *span) rangeOf(version uint8) *Range {
	return &Range{s.first.Netip(version), s.last.Netip(version)}
}

// inward returns a flow that comes from outside as one that leaves: selectors see the local
// address and port as source. An ICMP type and code stays in SrcPort, where match looks for it.
func inward(f *packet.Flow) packet.Flow {
	v := f.Back()
	if isICMP(f.Proto) {
		v.SrcPort, v.DstPort = f.SrcPort, f.DstPort
	}
	return v
}

// match compares exactly a flow whose source is local. A packet without ports matches only
// clauses with any ports. If its protocol has ports and they are not to be seen, or if it is an
// IPv6 fragment whose protocol is not to be seen, a clause that would need them is answered
// by NeedsPorts, so that such a packet never falls through to a later, laxer policy.
func (c *clause) match(f *packet.Flow) Match {
	if c.version != f.Version || !c.remote.contains(f.Dst) || !c.local.contains(f.Src) {
		return NoMatch
	}
	if c.proto != 0 && c.proto != f.Proto {
		if f.Flags&packet.FlagLaterFragment != 0 && hidesProtocol(f.Proto) && f.Version == 6 {
			return NeedsPorts
		}
		return NoMatch
	}
	if c.anyPorts {
		return Matched
	}
	return c.matchPorts(f)
}

func (c *clause) matchPorts(f *packet.Flow) Match {
	if f.Flags&packet.FlagPorts == 0 || f.Flags&packet.FlagLaterFragment != 0 {
		if hasPorts(f.Proto) || hidesProtocol(f.Proto) && f.Flags&packet.FlagLaterFragment != 0 && f.Version == 6 {
			return NeedsPorts
		}
		return NoMatch
	}
	remotePort := f.DstPort
	if isICMP(f.Proto) {
		remotePort = f.SrcPort
	}
	if c.localPorts.Contains(f.SrcPort) && c.remotePorts.Contains(remotePort) {
		return Matched
	}
	return NoMatch
}

func isICMP(proto uint8) bool { return proto == 1 || proto == 58 }

// hasPorts says whether the protocol has ports or what stands for them: ICMP,
// TCP, UDP, DCCP, ICMPv6, SCTP, UDP-Lite.
func hasPorts(proto uint8) bool {
	switch proto {
	case 1, 6, 17, 33, 58, 132, 136:
		return true
	}
	return false
}

// hidesProtocol says whether proto is an IPv6 extension header that may stand in
// the fragmentable part, so that a later fragment tells nothing of the protocol behind it
// (RFC 8200, 4.5).
func hidesProtocol(proto uint8) bool {
	switch proto {
	case 0, 43, 60, 135, 139, 140:
		return true
	}
	return false
}

// appendClauses checks a selector and appends its pairs of ranges.
func appendClauses(list []clause, s *Selector, policy uint32) ([]clause, error) {
	for _, ranges := range [][]Range{s.Local, s.Remote} {
		for i := range ranges {
			if err := ranges[i].check(); err != nil {
				return list, err
			}
		}
	}
	for _, r := range []PortRange{s.LocalPorts, s.RemotePorts} {
		if r.Last < r.First {
			return list, fmt.Errorf("port range %d-%d ends before it begins", r.First, r.Last)
		}
	}
	before := len(list)
	for _, local := range s.Local {
		for _, remote := range s.Remote {
			if local.First.BitLen() != remote.First.BitLen() {
				continue
			}
			if len(list) == clausesMax {
				return list, fmt.Errorf("more than %d pairs of address ranges", clausesMax)
			}
			version := uint8(6)
			if local.First.Is4() {
				version = 4
			}
			list = append(list, clause{
				local: spanOf(local), remote: spanOf(remote), version: version,
				localPorts: s.LocalPorts, remotePorts: s.RemotePorts,
				policy: policy, proto: s.Proto,
				anyPorts: s.LocalPorts == AnyPorts && s.RemotePorts == AnyPorts,
			})
		}
	}
	if len(list) == before {
		return list, errors.New("selector has no local and remote addresses of one family")
	}
	return list, nil
}
