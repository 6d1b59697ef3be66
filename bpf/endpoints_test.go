package bpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// TestKnownEndpointsFollowTheTables has the program judge ESP to an address that it knows for an endpoint, after each kind of change,
// and what differs from that in one thing.
func TestKnownEndpointsFollowTheTables(t *testing.T) {
	s := load(t)
	check(t, s.SetPort(loopback, 0, both))
	stayHere(t)
	setSockets(t, s, socket(t))
	esp := v4{src: peer4, dst: far4, proto: protoESP}.with(make([]byte, 40)...)
	options := v4{src: peer4, dst: far4, proto: protoESP, options: 8}.with(make([]byte, 40)...)
	short := v4{src: peer4, dst: far4, proto: protoESP, options: 8}.with()[:24]
	other := v4{src: peer4, dst: far4, proto: 253}.with(make([]byte, 40)...)
	ofVLAN := func(c Counter) Counter {
		if c >= ESP { // what a worker would get
			return DropVLAN
		}
		return c
	}
	local, remote := prefixes("192.0.2.0/24"), prefixes("203.0.113.0/24")
	for _, step := range []struct {
		change      string
		do          func() error
		want, other Counter
	}{
		{"nothing", func() error { return nil }, PassOther, PassOther},
		{"an endpoint", func() error { return s.SetEndpoints(addrs(far4)) }, ESP, PassOwn},
		{"a policy over it", func() error { return s.SetPrefixes(local, remote, nil) }, ESP, PassOwn},
		{"the other role", func() error { return s.SetPort(loopback, 0, Outside) }, ESP, PassOwn},
		{"another endpoint instead", func() error { return s.SetEndpoints(addrs(gw4)) }, Spoofed, Spoofed},
		{"an address of ours that is no endpoint", func() error { return s.SetOwn(addrs(far4)) }, PassOwn, PassOwn},
		{"no policy any more", func() error { return s.SetPrefixes(nil, nil, nil) }, PassOwn, PassOwn},
		{"the endpoint again", func() error { return s.SetEndpoints(addrs(gw4, far4)) }, ESP, PassOwn},
		{"no port any more", func() error { return s.RemovePort(loopback) }, NoSocketDrop, PassOwn},
		{"the port without a socket", func() error { return s.SetPort(loopback, 1, both) }, NoSocketDrop, PassOwn},
		{"the port with one", func() error { return s.SetPort(loopback, 0, both) }, ESP, PassOwn},
		{"no socket any more", func() error { return s.ClearSocket(0, 0, Data) }, NoSocketDrop, PassOwn},
	} {
		check(t, step.do())
		for range 3 {
			for _, f := range []struct {
				name  string
				frame []byte
				want  Counter
			}{
				{"ESP", ip4(esp), step.want},
				{"ESP behind options", ip4(options), step.want},
				{"ESP under a priority tag", ether(0x8100, vlan(0, 0x0800, esp)), step.want},
				{"ESP of a VLAN", ether(0x8100, vlan(5, 0x0800, esp)), ofVLAN(step.want)},
				{"another protocol", ip4(other), step.other},
				{"options cut short", ip4(short), DropMalformed},
				{"the same as no IP", ether(0x0806, esp), PassNotIP},
			} {
				if _, c := verdict(t, s, f.frame); c != f.want {
					t.Errorf("%s after %s: %s, want %s", f.name, step.change, CounterInfos[c].Name, CounterInfos[f.want].Name)
				}
			}
		}
	}
}

// TestManyEndpointsAreToldApart judges ESP to many endpoints, and to addresses between them that are none.
func TestManyEndpointsAreToldApart(t *testing.T) {
	s := load(t)
	check(t, s.SetPort(loopback, 0, both))
	stayHere(t)
	var endpoints []netip.Addr
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }
	isOne := func(i int) bool { return i%3 == 0 || i>>8 == 2 }
	for i := range 1024 {
		if isOne(i) {
			endpoints = append(endpoints, address(i))
		}
	}
	check(t, s.SetEndpoints(endpoints))
	for range 2 {
		for step := range 1024 {
			i := (step<<8 | step>>2) & 1023 // those of one last byte come one behind the other
			want := PassOther
			if isOne(i) {
				want = NoSocketDrop
			}
			frame := ip4(v4{src: peer4, dst: address(i).String(), proto: protoESP}.with(make([]byte, 40)...))
			for range 2 {
				if _, c := verdict(t, s, frame); c != want {
					t.Fatalf("%v: %s, want %s", address(i), CounterInfos[c].Name, CounterInfos[want].Name)
				}
			}
		}
	}
}

// TestEndpointIsKnownByInterface has ESP to one endpoint come by two interfaces, of which one has a socket.
func TestEndpointIsKnownByInterface(t *testing.T) {
	privateNamespaces(t)
	stayHere(t)
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "spb0"}, PeerName: "spb1"}))
	second, err := net.InterfaceByName("spb1")
	check(t, err)
	s := load(t)
	check(t, s.SetEndpoints(addrs(gw4)))
	check(t, s.SetPort(loopback, 0, both))
	check(t, s.SetPort(second.Index, 1, both))
	setSockets(t, s, socket(t))
	frame := ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(make([]byte, 40)...))
	for range 3 {
		for ifindex, want := range map[int]uint32{loopback: xdpRedirect, second.Index: xdpDrop} {
			for range 2 {
				got, err := s.Program().Run(&ebpf.RunOptions{Data: frame, Context: xdpMd{DataEnd: uint32(len(frame)), Ingress: uint32(ifindex)}})
				check(t, err)
				if got != want {
					t.Errorf("by interface %d: action %d, want %d", ifindex, got, want)
				}
			}
		}
	}
}
