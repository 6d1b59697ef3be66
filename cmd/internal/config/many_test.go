package config

import (
	"fmt"
	"strings"
	"testing"
)

// sites is a configuration of n connections as large gateways have them: each with its own peer, key and prefixes.
func sites(n int) string {
	var b strings.Builder
	b.WriteString("interfaces:\n  eth1: {role: protected}\n  eth2: {role: outside}\nconnections:\n")
	for i := range n {
		fmt.Fprintf(&b, "  site-%d:\n    local_addrs: 192.0.2.1\n    remote_addrs: 198.18.%d.%d\n    children:\n      net: {local_ts: 198.51.100.0/24, remote_ts: 10.%d.%d.%d/32}\n",
			i, i/250%250, i%250+1, i/65536, i/256%256, i%256)
	}
	b.WriteString("secrets:\n")
	for i := range n {
		fmt.Fprintf(&b, "  ike-%d: {id: 198.18.%d.%d, secret: \"k%05d-9fQ2xR7vLmT4wZ8bNcY3hKdJ6sP1\"}\n", i, i/250%250, i%250+1, i)
	}
	return b.String()
}

// TestEachOfManyConnectionsIsThere: what is found by its text or its fingerprint is found for each.
func TestEachOfManyConnectionsIsThere(t *testing.T) {
	const n = 500
	c := mustLoad(t, sites(n))
	if len(c.Connections) != n || len(c.Policies) != n || len(c.Fences) != n || len(c.Warnings) != 0 {
		t.Errorf("%d connections, %d policies, %d fences, %d warnings", len(c.Connections), len(c.Policies), len(c.Fences), len(c.Warnings))
	}
	d, err := Diff(c, mustLoad(t, sites(n-1)), Keys{})
	if err != nil || len(d.AddFences) != 0 || len(d.RemoveFences) != 1 {
		t.Errorf("%v, fences: %v, %v", err, d.AddFences, d.RemoveFences)
	}
}

// BenchmarkLoad reads ten thousand connections. What grows faster than their number is a mistake.
func BenchmarkLoad(b *testing.B) {
	text := sites(10_000)
	for b.Loop() {
		if _, err := load(b, text); err != nil {
			b.Fatal(err)
		}
	}
}
