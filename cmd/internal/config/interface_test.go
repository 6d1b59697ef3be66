package config

import (
	"strings"
	"testing"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/ike/ikesa"
)

// routed is a file with a virtual interface and a child that names it. The arguments go into their mappings.
func routed(of, child string) string {
	return `
interfaces: {eth1: {role: protected}, eth2: {role: outside}, ipsec0: {role: tunnel` + of + `}}
connections:
  a: {local_addrs: 192.0.2.1, remote_addrs: 192.0.2.2, children: {net: {interface: ipsec0` + child + `}}}
secrets: {ike-a: {secret: "mJ3x0mVt1hQkYk4r3Gq8fB9tKzPZJ8sZ"}}
`
}

func TestAChildOfAnInterfaceHasItsOwnPolicyAndNoFences(t *testing.T) {
	c, err := load(t, routed(`, mtu: 1380, addrs: [10.255.0.1/30, "2001:db8:255::1/64"]`, ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Policies) != 1 || c.Policies[0].Interface != "ipsec0" || c.Policies[0].Action != spd.Protect || c.Policies[0].Transport {
		t.Fatalf("policies %+v", c.Policies)
	}
	local, remote := Sides(&c.Policies[0].Selectors[0])
	if len(c.Policies[0].Selectors) != 2 || local[0] != "0.0.0.0/0" || remote[0] != "0.0.0.0/0" {
		t.Errorf("selectors %+v", c.Policies[0].Selectors)
	}
	if len(c.Fences) != 0 {
		t.Errorf("fences %v", c.Fences)
	}
	if data := c.Connections[0].Children[0].Data.(*DataPath); data.Interface != "ipsec0" {
		t.Errorf("data path %+v", data)
	}
	i := c.File.Interfaces[2]
	if i.MTU != 1380 || len(i.Addrs) != 2 || i.Addrs[0].String() != "10.255.0.1/30" {
		t.Errorf("interface %+v", i)
	}
}

func TestTwoInterfacesForEverythingDoNotContradict(t *testing.T) {
	text := strings.Replace(routed("", ""), "secrets:", `  b: {local_addrs: 192.0.2.1, remote_addrs: 192.0.2.3, children: {net: {interface: ipsec1}}}
  c: {local_addrs: 192.0.2.1, remote_addrs: 192.0.2.4, priority: 1, children: {net: {interface: ipsec1}}}
policies: [{action: bypass, local_ts: 0.0.0.0/0, remote_ts: 198.51.100.0/24}]
secrets:`, 1)
	text = strings.Replace(text, "ipsec0: {role: tunnel", "ipsec1: {role: tunnel}, ipsec0: {role: tunnel", 1)
	c, err := load(t, strings.Replace(text, "secrets: {ike-a", "secrets: {ike-b", 1))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Policies) != 3 || c.Tunnels["c/net"] != "b/net" {
		t.Errorf("policies %+v, tunnels %v", c.Policies, c.Tunnels)
	}
}

func TestWhatIsWrongWithInterfaces(t *testing.T) {
	for text, want := range map[string]string{
		routed(", xdp_mode: native", ""):                                                                    "xdp_mode is for real interfaces",
		routed(", mtu: 500", ""):                                                                            "mtu: 500 is not between 576 and",
		routed(", mtu: 1000, addrs: \"2001:db8::1/64\"", ""):                                                "IPv6 needs 1280",
		routed(", addrs: 10.255.0.1", ""):                                                                   "is not ADDRESS/LENGTH",
		routed(", addrs: 224.0.0.5/32", ""):                                                                 "cannot be the address of an interface",
		routed(", encapsulation: gre", ", mode: tunnel"):                                                    "gre of interface ipsec0 goes in mode: transport",
		routed(", encapsulation: gre", ", ah_proposals: sha256"):                                            "no AH with encapsulation: gre",
		routed(", encapsulation: gre", ", local_ts: \"dynamic[tcp]\""):                                      "with that protocol, or left out",
		routed(", encapsulation: gre", ", local_ts: 198.51.100.0/24"):                                       "transport mode carries what goes between the addresses",
		routed(", encapsulation: vxlan", ""):                                                                `did you mean`,
		routed(", encapsulation: ipip, key: 7", ""):                                                         "a key goes with encapsulation: gre",
		routed(", key: 7", ""):                                                                              "a key goes with encapsulation: gre",
		routed(", encapsulation: gre, key: 4294967296", ""):                                                 "is not a whole number of 32 bits",
		routed("", ", mode: transport"):                                                                     "needs mode: tunnel",
		strings.Replace(routed("", ""), "{net: {", "{net: {interface: ipsec0}, two: {", 1):                  "can never match",
		strings.Replace(routed("", ""), "interface: ipsec0", "interface: ipsec", 1):                         `did you mean "ipsec0"`,
		strings.Replace(routed("", ""), "interface: ipsec0", "interface: eth1", 1):                          "has no role: tunnel",
		strings.Replace(routed("", ""), "eth1: {role: protected}", "eth1: {role: protected, mtu: 1400}", 1): "are for role: tunnel",
		strings.Replace(routed("", ""), "ipsec0: {role: tunnel}", "sp-default: {role: tunnel}", 1):          "dataplane.tun has this name",
		routed("", "") + "policies: [{action: protect, child: a/net}]\n":                                    "routes lead traffic to a/net",
	} {
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nsays %v, want %q", text, err, want)
		}
	}
	c, err := load(t, strings.Replace(routed("", ""), "interface: ipsec0", "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", 1))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Text, "no child has it") {
		t.Errorf("%v: warnings %v", err, c)
	}
}

