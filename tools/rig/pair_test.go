package rig

import (
	"strings"
	"testing"
)

func TestConfigurationsMirrorEachOther(t *testing.T) {
	p := &Pair{
		A: &Gateway{Name: "gw-a", Socket: "/s", Pins: "/p"}, B: &Gateway{Name: "gw-b", Socket: "/s", Pins: "/p"},
		Tunnels: Tunnels(), keys: [][2][]byte{{{1}, {2}}, {{3}, {4}}},
	}
	a, b := string(p.configuration(p.A, false)), string(p.configuration(p.B, true))
	for _, want := range []string{`spi_in: 0x5a110402, spi_out: 0x5a110401, key_in: "02", key_out: "01"`, "local_addrs: 192.0.2.1\n"} {
		if !strings.Contains(a, want) {
			t.Errorf("gateway a lacks %s:\n%s", want, a)
		}
	}
	for _, want := range []string{`spi_in: 0x5a110401, spi_out: 0x5a110402, key_in: "01", key_out: "02"`, "local_addrs: 192.0.2.2\n"} {
		if !strings.Contains(b, want) {
			t.Errorf("gateway b lacks %s:\n%s", want, b)
		}
	}
}
