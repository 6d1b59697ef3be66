package bpf

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

const (
	xdpDrop, xdpPass, xdpRedirect = 1, 2, 4

	loopback = 1 // the only interface a test run may name without making one

	gw4, gw6       = "192.0.2.1", "2001:db8:1::1"    // our endpoint
	peer4, peer6   = "192.0.2.2", "2001:db8:1::2"    // the peer's
	lan4, lan6     = "198.51.100.1", "2001:db8:a::1" // ours, not an endpoint
	host4, host6   = "198.51.100.9", "2001:db8:a::9" // behind us
	far4, far6     = "203.0.113.9", "2001:db8:b::9"  // behind the peer
	other4, other6 = "198.18.0.9", "2001:db8:f::9"   // under no policy
)

// need skips by name, or fails where skipping is not allowed.
func need(t testing.TB) {
	t.Helper()
	testbed.Need(t, testbed.BPF, testbed.NetAdmin, testbed.SysAdmin)
}

func load(t testing.TB) *Steering {
	t.Helper()
	return sized(t, nil)
}

// sized is load with maps of other sizes.
func sized(t testing.TB, sizes map[string]uint32) *Steering {
	t.Helper()
	need(t)
	s, err := loadSized(sizes)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// gateway loads the program with the addresses above and the given policy.
func gateway(t testing.TB, local, remote []netip.Prefix) *Steering {
	s := load(t)
	check(t, s.SetEndpoints(addrs(gw4, gw6)))
	check(t, s.SetOwn(addrs(gw4, gw6, lan4, lan6)))
	check(t, s.SetPrefixes(local, remote, nil))
	return s
}

func socket(t testing.TB) int {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func setSockets(t testing.TB, s *Steering, fd int) {
	check(t, s.SetSocket(0, 0, Data, fd))
	check(t, s.SetSocket(0, 0, IKE, fd))
}

func clearSockets(t testing.TB, s *Steering) {
	check(t, s.ClearSocket(0, 0, Data))
	check(t, s.ClearSocket(0, 0, IKE))
}

// xdpMd is struct xdp_md (include/uapi/linux/bpf.h).
type xdpMd struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }

func run(t testing.TB, s *Steering, frame []byte) (action uint32) {
	t.Helper()
	action, err := s.Program().Run(&ebpf.RunOptions{
		Data:    frame,
		Context: xdpMd{DataEnd: uint32(len(frame)), Ingress: loopback},
	})
	check(t, err)
	return action
}

// verdict runs the frame and returns the action and the one counter that moved.
func verdict(t testing.TB, s *Steering, frame []byte) (uint32, Counter) {
	t.Helper()
	before, err := s.Counters()
	check(t, err)
	action := run(t, s, frame)
	after, err := s.Counters()
	check(t, err)
	moved := CounterCount
	for c := range after {
		switch after[c] - before[c] {
		case 0:
		case 1:
			if moved != CounterCount {
				t.Fatalf("one frame counted as %s and as %s", CounterInfos[moved].Name, CounterInfos[c].Name)
			}
			moved = Counter(c)
		default:
			t.Fatalf("one frame counted %d times as %s", after[c]-before[c], CounterInfos[c].Name)
		}
	}
	if moved == CounterCount {
		t.Fatal("a frame was not counted")
	}
	return action, moved
}

// fallback is what a verdict becomes while no socket takes the frame.
func fallback(c Counter) (uint32, Counter) {
	switch {
	case c <= PassOther:
		return xdpPass, c
	case c <= DropKeepalive:
		return xdpDrop, c
	case c <= Spoofed:
		return xdpDrop, NoSocketDrop
	}
	return xdpPass, NoSocketPass
}

func withSocket(c Counter) uint32 {
	if c >= ESP {
		return xdpRedirect
	}
	action, _ := fallback(c)
	return action
}

const both = Protected | Outside

type steerCase struct {
	name  string
	roles Role
	frame []byte
	want  Counter
}

// siteCases are judged under one policy: 198.51.100.0/24, 2001:db8:a::/64 (ours) to
// 203.0.113.0/24, 2001:db8:b::/64.
var siteCases = []steerCase{
	{"ARP", both, padded(ether(0x0806, make([]byte, 28))), PassNotIP},
	{"LLDP", both, padded(ether(0x88cc, nil)), PassNotIP},
	{"802.3 length field", both, padded(ether(38, make([]byte, 38))), PassNotIP},
	{"ARP in VLAN", both, ether(0x8100, vlan(7, 0x0806, make([]byte, 28))), PassNotIP},
	{"three tags", Protected, ether(0x88a8, vlan(0, 0x8100, vlan(0, 0x8100, vlan(0, 0x0800, v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...))))), DropTags},

	{"ESP v4", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)), ESP},
	{"ESP v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoESP}.with(esp...)), ESP},
	{"ESP on the protected side", Protected, ip4(v4{src: host4, dst: gw4, proto: protoESP}.with(esp...)), ESP},
	{"ESP on a port without role", 0, ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)), ESP},
	{"ESP with a priority tag", Outside, ether(0x8100, vlan(5<<13, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...))), ESP},
	{"ESP with a priority tag of 802.1ad", Outside, ether(0x88a8, vlan(0, 0x86dd, v6{src: peer6, dst: gw6, proto: protoESP}.with(esp...))), ESP},
	{"ESP with two priority tags", Outside, ether(0x88a8, vlan(0, 0x8100, vlan(7<<13, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)))), ESP},
	{"ESP in VLAN", Outside, ether(0x8100, vlan(7, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...))), DropVLAN},
	{"ESP in 802.1ad", Outside, ether(0x88a8, vlan(7, 0x86dd, v6{src: peer6, dst: gw6, proto: protoESP}.with(esp...))), DropVLAN},
	{"ESP in VLAN 4095", Outside, ether(0x8100, vlan(0xffff, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...))), DropVLAN},
	{"ESP in a VLAN behind a priority tag", Outside, ether(0x88a8, vlan(0, 0x8100, vlan(8, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)))), DropVLAN},
	{"ESP in a VLAN with a priority tag inside", Outside, ether(0x88a8, vlan(7, 0x8100, vlan(0, 0x0800, v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)))), DropVLAN},
	{"IKE in VLAN", Outside, ether(0x8100, vlan(7, 0x0800, v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(500, 500, ikeMsg...)...))), PassOther},
	{"ESP behind IPv4 options", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP, options: 40}.with(esp...)), ESP},
	{"ESP behind hop-by-hop", Outside, ip6(v6{src: peer6, dst: gw6, proto: 0}.with(extension(protoESP, 0, esp)...)), ESP},
	{"ESP behind three extension headers", Outside, ip6(v6{src: peer6, dst: gw6, proto: 0}.with(extension(43, 0, extension(60, 3, extension(protoESP, 31, esp)))...)), ESP},
	{"ESP behind eight extension headers", Outside, ip6(v6{src: peer6, dst: gw6, proto: 60}.with(chain(8, protoESP, esp)...)), ESP},
	{"ESP behind nine extension headers", Outside, ip6(v6{src: peer6, dst: gw6, proto: 60}.with(chain(9, protoESP, esp)...)), DropMalformed},
	{"ESP first fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP, more: true}.with(esp...)), ESP},
	{"ESP later fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP, offset: 185}.with(esp...)), ESP},
	{"ESP first fragment v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: 44}.with(fragment6(protoESP, 0, true, esp)...)), ESP},
	{"ESP later fragment v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: 44}.with(fragment6(protoESP, 181, false, esp)...)), ESP},
	{"ESP atomic fragment v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: 44}.with(fragment6(protoESP, 0, false, esp)...)), ESP},
	{"ESP through us, not to us", Outside, ip4(v4{src: peer4, dst: other4, proto: protoESP}.with(esp...)), PassOther},
	{"ESP to an own address that is no endpoint", Outside, ip4(v4{src: peer4, dst: lan4, proto: protoESP}.with(esp...)), PassOwn},
	{"AH v4", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoAH}.with(ah...)), AH},
	{"AH v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoAH}.with(ah...)), AH},
	{"AH behind destination options", Outside, ip6(v6{src: peer6, dst: gw6, proto: 60}.with(extension(protoAH, 1, ah)...)), AH},
	{"AH fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoAH, offset: 1, more: true}.with(ah...)), AH},

	{"IKE on 500", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(500, 500, ikeMsg...)...)), IKEMessage},
	{"IKE on 500 v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoUDP}.with(udp(500, 500, ikeMsg...)...)), IKEMessage},
	{"IKE from a translated port", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(31234, 4500, marked...)...)), IKEMessage},
	{"IKE on 4500 v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoUDP}.with(udp(4500, 4500, marked...)...)), IKEMessage},
	{"ESP in UDP", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500, esp...)...)), ESPInUDP},
	{"ESP in UDP v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoUDP}.with(udp(4500, 4500, esp...)...)), ESPInUDP},
	{"ESP in UDP behind options", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP, options: 12}.with(udp(4500, 4500, esp...)...)), ESPInUDP},
	{"keepalive", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500, 0xff)...)), DropKeepalive},
	{"keepalive, padded", Outside, padded(ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500, 0xff)...))), DropKeepalive},
	{"keepalive v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoUDP}.with(udp(4500, 4500, 0xff)...)), DropKeepalive},
	{"one byte that is no keepalive", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500, 0)...)), ESPInUDP},
	{"three bytes on 4500", Outside, padded(ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500, 0, 0, 0)...))), ESPInUDP},
	{"nothing on 4500", Outside, padded(ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 4500)...))), DropMalformed},
	{"UDP length 0 on 4500", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udpSaying(4500, 4500, 0, esp...)...)), DropMalformed},
	{"4500 to an own address that is no endpoint", Outside, ip4(v4{src: peer4, dst: lan4, proto: protoUDP}.with(udp(4500, 4500, esp...)...)), PassOwn},
	{"4500 as source port only", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(4500, 53, esp...)...)), PassOwn},
	{"UDP first fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP, more: true}.with(udp(500, 500, ikeMsg...)...)), UDPFragment},
	{"UDP later fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP, offset: 100}.with(ikeMsg...)), UDPFragment},
	{"UDP later fragment v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: 44}.with(fragment6(protoUDP, 100, false, ikeMsg)...)), UDPFragment},
	{"UDP fragment to an own address that is no endpoint", Outside, ip4(v4{src: peer4, dst: lan4, proto: protoUDP, offset: 100}.with(ikeMsg...)), PassOwn},

	{"ICMP error about our ESP", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 4, v4{src: gw4, dst: peer4, proto: protoESP}.with(esp[:8]...))...)), ICMPError},
	{"ICMP time exceeded about our AH", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(11, 0, v4{src: gw4, dst: peer4, proto: protoAH}.with(ah[:8]...))...)), ICMPError},
	{"ICMP error about our ESP in UDP", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 4, v4{src: gw4, dst: peer4, proto: protoUDP}.with(udp(4500, 31234)...))...)), ICMPError},
	{"ICMP error about our IKE", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 3, v4{src: gw4, dst: peer4, proto: protoUDP}.with(udp(500, 500)...))...)), ICMPError},
	{"ICMP error about our DNS", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 3, v4{src: gw4, dst: peer4, proto: protoUDP}.with(udp(1025, 53)...))...)), PassOwn},
	{"ICMP error about our TCP", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 3, v4{src: gw4, dst: peer4, proto: protoTCP}.with(tcp...))...)), PassOwn},
	{"ICMP error about another's ESP", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 4, v4{src: lan4, dst: peer4, proto: protoESP}.with(esp[:8]...))...)), PassOwn},
	{"ICMP error with a quote of garbage", Outside, ip4(v4{src: other4, dst: gw4, proto: protoICMP}.with(icmp(3, 4, make([]byte, 28))...)), PassOwn},
	{"ping of the endpoint", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoICMP}.with(icmp(8, 0, make([]byte, 56))...)), PassOwn},
	{"ICMPv6 too big about our ESP", Outside, ip6(v6{src: other6, dst: gw6, proto: protoICMP6}.with(icmp(2, 0, v6{src: gw6, dst: peer6, proto: protoESP}.with(esp...))...)), ICMPError},
	{"ICMPv6 too big about our fragmented ESP", Outside, ip6(v6{src: other6, dst: gw6, proto: protoICMP6}.with(icmp(2, 0, v6{src: gw6, dst: peer6, proto: 44}.with(fragment6(protoESP, 0, true, esp)...))...)), ICMPError},
	{"ICMPv6 unreachable about our ESP in UDP", Outside, ip6(v6{src: other6, dst: gw6, proto: protoICMP6}.with(icmp(1, 4, v6{src: gw6, dst: peer6, proto: protoUDP}.with(udp(4500, 4500)...))...)), ICMPError},
	{"ICMPv6 echo", Outside, ip6(v6{src: other6, dst: gw6, proto: protoICMP6}.with(icmp(128, 0, nil)...)), PassOwn},

	{"SSH to the endpoint", Outside, ip4(v4{src: other4, dst: gw4, proto: protoTCP}.with(tcp...)), PassOwn},
	{"from the far side to our inner address", Outside, ip4(v4{src: far4, dst: lan4, proto: protoTCP}.with(tcp...)), PassOwn},
	{"GRE to the endpoint", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoGRE}.with(tcp...)), PassOwn},

	{"protect v4", Protected, ip4(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...)), Protect},
	{"protect v6", Protected, ip6(v6{src: host6, dst: far6, proto: protoTCP}.with(tcp...)), Protect},
	{"protect, port of both roles", both, ip4(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...)), Protect},
	{"protect with a priority tag", Protected, ether(0x8100, vlan(1<<13, 0x0800, v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...))), Protect},
	{"protect in VLAN", Protected, ether(0x8100, vlan(7, 0x0800, v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...))), DropVLAN},
	{"cleartext in VLAN", Outside, ether(0x8100, vlan(7, 0x0800, v4{src: far4, dst: host4, proto: protoTCP}.with(tcp...))), DropVLAN},
	{"of no policy in VLAN", Protected, ether(0x8100, vlan(7, 0x0800, v4{src: host4, dst: peer4, proto: protoTCP}.with(tcp...))), PassOther},
	{"protect a later fragment", Protected, ip4(v4{src: host4, dst: far4, proto: protoUDP, offset: 9}.with(tcp...)), Protect},
	{"protect behind extension headers", Protected, ip6(v6{src: host6, dst: far6, proto: 60}.with(extension(protoTCP, 2, tcp)...)), Protect},
	{"protect ESP of the hosts", Protected, ip4(v4{src: host4, dst: far4, proto: protoESP}.with(esp...)), Protect},
	{"protect an unknown protocol", Protected, ip4(v4{src: host4, dst: far4, proto: 253}.with(tcp...)), Protect},
	{"protect padded runt", Protected, padded(ip4(v4{src: host4, dst: far4, proto: protoUDP}.with())), Protect},
	{"cleartext v4", Outside, ip4(v4{src: far4, dst: host4, proto: protoTCP}.with(tcp...)), Cleartext},
	{"cleartext v6", Outside, ip6(v6{src: far6, dst: host6, proto: protoTCP}.with(tcp...)), Cleartext},
	{"cleartext, port of both roles", both, ip4(v4{src: far4, dst: host4, proto: protoTCP}.with(tcp...)), Cleartext},
	{"our source from outside", Outside, ip4(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...)), Spoofed},
	{"far source from inside", Protected, ip6(v6{src: far6, dst: host6, proto: protoTCP}.with(tcp...)), Spoofed},
	{"no role", 0, ip4(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...)), PassOther},
	{"to the internet", Protected, ip4(v4{src: host4, dst: other4, proto: protoTCP}.with(tcp...)), PassOther},
	{"from the internet", Outside, ip6(v6{src: other6, dst: host6, proto: protoTCP}.with(tcp...)), PassOther},
	{"stranger to the far side", Protected, ip4(v4{src: other4, dst: far4, proto: protoTCP}.with(tcp...)), PassOther},
	{"within our side", Protected, ip4(v4{src: host4, dst: "198.51.100.10", proto: protoTCP}.with(tcp...)), PassOther},
	{"forged discovery to the far side", Protected, ip6(v6{src: host6, dst: far6, proto: protoICMP6, hops: 64}.with(icmp(135, 0, make([]byte, 16))...)), Protect},
	{"forged listener report to the far side", Protected, ip6(v6{src: host6, dst: far6, proto: protoICMP6, hops: 255}.with(icmp(131, 0, make([]byte, 16))...)), Protect},

	{"IPv4 header of 4 words", Protected, ip4(append([]byte{0x44}, v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...)[1:]...)), DropMalformed},
	{"version 6 in an IPv4 frame", Protected, ip4(v6{src: host6, dst: far6, proto: protoTCP}.with(tcp...)), DropMalformed},
	{"version 4 in an IPv6 frame", Protected, ip6(append(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...), make([]byte, 20)...)), DropMalformed},
	{"extension header longer than the frame", Outside, ip6(v6{src: peer6, dst: gw6, proto: 60}.with(extension(protoESP, 0, esp)[:1]...)), DropMalformed},
	{"extension header that announces too much", Outside, ip6(v6{src: peer6, dst: gw6, proto: 60}.with(append([]byte{protoESP, 200}, esp...)...)), DropMalformed},
}