// TestInterfacesComeAndGoByAReload, but none changes between real and virtual.
func TestInterfacesComeAndGoByAReload(t *testing.T) {
	with, err := load(t, routed("", ""))
	if err != nil {
		t.Fatal(err)
	}
	without, err := load(t, strings.Replace(strings.Replace(routed("", ""), ", ipsec0: {role: tunnel}", "", 1), "interface: ipsec0", "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range [][2]*Config{{with, without}, {without, with}} {
		if change, err := Diff(x[0], x[1], Keys{}); err != nil || !change.Interfaces || !change.Policies {
			t.Errorf("%+v: %v", change, err)
		}
	}
	real, err := load(t, strings.Replace(strings.Replace(routed("", ""), "role: tunnel", "role: outside", 1), "interface: ipsec0", "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Diff(with, real, Keys{}); err == nil {
		t.Error("a tunnel became a real interface")
	}
	if _, err := Diff(real, with, Keys{}); err == nil {
		t.Error("a real interface became a tunnel")
	}
}

// TestAnEncapsulationIsNegotiatedInTransportMode for its protocols between the gateways, and carries any inner packet.
func TestAnEncapsulationIsNegotiatedInTransportMode(t *testing.T) {
	for encapsulation, c := range map[string]struct {
		ts        string
		selectors int
		carrier   string
	}{
		"gre":         {"dynamic[gre]", 2, "gre"},
		"gre, key: 9": {"dynamic[gre]", 2, "gre key 9"},
		"ipip":        {"dynamic[ipip] dynamic[ipv6]", 2, "ipip"},
	} {
		for _, mode := range []string{"", ", mode: transport"} {
			f, err := load(t, routed(", encapsulation: "+encapsulation, mode))
			if err != nil {
				t.Fatal(err)
			}
			child := f.Connections[0].Children[0]
			data := child.Data.(*DataPath)
			var ts []string
			for _, s := range f.File.Connections[0].Children[0].LocalTS {
				ts = append(ts, s.String())
			}
			if child.Mode != ikesa.Transport || data.Carrier.String() != c.carrier || strings.Join(ts, " ") != c.ts || f.Connections[0].MOBIKE {
				t.Errorf("%s: mode %v, %v, %v", encapsulation, child.Mode, data.Carrier, ts)
			}
			if p := f.Policies[0]; p.Transport || p.Interface != "ipsec0" || len(p.Selectors) != c.selectors {
				t.Errorf("%s: policy %+v", encapsulation, p)
			}
		}
	}
	// Whoever agrees on less carries less.
	four := Pair([]TrafficSelector{{Range: everything()[0].Range, Proto: 4, Ports: spd.AnyPorts}}, everything())
	if inner := Carried(sad.IPIP, four); len(inner) != 1 || !inner[0].Local[0].First.Is4() {
		t.Errorf("IPv4 in IP: %v", inner)
	}
	if inner := Carried(sad.GRE, four); len(inner) != 0 {
		t.Errorf("GRE under selectors for IP in IP: %v", inner)
	}
}
