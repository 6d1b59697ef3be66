package ikesa

import (
	"net/netip"

	"sallyport/ike/message"
)

// addressesMax bounds the virtual addresses of one IKE SA.
const addressesMax = 8

// configRequest asks for our virtual addresses (RFC 7296, 2.19); nil if none are wanted.
func configRequest(vips []netip.Addr) *message.Config {
	if len(vips) == 0 {
		return nil
	}
	p := &message.Config{Config: message.ConfigRequest}
	var v4, v6 bool
	for _, addr := range vips {
		a := message.ConfigAttribute{Type: message.InternalIPv4Address}
		if addr.Is6() {
			a.Type, v6 = message.InternalIPv6Address, true
		} else {
			v4 = true
		}
		if !addr.IsUnspecified() {
			a.Value = addressValue(addr)
		}
		p.Attributes = append(p.Attributes, a)
	}
	if v4 {
		p.Attributes = append(p.Attributes, message.ConfigAttribute{Type: message.InternalIPv4DNS})
	}
	if v6 {
		p.Attributes = append(p.Attributes, message.ConfigAttribute{Type: message.InternalIPv6DNS})
	}
	return p
}

// addressValue is an address as INTERNAL_IP4_ADDRESS or, with the prefix length of a
// host, INTERNAL_IP6_ADDRESS carries it (RFC 7296, 3.15.1).
func addressValue(a netip.Addr) []byte {
	if a.Is6() {
		return append(a.AsSlice(), 128)
	}
	return a.AsSlice()
}

// assign leases the addresses that the peer asks for, and makes the answer. It is
// an error if there is none (RFC 7296, 3.15.4).
func (s *SA) assign(request *message.Config) (*message.Config, error) {
	reply := &message.Config{Config: message.ConfigReply}
	var dns []netip.Addr
	for _, a := range request.Attributes {
		var wanted netip.Addr
		switch a.Type {
		case message.InternalIPv4Address:
			wanted = netip.IPv4Unspecified()
		case message.InternalIPv6Address:
			wanted = netip.IPv6Unspecified()
		default:
			continue
		}
		if len(s.leases) == addressesMax {
			break
		}
		if n := wanted.BitLen() / 8; len(a.Value) >= n {
			wanted, _ = netip.AddrFromSlice(a.Value[:n])
		}
		lease, err := s.env.AssignAddress(s.conn, s.remoteID, wanted)
		if err != nil {
			continue
		}
		s.leases = append(s.leases, lease.Addr)
		reply.Attributes = append(reply.Attributes, message.ConfigAttribute{Type: a.Type, Value: addressValue(lease.Addr)})
		dns = append(dns, lease.DNS...)
	}
	if len(s.leases) == 0 {
		return nil, &fault{reason: ReasonNoAddress, notify: message.InternalAddressFailure}
	}
	for _, a := range dns[:min(len(dns), addressesMax)] {
		t := message.InternalIPv4DNS
		if a.Is6() {
			t = message.InternalIPv6DNS
		}
		reply.Attributes = append(reply.Attributes, message.ConfigAttribute{Type: t, Value: a.AsSlice()})
	}
	return reply, nil
}

// leased reads the peer's answer: the virtual addresses that are ours from now on, of
// the families that we asked for.
func leased(reply *message.Config, vips []netip.Addr) []Lease {
	var leases []Lease
	var dns []netip.Addr
	for _, a := range reply.Attributes {
		switch a.Type {
		case message.InternalIPv4Address, message.InternalIPv6Address:
			n := 4
			if a.Type == message.InternalIPv6Address {
				n = 16
			}
			if len(a.Value) < n {
				continue
			}
			addr, _ := netip.AddrFromSlice(a.Value[:n])
			if len(leases) < addressesMax && usable(addr) && wants(vips, addr) {
				leases = append(leases, Lease{Addr: addr})
			}
		case message.InternalIPv4DNS, message.InternalIPv6DNS:
			if addr, ok := netip.AddrFromSlice(a.Value); ok && len(dns) < addressesMax {
				dns = append(dns, addr)
			}
		}
	}
	if len(leases) > 0 {
		leases[0].DNS = dns
	}
	return leases
}

// usable says whether an address can be that of a host behind the tunnel.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func wants(vips []netip.Addr, a netip.Addr) bool {
	for _, v := range vips {
		if v.BitLen() == a.BitLen() {
			return true
		}
	}
	return false
}

// configAnswer answers a Configuration payload of INFORMATIONAL: nothing is to be had
// there, and nothing is taken (RFC 7296, 2.19 and 3.15).
func configAnswer(p *message.Config) *message.Config {
	if p.Config == message.ConfigSet {
		return &message.Config{Config: message.ConfigAck}
	}
	return &message.Config{Config: message.ConfigReply}
}