// allCases are judged under 0.0.0.0/0 + ::/0 to 0.0.0.0/0 + ::/0.
var allCases = []steerCase{
	{"SSH to the endpoint", both, ip4(v4{src: other4, dst: gw4, proto: protoTCP}.with(tcp...)), PassOwn},
	{"SSH to the inner address v6", both, ip6(v6{src: host6, dst: lan6, proto: protoTCP}.with(tcp...)), PassOwn},
	{"neighbour solicitation, multicast", both, ip6(v6{src: host6, dst: "ff02::1:ff00:1", proto: protoICMP6, hops: 255}.with(icmp(135, 0, make([]byte, 16))...)), PassNeighbour},
	{"neighbour solicitation, unicast", both, ip6(v6{src: host6, dst: lan6, proto: protoICMP6, hops: 255}.with(icmp(135, 0, make([]byte, 16))...)), PassNeighbour},
	{"neighbour advertisement", both, ip6(v6{src: peer6, dst: gw6, proto: protoICMP6, hops: 255}.with(icmp(136, 0, make([]byte, 16))...)), PassNeighbour},
	{"router advertisement", both, ip6(v6{src: "fe80::1", dst: "ff02::1", proto: protoICMP6, hops: 255}.with(icmp(134, 0, nil)...)), PassNeighbour},
	{"listener report behind router alert", both, ip6(v6{src: "fe80::1", dst: "ff02::16", proto: 0, hops: 1}.with(extension(protoICMP6, 0, icmp(143, 0, nil))...)), PassNeighbour},
	{"DHCP discover", both, ip4(v4{src: "0.0.0.0", dst: "255.255.255.255", proto: protoUDP}.with(udp(68, 67, make([]byte, 240)...)...)), PassMulticast},
	{"DHCP offer, broadcast", both, ip4(v4{src: peer4, dst: "255.255.255.255", proto: protoUDP}.with(udp(67, 68, make([]byte, 240)...)...)), PassMulticast},
	{"DHCP renewal to our server", both, ip4(v4{src: host4, dst: lan4, proto: protoUDP}.with(udp(68, 67, make([]byte, 240)...)...)), PassOwn},
	{"DHCPv6", both, ip6(v6{src: "fe80::1", dst: "ff02::1:2", proto: protoUDP}.with(udp(546, 547, make([]byte, 40)...)...)), PassMulticast},
	{"DHCPv6 reply", both, ip6(v6{src: "fe80::2", dst: "fe80::1", proto: protoUDP}.with(udp(547, 546, make([]byte, 40)...)...)), PassLinkLocal},
	{"OSPF hello", both, ip4(v4{src: peer4, dst: "224.0.0.5", proto: protoOSPF}.with(make([]byte, 44)...)), PassMulticast},
	{"OSPFv3 hello", both, ip6(v6{src: "fe80::1", dst: "ff02::5", proto: protoOSPF}.with(make([]byte, 36)...)), PassMulticast},
	{"OSPF to a neighbour", both, ip4(v4{src: peer4, dst: gw4, proto: protoOSPF}.with(make([]byte, 44)...)), PassOwn},
	{"IGMP", both, ip4(v4{src: host4, dst: "224.0.0.22", proto: 2, options: 4}.with(make([]byte, 16)...)), PassMulticast},
	{"ARP", both, padded(ether(0x0806, make([]byte, 28))), PassNotIP},
	{"link-local v4", both, ip4(v4{src: host4, dst: "169.254.1.1", proto: protoTCP}.with(tcp...)), PassLinkLocal},
	{"link-local v4 source that goes elsewhere", Protected, ip4(v4{src: "169.254.1.1", dst: other4, proto: protoTCP}.with(tcp...)), Protect},
	{"all else out", Protected, ip4(v4{src: host4, dst: other4, proto: protoTCP}.with(tcp...)), Protect},
	{"all else out v6", Protected, ip6(v6{src: host6, dst: other6, proto: protoTCP}.with(tcp...)), Protect},
	{"all else in", Outside, ip4(v4{src: other4, dst: host4, proto: protoTCP}.with(tcp...)), Cleartext},
	{"ESP still", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)), ESP},
	{"IKE still", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(500, 500, ikeMsg...)...)), IKEMessage},
}

