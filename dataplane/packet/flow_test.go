package packet

import (
	"net/netip"
	"testing"
)

// TestAddrsKeepFamilyAndOrder: an address goes through its number unchanged, an IPv6 address that
// looks like a mapped or a small one too, and numbers of one family are in the order of the addresses.
func TestAddrsKeepFamilyAndOrder(t *testing.T) {
	for version, list := range map[uint8][]string{
		4: {"0.0.0.0", "192.0.2.1", "192.0.2.2", "198.51.100.0", "255.255.255.255"},
		6: {"::", "::c000:201", "::ffff:c000:201", "::1:0:0:0", "2001:db8::1", "2001:db8:0:1::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		var before Addr
		for i, text := range list {
			a := netip.MustParseAddr(text)
			n := AddrOf(a)
			if back := n.Netip(version); back != a {
				t.Errorf("%s came back as %s", a, back)
			}
			if i > 0 && (n.Hi < before.Hi || n.Hi == before.Hi && n.Lo <= before.Lo) {
				t.Errorf("%s does not come after %s", a, list[i-1])
			}
			before = n
		}
	}
}

func TestFlowBack(t *testing.T) {
	f := FlowBetween(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), 6)
	f.SrcPort, f.DstPort, f.Flags = 1, 2, FlagPorts
	b := f.Back()
	if b.SrcAddr() != f.DstAddr() || b.DstAddr() != f.SrcAddr() || b.SrcPort != 2 || b.DstPort != 1 || b.Flags != f.Flags || b.Proto != 6 || b.Version != 4 {
		t.Errorf("%+v", b)
	}
	if b.Back() != f {
		t.Error("twice back is not there again")
	}
}
