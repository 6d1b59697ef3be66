package rig

import (
	"strings"
	"testing"
)

func TestConfigurationsMirrorEachOther(t *testing.T) {
	keys := [][2][]byte{{{1}, {2}}, {{3}, {4}}}
	g := &Gateway{Name: "gw", Socket: "/s", Pins: "/p"}
	a, b := string(configuration(g, Tunnels(), keys, false)), string(configuration(g, Tunnels(), keys, true))
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