// namedCases are judged under a policy that names multicast and link-local prefixes.
var namedCases = []steerCase{
	{"named group", Protected, ip4(v4{src: host4, dst: "239.1.2.3", proto: protoUDP}.with(udp(1, 1, 1)...)), Protect},
	{"other group", Protected, ip4(v4{src: host4, dst: "239.2.2.3", proto: protoUDP}.with(udp(1, 1, 1)...)), PassMulticast},
	{"named group v6", Protected, ip6(v6{src: host6, dst: "ff0e::101", proto: protoUDP}.with(udp(1, 1, 1)...)), Protect},
	{"named link-local net", Protected, ip4(v4{src: host4, dst: "169.254.7.2", proto: protoTCP}.with(tcp...)), Protect},
	{"other link-local net", Protected, ip4(v4{src: host4, dst: "169.254.8.2", proto: protoTCP}.with(tcp...)), PassLinkLocal},
}

// chain returns n extension headers in front of payload; the first is destination options.
func chain(n int, proto byte, payload []byte) []byte {
	for i := range n {
		next := byte(60)
		if i == 0 {
			next = proto
		}
		payload = extension(next, 0, payload)
	}
	return payload
}

func siteGateway(t testing.TB) *Steering {
	return gateway(t, prefixes("198.51.100.0/24", "2001:db8:a::/64"), prefixes("203.0.113.0/24", "2001:db8:b::/64"))
}

