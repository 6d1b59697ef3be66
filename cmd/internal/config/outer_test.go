package config

import (
	"strings"
	"testing"

	"sallyport/dataplane/sad"
)

// TestOuterHeaderChoices reads every choice about outer packets, and finds it in both directions' associations.
func TestOuterHeaderChoices(t *testing.T) {
	usual := sad.Outer{CopyDSCP: true, ECN: true, CopyDF: true}
	with := func(f func(o *sad.Outer)) sad.Outer {
		o := usual
		f(&o)
		return o
	}
	for _, c := range []struct {
		text string
		want sad.Outer
	}{
		{"", usual},
		{"copy_dscp: yes", with(func(o *sad.Outer) { o.AdoptDSCP = true })},
		{"copy_dscp: in, dscp: 46", with(func(o *sad.Outer) { o.CopyDSCP, o.AdoptDSCP, o.DSCP = false, true, 46 })},
		{"copy_dscp: no", with(func(o *sad.Outer) { o.CopyDSCP = false })},
		{"copy_df: false, set_df: true", with(func(o *sad.Outer) { o.CopyDF, o.SetDF = false, true })},
		{"copy_ecn: false", with(func(o *sad.Outer) { o.ECN = false })},
		{"ttl: 255", with(func(o *sad.Outer) { o.TTL = 255 })},
		{"ttl: copy", with(func(o *sad.Outer) { o.CopyTTL = true })},
		{"mtu: 1400, fragment: after", with(func(o *sad.Outer) { o.MTU, o.Fragment = 1400, true })},
		{"tfc_padding: 800", with(func(o *sad.Outer) { o.TFC = 800 })},
		{"tfc_padding: mtu", with(func(o *sad.Outer) { o.TFC = sad.TFCPath })},
	} {
		config := mustLoad(t, strings.Replace(manualKeys, "remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, "+c.text, 1))
		if len(config.Associations) != 2 {
			t.Fatalf("%q: %d associations", c.text, len(config.Associations))
		}
		for _, a := range config.Associations {
			if a.Outer != c.want {
				t.Errorf("%q: %+v, want %+v", c.text, a.Outer, c.want)
			}
		}
	}
}
