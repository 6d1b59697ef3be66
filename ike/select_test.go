package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// TestConnectionIsChosenByWhatSaysItMostExactly goes through the order of weights: identity, remote address, proposal,
// local address, order of the configuration.
func TestConnectionIsChosenByWhatSaysItMostExactly(t *testing.T) {
	pattern := func(s string) auth.Remote { return auth.Remote{ID: must(auth.ParsePattern(s)), Method: auth.PSK} }
	strong := []suite.Proposal{must(suite.ParseIKE("aes256gcm16-prfsha384-ecp384"))}
	all := []*ikesa.Connection{
		{Name: "any", Proposals: ikeProposal},
		{Name: "any-again", Proposals: ikeProposal},
		{Name: "net", RemoteAddrs: addresses("198.51.100.0/24"), Proposals: ikeProposal},
		{Name: "host", RemoteAddrs: addresses("198.51.100.1"), Proposals: ikeProposal},
		{Name: "host-strong", RemoteAddrs: addresses("198.51.100.1"), Proposals: strong},
		{Name: "host-here", RemoteAddrs: addresses("198.51.100.1"), LocalAddrs: addresses("192.0.2.2"), Proposals: ikeProposal},
		{Name: "elsewhere", RemoteAddrs: addresses("198.51.100.1"), LocalAddrs: addresses("192.0.2.3"), Proposals: ikeProposal},
		{Name: "domain", Proposals: ikeProposal, Remote: pattern("*.example.org")},
		{Name: "alice", Proposals: ikeProposal, Remote: pattern("alice.example.org")},
		{Name: "alice-mine", Proposals: ikeProposal, Remote: pattern("alice.example.org"), Local: testLocal("gw")},
		{Name: "six", RemoteAddrs: addresses("2001:db8::/32"), Proposals: ikeProposal},
	}
	s := newSnapshot(&Config{Connections: all, Store: testStore()}, nil)
	offer := func(p []suite.Proposal) []message.Proposal { return []message.Proposal{p[0].Message(1, nil)} }
	id := func(name string) *auth.Identity { i := identity(name); return &i }
	here := "192.0.2.2:500"
	for _, c := range []struct {
		local, remote string
		q             ikesa.Query
		want          string
	}{
		{here, "203.0.113.1:500", ikesa.Query{Proposals: offer(ikeProposal)}, "any"},
		{here, "198.51.100.7:500", ikesa.Query{Proposals: offer(ikeProposal)}, "net"},
		{here, "198.51.100.1:500", ikesa.Query{Proposals: offer(ikeProposal)}, "host-here"},
		{"192.0.2.9:500", "198.51.100.1:500", ikesa.Query{Proposals: offer(ikeProposal)}, "host"},
		{here, "198.51.100.1:500", ikesa.Query{Proposals: offer(strong)}, "host-strong"},
		{here, "[2001:db8::1]:500", ikesa.Query{Proposals: offer(ikeProposal)}, "six"},
		{here, "203.0.113.1:500", ikesa.Query{RemoteID: id("bob.example.org"), Chosen: all[0]}, "domain"},
		{here, "203.0.113.1:500", ikesa.Query{RemoteID: id("ALICE.example.org"), Chosen: all[0]}, "alice"},
		{here, "203.0.113.1:500", ikesa.Query{RemoteID: id("alice.example.org"), LocalID: id("gw"), Chosen: all[0]}, "alice-mine"},
		{here, "203.0.113.1:500", ikesa.Query{RemoteID: id("carol.example.net"), Chosen: all[1]}, "any"},
		{here, "198.51.100.1:500", ikesa.Query{RemoteID: id("carol.example.net"), Chosen: all[3]}, "host-here"},
	} {
		c.q.Local, c.q.Remote = netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.remote)
		got := s.find(c.q)
		if got == nil || got.Name != c.want {
			t.Errorf("%s to %s, %+v: %v, want %s", c.remote, c.local, c.q, got, c.want)
		}
	}
	only := newSnapshot(&Config{Connections: all[7:10], Store: testStore()}, nil)
	if got := only.find(ikesa.Query{Local: hereAt, Remote: thereAt, RemoteID: id("carol.example.net")}); got != nil {
		t.Errorf("a stranger gets %s", got.Name)
	}
	if got := only.find(ikesa.Query{Local: hereAt, Remote: thereAt, RemoteID: id("alice.example.org"), LocalID: id("other")}); got == nil || got.Name != "alice" {
		t.Errorf("who asks for another than gw gets %v", got)
	}
}