func testCases(t *testing.T, s *Steering, cases []steerCase) {
	fd := socket(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			check(t, s.SetPort(loopback, 0, c.roles))
			setSockets(t, s, fd)
			if action, got := verdict(t, s, c.frame); got != c.want || action != withSocket(c.want) {
				t.Errorf("with a socket: action %d, %s; want %d, %s", action, CounterInfos[got].Name, withSocket(c.want), CounterInfos[c.want].Name)
			}
			clearSockets(t, s)
			wantAction, want := fallback(c.want)
			if action, got := verdict(t, s, c.frame); got != want || action != wantAction {
				t.Errorf("without a socket: action %d, %s; want %d, %s", action, CounterInfos[got].Name, wantAction, CounterInfos[want].Name)
			}
		})
	}
}

func TestSteerSitePolicy(t *testing.T) { testCases(t, siteGateway(t), siteCases) }

func TestSteerPolicyForEverythingLeavesTheGatewayAlone(t *testing.T) {
	all := prefixes("0.0.0.0/0", "::/0")
	testCases(t, gateway(t, all, all), allCases)
}

// TestSteerTransport: what a peer in transport mode sends to an endpoint in the clear is for the worker, and dropped without one;
// what keeps IKE and the link alive is not, nor what others send.
func TestSteerTransport(t *testing.T) {
	s := load(t)
	check(t, s.SetEndpoints(addrs(gw4, gw6)))
	check(t, s.SetOwn(addrs(gw4, gw6, lan4, lan6)))
	peers := prefixes(peer4+"/32", peer6+"/128")
	check(t, s.SetPrefixes(prefixes(gw4+"/32", gw6+"/128"), peers, peers))
	testCases(t, s, []steerCase{
		{"ESP", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...)), ESP},
		{"IKE", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP}.with(udp(500, 500, ikeMsg...)...)), IKEMessage},
		{"TCP", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoTCP}.with(tcp...)), Cleartext},
		{"TCP v6", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoTCP}.with(tcp...)), Cleartext},
		{"TCP by a protected port", Protected, ip4(v4{src: peer4, dst: gw4, proto: protoTCP}.with(tcp...)), Cleartext},
		{"ping", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoICMP}.with(icmp(8, 0, nil)...)), Cleartext},
		{"UDP fragment", Outside, ip4(v4{src: peer4, dst: gw4, proto: protoUDP, offset: 100}.with(ikeMsg...)), UDPFragment},
		{"neighbour solicitation", Outside, ip6(v6{src: peer6, dst: gw6, proto: protoICMP6, hops: 255}.with(icmp(135, 0, nil)...)), PassNeighbour},
		{"TCP to an address that is no endpoint", Outside, ip4(v4{src: peer4, dst: lan4, proto: protoTCP}.with(tcp...)), PassOwn},
		{"TCP of another", Outside, ip4(v4{src: other4, dst: gw4, proto: protoTCP}.with(tcp...)), PassOwn},
	})
}

