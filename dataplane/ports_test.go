package dataplane

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestVLANInterfacesAreRefused asks about interfaces as the kernel would tell of them: the one of this machine may lack VLANs.
func TestVLANInterfacesAreRefused(t *testing.T) {
	named := netlink.LinkAttrs{Name: "eth1.100"}
	if err := servable(&netlink.Vlan{LinkAttrs: named, VlanId: 100}); err == nil || !strings.Contains(err.Error(), "eth1.100 is a VLAN") {
		t.Errorf("a VLAN: %v", err)
	}
	for _, l := range []netlink.Link{&netlink.Device{LinkAttrs: named}, &netlink.Veth{LinkAttrs: named}, &netlink.Macvlan{LinkAttrs: named}} {
		if err := servable(l); err != nil {
			t.Errorf("%s: %v", l.Type(), err)
		}
	}
}