// TestIndexedChoiceIsTheNaiveChoice compares the look-ups with going through everything.
func TestIndexedChoiceIsTheNaiveChoice(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	proposals := [][]suite.Proposal{ikeProposal, {must(suite.ParseIKE("aes256gcm16-prfsha384-ecp384"))}}
	for range 1000 {
		var all []*ikesa.Connection
		for range random.IntN(12) {
			c := &ikesa.Connection{Name: "x", Proposals: proposals[random.IntN(2)]}
			for range random.IntN(3) {
				c.RemoteAddrs = append(c.RemoteAddrs, addresses(pick("198.51.100.1", "198.51.100.2", "198.51.100.0/24", "198.51.0.0/16", "h.example.org", "i.example.org"))...)
			}
			if random.IntN(3) == 0 {
				c.LocalAddrs = addresses(pick("192.0.2.2", "192.0.2.3"))
			}
			c.Remote = auth.Remote{ID: must(auth.ParsePattern(pick("%any", "a.example.org", "*.example.org", "b.example.org")))}
			if random.IntN(2) == 0 {
				c.Local.ID = identity(pick("gw", "gw2"))
			}
			all = append(all, c)
		}
		var known names
		known.set("h.example.org", []netip.Addr{netip.MustParseAddr("198.51.100.1")})
		known.set("h.example.org", []netip.Addr{netip.MustParseAddr("198.51.100.2")})
		known.set("i.example.org", []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("203.0.113.9")})
		s := newSnapshot(&Config{Connections: all, Store: testStore()}, &known)
		for range 20 {
			q := ikesa.Query{Local: netip.MustParseAddrPort(pick("192.0.2.2:500", "192.0.2.3:500")),
				Remote: netip.MustParseAddrPort(pick("198.51.100.1:500", "198.51.100.2:500", "203.0.113.9:500"))}
			if random.IntN(2) == 0 {
				q.Proposals = []message.Proposal{proposals[random.IntN(2)][0].Message(1, nil)}
			} else {
				id := identity(pick("a.example.org", "b.example.org", "c.example.org", "stranger"))
				q.RemoteID = &id
				if random.IntN(2) == 0 {
					own := identity(pick("gw", "GW2", "gw3"))
					q.LocalID = &own
				}
				if len(all) > 0 {
					q.Chosen = all[random.IntN(len(all))]
				}
			}
			var want *ikesa.Connection
			var best [4]int
			for _, c := range all {
				if fit, ok := s.fit(c, q); ok && (want == nil || better(fit, best)) {
					want, best = c, fit
				}
			}
			if got := s.find(q); got != want {
				t.Fatalf("%+v: %v, want %v", q, got, want)
			}
		}
	}
}

func better(a, b [4]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] > b[i]
		}
	}
	return false
}

// BenchmarkChoice is both choices of a handshake, by addresses and by identities, among ten thousand connections.
func BenchmarkChoice(b *testing.B) {
	const n = 10_000
	addr := func(i int) string {
		return netip.AddrFrom4([4]byte{198, 18 + byte(i>>15&1), byte(i >> 7), byte(i << 1)}).String()
	}
	for _, c := range []struct {
		name string
		set  func(i int, c *ikesa.Connection)
	}{
		{"addresses", func(i int, c *ikesa.Connection) { c.RemoteAddrs = addresses(addr(i)) }},
		{"identities", func(i int, c *ikesa.Connection) {
			c.Remote.ID = must(auth.ParsePattern(fmt.Sprintf("%d.example.org", i)))
		}},
		{"networks", func(i int, c *ikesa.Connection) { c.RemoteAddrs = addresses(addr(i) + "/31") }},
		{"names", func(i int, c *ikesa.Connection) { c.RemoteAddrs = addresses(fmt.Sprintf("%d.example.org", i)) }},
		{"one remote", func(i int, c *ikesa.Connection) {
			c.RemoteAddrs, c.Remote.ID = addresses("198.18.0.1"), must(auth.ParsePattern("peer.example.org"))
			c.Local.ID = identity(fmt.Sprintf("%d.example.org", i))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var all []*ikesa.Connection
			for i := range n {
				conn := &ikesa.Connection{Name: fmt.Sprint(i), Proposals: ikeProposal, Remote: auth.Remote{ID: must(auth.ParsePattern("%any"))}}
				c.set(i, conn)
				all = append(all, conn)
			}
			s := newSnapshot(&Config{Connections: all, Store: testStore()}, nil)
			remote, asked, here := identity("peer.example.org"), identity("777.example.org"), netip.MustParseAddrPort("192.0.2.2:500")
			if c.name == "identities" {
				remote = asked
			}
			from := netip.AddrPortFrom(netip.MustParseAddr(addr(777)), 500)
			if c.name == "one remote" {
				from = netip.MustParseAddrPort("198.18.0.1:500")
			}
			offer := []message.Proposal{ikeProposal[0].Message(1, nil)}
			b.ReportAllocs()
			for b.Loop() {
				first := s.find(ikesa.Query{Local: here, Remote: from, Proposals: offer})
				if first == nil || s.find(ikesa.Query{Local: here, Remote: from, RemoteID: &remote, LocalID: &asked, Chosen: first}) == nil {
					b.Fatal("no connection")
				}
			}
		})
	}
}