// TestSteerRoutes: what a route leads into a virtual interface is the workers', whoever sends it, and what comes from there in the clear is
// refused outside; what a more special route leads past it is the kernel's, and so is all of it from the protected side that goes elsewhere.
func TestSteerRoutes(t *testing.T) {
	s := load(t)
	check(t, s.SetEndpoints(addrs(gw4, gw6)))
	check(t, s.SetOwn(addrs(gw4, gw6, lan4, lan6)))
	check(t, s.SetRouted(prefixes("203.0.113.0/24", "2001:db8:b::/48"), prefixes("203.0.113.128/25")))
	past, far, far6, near, near6 := "203.0.113.200", "203.0.113.5", "2001:db8:b::5", "198.51.100.5", "2001:db8:a::5"
	testCases(t, s, []steerCase{
		{"into", Protected, ip4(v4{src: near, dst: far, proto: protoTCP}.with(tcp...)), Protect},
		{"into v6", Protected, ip6(v6{src: near6, dst: far6, proto: protoTCP}.with(tcp...)), Protect},
		{"past", Protected, ip4(v4{src: near, dst: past, proto: protoTCP}.with(tcp...)), PassOther},
		{"elsewhere", Protected, ip4(v4{src: near, dst: "192.0.2.99", proto: protoTCP}.with(tcp...)), PassOther},
		{"from there, protected side", Protected, ip4(v4{src: far, dst: near, proto: protoTCP}.with(tcp...)), PassOther},
		{"from there, outside", Outside, ip4(v4{src: far, dst: near, proto: protoTCP}.with(tcp...)), Cleartext},
		{"from there, outside, v6", Outside, ip6(v6{src: far6, dst: near6, proto: protoTCP}.with(tcp...)), Cleartext},
		{"from past, outside", Outside, ip4(v4{src: past, dst: near, proto: protoTCP}.with(tcp...)), PassOther},
		{"into, outside", Outside, ip4(v4{src: "192.0.2.99", dst: far, proto: protoTCP}.with(tcp...)), Spoofed},
		{"into, both", both, ip4(v4{src: near, dst: far, proto: protoTCP}.with(tcp...)), Protect},
		{"to the gateway", Outside, ip4(v4{src: far, dst: gw4, proto: protoTCP}.with(tcp...)), PassOwn},
		{"multicast", Protected, ip4(v4{src: near, dst: "224.0.0.5", proto: protoTCP}.with(tcp...)), PassMulticast},
	})
	check(t, s.SetRouted(nil, nil))
	testCases(t, s, []steerCase{{"no longer", Protected, ip4(v4{src: near, dst: far, proto: protoTCP}.with(tcp...)), PassOther}})
}

func TestSteerNamedMulticastAndLinkLocal(t *testing.T) {
	s := gateway(t, prefixes("198.51.100.0/24", "2001:db8:a::/64"),
		prefixes("0.0.0.0/0", "224.0.0.0/8", "239.1.0.0/16", "169.254.7.0/30", "ff0e::/16", "ff02::/16", "255.255.255.255/32"))
	testCases(t, s, namedCases)
}

// TestTruncationNeverPasses cuts every frame of the tables at every length. A
// frame that ends before its addresses can be read is dropped, too: the
// kernel could not deliver it either. What a prefix gets instead of the
// whole frame's verdict must be a drop or the way to a worker.
func TestTruncationNeverPasses(t *testing.T) {
	s := siteGateway(t)
	for _, c := range siteCases {
		if c.want < ESP || c.want > Spoofed {
			continue
		}
		check(t, s.SetPort(loopback, 0, c.roles))
		for n := 14; n < len(c.frame); n++ {
			if action := run(t, s, c.frame[:n]); action == xdpPass {
				t.Errorf("%s: %d of %d bytes pass", c.name, n, len(c.frame))
			}
		}
	}
}

