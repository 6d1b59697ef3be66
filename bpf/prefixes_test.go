package bpf

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// naiveFlags asks every prefix of a list.
func naiveFlags(local, remote []netip.Prefix, a netip.Addr) (f steerPrefixFlag) {
	for _, p := range local {
		if p.Contains(a) {
			f |= flagLocal | namedFlag(p)
		}
	}
	for _, p := range remote {
		if p.Contains(a) {
			f |= flagRemote | namedFlag(p)
		}
	}
	return f
}

// trieFlags answers as the kernel's trie does: by the longest match alone.
func trieFlags(set map[netip.Prefix]steerPrefixFlag, a netip.Addr) steerPrefixFlag {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, _ := a.Prefix(bits)
		if f, ok := set[p]; ok {
			return f
		}
	}
	return 0
}

// randomPrefixes draws from a few bits below 10.0.0.0/8, 224.0.0.0/4 and
// 2001:db8::/32, so that prefixes nest and repeat.
func randomPrefixes(r *rand.Rand, n int) (out []netip.Prefix) {
	for range n {
		a := randomAddr(r)
		p, _ := a.Prefix(r.IntN(a.BitLen() + 1))
		out = append(out, p)
	}
	return out
}

func randomAddr(r *rand.Rand) netip.Addr {
	low := byte(r.IntN(8))
	switch r.IntN(3) {
	case 0:
		return netip.AddrFrom4([4]byte{10, low << 5, 0, byte(r.IntN(4))})
	case 1:
		return netip.AddrFrom4([4]byte{224 + low, 0, 0, byte(r.IntN(4))})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, low << 5, 15: byte(r.IntN(4))})
}

// TestPrefixStepsNeverProtectLessThanBothSets walks random changes step by step and asks, after
// each map operation, what random addresses are: never less than before AND after say.
func TestPrefixStepsNeverProtectLessThanBothSets(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		lists := func() ([]netip.Prefix, []netip.Prefix) {
			return randomPrefixes(r, r.IntN(8)), randomPrefixes(r, r.IntN(8))
		}
		oldLocal, oldRemote := lists()
		newLocal, newRemote := lists()
		have, err := unionFlags(oldLocal, oldRemote, nil)
		check(t, err)
		want, err := unionFlags(newLocal, newRemote, nil)
		check(t, err)
		sample := make([]netip.Addr, 60)
		for i := range sample {
			sample[i] = randomAddr(r)
		}
		steps := prefixSteps(have, want)
		for i, step := range steps {
			if step.flags == 0 {
				delete(have, step.prefix)
			} else {
				have[step.prefix] = step.flags
			}
			for _, a := range sample {
				least := naiveFlags(oldLocal, oldRemote, a) & naiveFlags(newLocal, newRemote, a)
				if got := trieFlags(have, a); got&least != least {
					t.Fatalf("seed %d, step %d of %d (%v): %v has flags %b, needs %b", seed, i, len(steps), step, a, got, least)
				}
			}
		}
		if len(have) != len(want) {
			t.Fatalf("seed %d: %d entries stored, %d wanted", seed, len(have), len(want))
		}
		for _, a := range sample {
			if got, naive := trieFlags(have, a), naiveFlags(newLocal, newRemote, a); got != naive {
				t.Fatalf("seed %d: %v has flags %b, want %b", seed, a, got, naive)
			}
		}
	}
}

func TestPrefixStepsOfNoChangeAreNone(t *testing.T) {
	set, err := unionFlags(prefixes("198.51.100.0/24", "198.51.100.128/25"), prefixes("0.0.0.0/0", "::/0"), nil)
	check(t, err)
	if steps := prefixSteps(set, set); len(steps) != 0 {
		t.Errorf("steps %v", steps)
	}
}

// naiveRouted is what routes say of an address.
func naiveRouted(into, past []netip.Prefix, a netip.Addr) steerPrefixFlag {
	bits, flag := -1, steerPrefixFlag(0)
	for _, p := range into {
		if p.Contains(a) && p.Bits() > bits {
			bits, flag = p.Bits(), flagRouted
		}
	}
	for _, p := range past {
		if p.Contains(a) && p.Bits() >= bits {
			bits, flag = p.Bits(), flagPast
		}
	}
	return flag & flagRouted
}

// TestRoutesAndPoliciesChangeWithoutAGap is TestPrefixStepsLeaveNoGap with routes into virtual interfaces and past them beside the policies.
func TestRoutesAndPoliciesChangeWithoutAGap(t *testing.T) {
	type lists struct{ local, remote, into, past []netip.Prefix }
	flags := func(l lists, a netip.Addr) steerPrefixFlag {
		return naiveFlags(l.local, l.remote, a) | naiveRouted(l.into, l.past, a)
	}
	const asked = flagLocal | flagRemote | flagNamed | flagRouted
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		random := func() lists {
			return lists{randomPrefixes(r, r.IntN(5)), randomPrefixes(r, r.IntN(5)), randomPrefixes(r, r.IntN(6)), randomPrefixes(r, r.IntN(6))}
		}
		want := func(l lists) map[netip.Prefix]steerPrefixFlag {
			policies, err := unionFlags(l.local, l.remote, nil)
			check(t, err)
			return withRouted(policies, routedFlags(l.into, l.past))
		}
		before, after := random(), random()
		have, wanted := want(before), want(after)
		sample := make([]netip.Addr, 60)
		for i := range sample {
			sample[i] = randomAddr(r)
			if got, naive := trieFlags(have, sample[i])&asked, flags(before, sample[i]); got != naive {
				t.Fatalf("seed %d: %v has flags %b, want %b", seed, sample[i], got, naive)
			}
		}
		if steps := prefixSteps(have, have); len(steps) != 0 {
			t.Fatalf("seed %d: steps of no change: %v", seed, steps)
		}
		for i, step := range prefixSteps(have, wanted) {
			if have[step.prefix] = step.flags; step.flags == 0 {
				delete(have, step.prefix)
			}
			for _, a := range sample {
				least := flags(before, a) & flags(after, a)
				if got := trieFlags(have, a); got&least != least {
					t.Fatalf("seed %d, step %d: %v has flags %b, needs %b", seed, i, a, got, least)
				}
			}
		}
		for _, a := range sample {
			if got, naive := trieFlags(have, a)&asked, flags(after, a); got != naive {
				t.Fatalf("seed %d: %v has flags %b in the end, want %b", seed, a, got, naive)
			}
		}
	}
}

// TestKernelTrieAnswersLikeTheList checks keys and byte order against the kernel itself.
func TestKernelTrieAnswersLikeTheList(t *testing.T) {
	s := load(t)
	r := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		local, remote := randomPrefixes(r, 12), randomPrefixes(r, 12)
		check(t, s.SetPrefixes(local, remote, nil))
		for range 60 {
			a := randomAddr(r)
			m, key := s.prefixKey(netip.PrefixFrom(a, a.BitLen()))
			var got steerPrefixFlag
			check(t, ignoreMissing(m.Lookup(key, &got)))
			if want := naiveFlags(local, remote, a); got != want {
				t.Fatalf("%v: flags %b, want %b (local %v, remote %v)", a, got, want, local, remote)
			}
		}
	}
}

func BenchmarkSetPrefixes(b *testing.B) {
	s := load(b)
	var remote []netip.Prefix
	for i := range 10000 {
		remote = append(remote, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i&1), byte(i >> 1), byte(i >> 9 << 3)}), 29))
	}
	for b.Loop() {
		check(b, s.SetPrefixes(nil, remote, nil))
		check(b, s.SetPrefixes(nil, nil, nil))
	}
}
