package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

func withTerms(base, terms string) string {
	return strings.Replace(base, "remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, "+terms, 1)
}

func TestFiltersAndLimitsReachBothKindsOfAssociations(t *testing.T) {
	text := `filters: [{action: deny, direction: in, local_ts: "198.51.100.1[tcp/22]"}, {action: allow, protocol: icmp, icmp_type: 3-5}], ` +
		`filter_default: deny, limit_in: {packets: 1000}, limit_out: {bytes: 1MiB, burst: 2s}`
	check := func(t *testing.T, inbound bool, f *sad.Filter, l sad.Limit) {
		t.Helper()
		rules := 1
		limit := sad.Limit{Bytes: 1 << 20, Burst: 2 * time.Second}
		if inbound {
			rules, limit = 2, sad.Limit{Packets: 1000, Burst: 100 * time.Millisecond}
		}
		if f == nil || len(f.Rules()) != rules || !f.Deny() || l != limit {
			t.Fatalf("inbound %v: %+v, %+v", inbound, f, l)
		}
		icmp := f.Rules()[rules-1]
		if s := icmp.Selectors[0]; icmp.Action != spd.Bypass || s.Proto != 1 || s.LocalPorts != (spd.PortRange{First: 3 << 8, Last: 5<<8 | 255}) || s.RemotePorts != spd.AnyPorts || len(icmp.Selectors) != 2 {
			t.Errorf("%+v", icmp)
		}
		if inbound && (f.Rules()[0].Action != spd.Discard || fmt.Sprint(f.Rules()[0].Selectors[0].Local) != "[198.51.100.1/32]" || f.Rules()[0].Selectors[0].LocalPorts.First != 22) {
			t.Errorf("%+v", f.Rules()[0])
		}
	}
	c := mustLoad(t, withTerms(manualKeys, text))
	for i := range c.Associations {
		a := &c.Associations[i]
		check(t, a.Inbound, a.Filter, a.Limit)
	}
	c = mustLoad(t, withTerms(tenLines, text)+"secrets: {ike-b: {id: 192.0.2.2, secret: \"kI3vZ7b0m8dY5q2xT1nW9rLhCwGfQ4sE6uJpAoVzXyM=\"}}\n")
	data := c.Connections[0].Children[0].Data.(*DataPath)
	for _, inbound := range []bool{true, false} {
		f, l := data.Terms.Of(inbound)
		check(t, inbound, f, l)
	}
	// Without any of them nothing is to be judged.
	c = mustLoad(t, manualKeys)
	if f, l := c.Associations[0].Filter, c.Associations[0].Limit; f != nil || l != (sad.Limit{}) {
		t.Errorf("%+v %+v", f, l)
	}
}

func TestFaultyFiltersAreNamed(t *testing.T) {
	for _, c := range []struct{ terms, want string }{
		{"filters: {direction: in}", "action is missing"},
		{"filters: {action: drop}", `"drop" is not one of allow, deny`},
		{"filters: {action: deny, direction: up}", `"up" is not one of in, out, both`},
		{"filters: {action: deny, protocol: tpc}", `did you mean "tcp"?`},
		{"filters: {action: deny, icmp_type: 8}", "goes with protocol: icmp"},
		{"filters: {action: deny, protocol: icmp, icmp_type: 256}", "is not a type of ICMP"},
		{"filters: {action: deny, local_ts: dynamic}", "write the prefix out"},
		{"filters: {action: deny, local_ts: 198.51.100.0/25, remote_ts: \"2001:db8::/32\"}", "do not agree"},
		{"filters: {action: deny, protocol: udp, local_ts: \"198.51.100.0/25[tcp/1]\"}", "protocol is another"},
		{"filters: [{action: deny, protocol: udp}, {action: allow, protocol: udp}]", "contradicts"},
		{"filter_default: maybe", `"maybe" is not one of allow, deny`},
		{"limit_in: {packets: 10, burst: 1m}", "burst: between"},
		{"limit_out: {bytes: 2TiB}", "at most"},
	} {
		if _, err := load(t, withTerms(manualKeys, c.terms)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.terms, err, c.want)
		}
	}
}