// TestEveryFrameIsCountedOnce cuts every frame and flips bytes in it: the
// counters' sum is the number of frames, whatever they hold.
func TestEveryFrameIsCountedOnce(t *testing.T) {
	s := siteGateway(t)
	check(t, s.SetPort(loopback, 0, both))
	setSockets(t, s, socket(t))
	frames := uint64(0)
	for _, c := range siteCases {
		for n := 14; n <= len(c.frame); n += 7 {
			f := slices.Clone(c.frame[:n])
			run(t, s, f)
			f[n*5%(n-12)+12] ^= byte(n)
			run(t, s, f)
			frames += 2
		}
	}
	counts, err := s.Counters()
	check(t, err)
	sum := uint64(0)
	for _, n := range counts {
		sum += n
	}
	if sum != frames {
		t.Errorf("counted %d of %d frames", sum, frames)
	}
}

func TestUnknownInterfaceFailsClosed(t *testing.T) {
	s := siteGateway(t)
	check(t, s.SetSocket(0, 0, Data, socket(t)))
	for _, c := range siteCases {
		if c.want != Protect && c.want != Cleartext && c.want != ESP {
			continue
		}
		if action, got := verdict(t, s, c.frame); action != xdpDrop || got != NoSocketDrop {
			t.Errorf("%s: action %d, %s", c.name, action, CounterInfos[got].Name)
		}
	}
}

func TestClosedSocketEmptiesItsSlot(t *testing.T) {
	s := siteGateway(t)
	check(t, s.SetPort(loopback, 5, Protected))
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, s.SetSocket(5, 0, Data, fd))
	frame := ip4(v4{src: host4, dst: far4, proto: protoTCP}.with(tcp...))
	if action := run(t, s, frame); action != xdpRedirect {
		t.Fatalf("action %d with a socket", action)
	}
	unix.Close(fd)
	if action, got := verdict(t, s, frame); action != xdpDrop || got != NoSocketDrop {
		t.Errorf("action %d, %s after close", action, CounterInfos[got].Name)
	}
}

func TestSetRejectsWhatTheMapsCannotHold(t *testing.T) {
	s := load(t)
	for name, err := range map[string]error{
		"port index":     s.SetPort(1, PortsMax, Protected),
		"role bits":      s.SetPort(1, 0, 8),
		"queue":          s.SetSocket(0, QueuesMax, Data, 0),
		"not AF_XDP":     s.SetSocket(0, 0, Data, int(os.Stdin.Fd())),
		"zero address":   s.SetOwn([]netip.Addr{{}}),
		"zero prefix":    s.SetPrefixes([]netip.Prefix{{}}, nil, nil),
		"mapped address": s.SetPrefixes(nil, prefixes("::ffff:192.0.2.0/120"), nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	check(t, s.RemovePort(12345))
	check(t, s.ClearSocket(3, 3, IKE))
}

func TestAddressesFollowTheWantedSet(t *testing.T) {
	s := siteGateway(t)
	check(t, s.SetPort(loopback, 0, Outside))
	esp4 := ip4(v4{src: peer4, dst: gw4, proto: protoESP}.with(esp...))
	for _, step := range []struct {
		endpoints, own []string
		want           Counter
	}{
		{[]string{gw4}, []string{gw4}, NoSocketDrop},
		{nil, []string{gw4}, PassOwn},
		{nil, nil, PassOther},
		{[]string{"::ffff:" + gw4}, nil, NoSocketDrop},
	} {
		check(t, s.SetEndpoints(addrs(step.endpoints...)))
		check(t, s.SetOwn(addrs(step.own...)))
		if _, got := verdict(t, s, esp4); got != step.want {
			t.Errorf("endpoints %v, own %v: %s, want %s", step.endpoints, step.own, CounterInfos[got].Name, CounterInfos[step.want].Name)
		}
	}
}

// TestMapsThatAreFullStayAsTheyWere offers more than there is room for, then as much as there is, in place of all that was there.
func TestMapsThatAreFullStayAsTheyWere(t *testing.T) {
	s := sized(t, map[string]uint32{"addresses4": 4, "addresses6": 2, "prefixes4": 4, "prefixes6": 2})
	entries := func(m *ebpf.Map) (n int) {
		key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
		for i := m.Iterate(); i.Next(&key, &value); n++ {
		}
		return n
	}
	list := func(base string, n int) (out []netip.Addr) {
		a := netip.MustParseAddr(base)
		for range n {
			out = append(out, a)
			a = a.Next()
		}
		return out
	}
	nets := func(base string, n int) (out []netip.Prefix) {
		for _, a := range list(base, n) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
		return out
	}
	steps := []struct {
		name           string
		set            func() error
		full           bool
		v4, v6, p4, p6 int // entries after it
	}{
		{"endpoints", func() error { return s.SetEndpoints(list("192.0.2.1", 3)) }, false, 3, 0, 0, 0},
		{"the same as own", func() error { return s.SetOwn(list("192.0.2.1", 3)) }, false, 3, 0, 0, 0},
		{"two more as own", func() error { return s.SetOwn(list("192.0.2.4", 2)) }, true, 3, 0, 0, 0},
		{"too many of IPv6", func() error { return s.SetEndpoints(list("2001:db8::1", 3)) }, true, 3, 0, 0, 0},
		{"other endpoints, own ones stay", func() error { return s.SetEndpoints(list("192.0.2.4", 1)) }, false, 4, 0, 0, 0},
		{"all others", func() error { return errors.Join(s.SetOwn(nil), s.SetEndpoints(list("203.0.113.1", 4))) }, false, 4, 0, 0, 0},
		{"both families", func() error { return s.SetEndpoints(append(list("203.0.113.1", 1), list("2001:db8::1", 2)...)) }, false, 1, 2, 0, 0},
		{"prefixes", func() error { return s.SetPrefixes(nets("198.18.0.1", 1), nets("198.18.0.2", 2), nil) }, false, 1, 2, 3, 0},
		{"too many", func() error { return s.SetPrefixes(nets("198.18.0.1", 2), nets("198.18.1.1", 3), nil) }, true, 1, 2, 3, 0},
		{"too many at once", func() error { return s.SetPrefixes(nets("198.18.2.1", 1), nets("198.18.3.1", 2), nil) }, true, 1, 2, 3, 0},
		{"too many routes", func() error { return s.SetRouted(nets("2001:db8::1", 3), nil) }, true, 1, 2, 3, 0},
		{"some routes", func() error { return s.SetRouted(nets("2001:db8::1", 2), nil) }, false, 1, 2, 3, 2},
		{"none protected", func() error { return s.SetPrefixes(nil, nil, nil) }, false, 1, 2, 0, 2},
		{"others", func() error { return s.SetPrefixes(nets("198.18.2.1", 2), nets("198.18.3.1", 2), nil) }, false, 1, 2, 4, 2},
	}
	for _, step := range steps {
		if err := step.set(); errors.Is(err, ErrNoRoom) != step.full || err != nil && !step.full {
			t.Fatalf("%s: %v", step.name, err)
		}
		o := &s.objs
		got := [4]int{entries(o.Addresses4), entries(o.Addresses6), entries(o.Prefixes4), entries(o.Prefixes6)}
		if want := [4]int{step.v4, step.v6, step.p4, step.p6}; got != want {
			t.Errorf("%s: %v entries, want %v", step.name, got, want)
		}
	}
	for name, err := range map[string]error{
		"endpoints": s.CheckEndpoints(list("192.0.2.1", 5)), "prefixes": s.CheckPrefixes(nets("198.18.2.1", 5), nil, nil),
	} {
		if !errors.Is(err, ErrNoRoom) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, errors.Join(s.CheckEndpoints(list("192.0.2.1", 4)), s.CheckPrefixes(nets("198.18.2.1", 2), nil, nil)))
}

// stayHere keeps the test on one CPU: each remembers for itself.
func stayHere(t *testing.T) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &before))
	for cpu := range 64 * len(before) {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	check(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() {
		check(t, unix.SchedSetaffinity(0, &before))
		runtime.UnlockOSThread()
	})
}

