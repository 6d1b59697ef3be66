package spd

import (
	"errors"
	"fmt"
	"net/netip"

	"sallyport/dataplane/packet"
)

// clausesMax bounds a database: the pairs of local and remote ranges in all selectors.
const clausesMax = 1 << 22

// clause is one pair of a local and a remote range of a selector.
type clause struct {
	local, remote           Range
	localPorts, remotePorts PortRange
	policy                  uint32
	proto                   uint8
	anyPorts                bool
}

// view is a flow as selectors see it: local and remote in place of source and destination.
type view struct {
	local, remote         netip.Addr
	localPort, remotePort uint16
	proto                 uint8
	flags                 packet.Flags
}

func outbound(f *packet.Flow) view {
	return view{f.Src, f.Dst, f.SrcPort, f.DstPort, f.Proto, f.Flags}
}

// inbound leaves an ICMP type and code in localPort, where match looks for it.
func inbound(f *packet.Flow) view {
	if isICMP(f.Proto) {
		return view{f.Dst, f.Src, f.SrcPort, f.DstPort, f.Proto, f.Flags}
	}
	return view{f.Dst, f.Src, f.DstPort, f.SrcPort, f.Proto, f.Flags}
}

// match compares exactly. A packet without ports matches only clauses with any
// ports. If its protocol has ports and they are not to be seen, or if it is an
// IPv6 fragment whose protocol is not to be seen, a clause that would need them is answered
// by NeedsPorts, so that such a packet never falls through to a later, laxer policy.
func (c *clause) match(v *view) Match {
	if !c.remote.Contains(v.remote) || !c.local.Contains(v.local) {
		return NoMatch
	}
	if c.proto != 0 && c.proto != v.proto {
		if v.flags&packet.FlagLaterFragment != 0 && hidesProtocol(v.proto) && !v.remote.Is4() {
			return NeedsPorts
		}
		return NoMatch
	}
	if c.anyPorts {
		return Matched
	}
	if v.flags&packet.FlagPorts == 0 || v.flags&packet.FlagLaterFragment != 0 {
		if hasPorts(v.proto) || hidesProtocol(v.proto) && v.flags&packet.FlagLaterFragment != 0 && !v.remote.Is4() {
			return NeedsPorts
		}
		return NoMatch
	}
	remotePort := v.remotePort
	if isICMP(v.proto) {
		remotePort = v.localPort
	}
	if c.localPorts.Contains(v.localPort) && c.remotePorts.Contains(remotePort) {
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
			list = append(list, clause{
				local: local, remote: remote,
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