// TestWhatIsRememberedFollowsTheTables has the program judge packets whose addresses it remembers after each kind of change of
// addresses, policies and routes.
func TestWhatIsRememberedFollowsTheTables(t *testing.T) {
	s := load(t)
	check(t, s.SetPort(loopback, 0, both))
	stayHere(t)
	frames := map[string][]byte{
		"IPv4": ip4(v4{src: host4, dst: far4, proto: 17}.with(udp(1000, 2000)...)),
		"IPv6": ip6(v6{src: host6, dst: far6, proto: 17}.with(udp(1000, 2000)...)),
	}
	local, remote := prefixes("198.51.100.0/24", "2001:db8:a::/48"), prefixes("203.0.113.0/24", "2001:db8:b::/48")
	setSockets(t, s, socket(t))
	for _, step := range []struct {
		change string
		do     func() error
		want   Counter
	}{
		{"nothing", func() error { return nil }, PassOther},
		{"a policy", func() error { return s.SetPrefixes(local, remote, nil) }, Protect},
		{"no policy any more", func() error { return s.SetPrefixes(nil, nil, nil) }, PassOther},
		{"a route into an interface", func() error { return s.SetRouted(remote, nil) }, Protect},
		{"no route any more", func() error { return s.SetRouted(nil, nil) }, PassOther},
		{"an address of ours", func() error { return s.SetOwn(addrs(far4, far6)) }, PassOwn},
		{"a policy beside it", func() error { return s.SetPrefixes(local, remote, nil) }, PassOwn},
		{"no address any more", func() error { return s.SetOwn(nil) }, Protect},
		{"an endpoint", func() error { return s.SetEndpoints(addrs(far4, far6)) }, PassOwn},
		{"no endpoint any more", func() error { return s.SetEndpoints(nil) }, Protect},
		{"the other role", func() error { return s.SetPort(loopback, 0, Outside) }, Spoofed},
		{"no port any more", func() error { return s.RemovePort(loopback) }, NoSocketDrop},
		{"the port without a socket", func() error { return s.SetPort(loopback, 1, both) }, NoSocketDrop},
		{"the port with one", func() error { return s.SetPort(loopback, 0, both) }, Protect},
	} {
		check(t, step.do())
		for range 3 {
			for name, frame := range frames {
				if _, c := verdict(t, s, frame); c != step.want {
					t.Errorf("%s after %s: %s, want %s", name, step.change, CounterInfos[c].Name, CounterInfos[step.want].Name)
				}
			}
		}
	}
}

// TestManyAddressesAreToldApart judges more pairs of addresses than are remembered, again and again, of which some differ in their
// version only.
func TestManyAddressesAreToldApart(t *testing.T) {
	s := load(t)
	check(t, s.SetPrefixes(prefixes("198.51.100.0/25", "c633:6400::/24"), prefixes("203.0.113.0/24", "cb00:7100::/24"), nil))
	for round := range 2 {
		for i := range 3000 {
			src, dst := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 4)})
			frame := ip4(v4{src: src.String(), dst: dst.String(), proto: 17}.with(udp(1000, 2000)...))
			want := PassOther
			if i&0x80 == 0 {
				want = NoSocketDrop
			}
			if i%3 == 0 {
				a, b := src.As4(), dst.As4()
				var a6, b6 [16]byte
				copy(a6[:], a[:])
				copy(b6[:], b[:])
				frame = ip6(v6{src: netip.AddrFrom16(a6).String(), dst: netip.AddrFrom16(b6).String(), proto: 17}.with(udp(1000, 2000)...))
				want = NoSocketDrop // its /24 holds them all
			}
			if _, c := verdict(t, s, frame); c != want {
				t.Fatalf("round %d, packet %d: %s, want %s", round, i, CounterInfos[c].Name, CounterInfos[want].Name)
			}
		}
	}
}

// inverse is that of an odd number modulo 2^64: each step doubles the bits that are right.
func inverse(odd uint64) uint64 {
	x := odd
	for range 6 {
		x *= 2 - odd*x
	}
	return x
}

// The numbers of the program's hash.
const (
	hashInterface, hashFirst, hashLast         uint64 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0xe7037ed1a0b428db
	hashSrc0, hashSrc1, hashDst0, hashDst1     uint64 = 0x9e3779b97f4a7c15, 0x94d049bb133111eb, 0xc4ceb9fe1a85ec53, 0xd6e8feb86659fd93
	timesSrc0, timesSrc1, timesDst0, timesDst1 uint64 = 0xbf58476d1ce4e5b9, 0xff51afd7ed558ccd, 0x9fb21c651e98df25, 0xa0761d6478bd642f
)

// finish does the last steps of the program's hash, whose result is the upper half, and undo undoes them.
func finish(h uint64) uint64 {
	h = (h + hashInterface) * hashFirst // interface 1, loopback
	h ^= h >> 32
	return h * hashLast
}

func undo(h uint64) uint64 {
	h *= inverse(hashLast)
	h ^= h >> 32
	return h*inverse(hashFirst) - hashInterface
}

// TestAddressesOfOneHashAreToldApart judges packets whose addresses were chosen so that the program takes them for one packet by their hash: anybody can.
func TestAddressesOfOneHashAreToldApart(t *testing.T) {
	s := gateway(t, prefixes("198.51.100.0/24", "2001:db8:a::/48"), prefixes("203.0.113.0/24", "2001:db8:b::/48"))
	stayHere(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	h4, f4 := netip.MustParseAddr(host4).As4(), netip.MustParseAddr(far4).As4()
	h6, f6 := netip.MustParseAddr(host6).As16(), netip.MustParseAddr(far6).As16()
	first4 := uint64(binary.LittleEndian.Uint32(f4[:]))<<32 | uint64(binary.LittleEndian.Uint32(h4[:]))
	words := func(src, dst [16]byte) uint64 {
		le := binary.LittleEndian.Uint64
		return (le(src[:])+hashSrc0)*timesSrc0 ^ (le(src[8:])+hashSrc1)*timesSrc1 ^ (le(dst[:])+hashDst0)*timesDst0
	}
	first6 := words(h6, f6) ^ (binary.LittleEndian.Uint64(f6[8:])+hashDst1)*timesDst1
	protected := map[string][]byte{
		"IPv4": ip4(v4{src: host4, dst: far4, proto: 17}.with(udp(1000, 2000)...)),
		"IPv6": ip6(v6{src: host6, dst: far6, proto: 17}.with(udp(1000, 2000)...)),
	}
	// judge has packets judged in turn: one that is protected, and one that is not and looks like it.
	judge := func(name string, frame []byte) {
		for _, c := range []struct {
			frame []byte
			want  Counter
		}{{protected[name], NoSocketDrop}, {frame, PassOther}, {protected[name], NoSocketDrop}} {
			if _, got := verdict(t, s, c.frame); got != c.want {
				t.Fatalf("%s: %s, want %s", name, CounterInfos[got].Name, CounterInfos[c.want].Name)
			}
		}
	}
	for n := 0; n < 40; {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], undo(finish(first4)&^(1<<32-1)|rnd.Uint64N(1<<32)))
		src, dst := netip.AddrFrom4([4]byte(b[:])), netip.AddrFrom4([4]byte(b[4:]))
		if !dst.IsGlobalUnicast() || dst.As4()[0] >= 224 {
			continue
		}
		n++
		judge("IPv4", ip4(v4{src: src.String(), dst: dst.String(), proto: 17}.with(udp(1000, 2000)...)))
	}
	for n := range 80 {
		src, dst, name := h6, f6, "IPv6"
		like := undo(finish(first6)&^(1<<32-1) | rnd.Uint64N(1<<32))
		switch n % 4 {
		case 0: // the same source
			dst[5]++
		case 1: // the same destination
			src[5]++
			rest := words(src, dst) ^ (binary.LittleEndian.Uint64(f6[8:])+hashDst1)*timesDst1 ^ (binary.LittleEndian.Uint64(src[8:])+hashSrc1)*timesSrc1
			binary.LittleEndian.PutUint64(src[8:], (rest^like)*inverse(timesSrc1)-hashSrc1)
		case 2:
			src[5]++
			dst[5]++
		case 3: // those of IPv4, and more behind them
			copy(src[:], h4[:])
			copy(dst[:], f4[:])
			like, name = undo(finish(first4)&^(1<<32-1)|rnd.Uint64N(1<<32)), "IPv4"
		}
		if n%4 != 1 {
			binary.LittleEndian.PutUint64(dst[8:], (words(src, dst)^like)*inverse(timesDst1)-hashDst1)
		}
		judge(name, ip6(v6{src: netip.AddrFrom16(src).String(), dst: netip.AddrFrom16(dst).String(), proto: 17}.with(udp(1000, 2000)...)))
	}
}

func TestLimitsMatchTheProgram(t *testing.T) {
	spec, err := loadSteer()
	check(t, err)
	if n := spec.Maps["ports"].MaxEntries; n != PortsMax {
		t.Errorf("ports map holds %d, PortsMax is %d", n, PortsMax)
	}
	for _, name := range []string{"xsks", "xsks_ike"} {
		if n := spec.Maps[name].MaxEntries; n != PortsMax*QueuesMax {
			t.Errorf("%s holds %d, want %d", name, n, PortsMax*QueuesMax)
		}
	}
	seen := map[string]bool{}
	for c, info := range CounterInfos {
		if info.Name == "" || info.Sentence == "" || seen[info.Name] {
			t.Errorf("counter %d has no description of its own", c)
		}
		seen[info.Name] = true
	}
}

func BenchmarkSteer(b *testing.B) {
	s := siteGateway(b)
	check(b, s.SetPort(loopback, 0, both))
	setSockets(b, s, socket(b))
	want := []string{"ARP", "ESP v4", "ESP v6", "ESP in UDP", "protect v4", "protect v6", "to the internet", "SSH to the endpoint"}
	for _, c := range siteCases {
		if !slices.Contains(want, c.name) {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			// Without a context the kernel runs it as loopback's queue 0.
			_, d, err := s.Program().Benchmark(padded(slices.Clone(c.frame)), b.N, nil)
			check(b, err)
			b.ReportMetric(float64(d.Nanoseconds()), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}
