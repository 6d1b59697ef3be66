package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

const (
	flagLocal  = steerPrefixFlagPREFIX_LOCAL
	flagRemote = steerPrefixFlagPREFIX_REMOTE
	flagNamed  = steerPrefixFlagPREFIX_NAMED
	flagPeer   = steerPrefixFlagPREFIX_PEER
	flagRouted = steerPrefixFlagPREFIX_ROUTED
	flagPast   = steerPrefixFlagPREFIX_PAST
)

// special are the ranges that no tunnel carries unless a policy names a prefix inside them.
var special = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fe80::/10"),
}

// SetPrefixes makes local and remote the whole set of protected prefixes: the
// union of the protect policies' local and remote selectors. Peers, which are in remote too, are the remote addresses of
// transport mode: what they send to an endpoint in the clear is for the workers to judge. The change is made
// entry by entry in an order in which no packet is judged by less than both
// the old and the new set protect. If there is no room for the prefixes, or for those of both sets at once, the error wraps
// [ErrNoRoom] and nothing has changed.
func (s *Steering) SetPrefixes(local, remote, peers []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	policies, err := unionFlags(local, remote, peers)
	if err != nil {
		return err
	}
	return s.setFlags(&s.policies, policies)
}

// setFlags makes what is wanted by policies, or by routes, something else.
func (s *Steering) setFlags(of *map[netip.Prefix]steerPrefixFlag, to map[netip.Prefix]steerPrefixFlag) error {
	before := *of
	*of = to
	err := s.syncPrefixes()
	if errors.Is(err, ErrNoRoom) {
		*of = before
	}
	return err
}

// CheckPrefixes says whether SetPrefixes has room for these.
func (s *Steering) CheckPrefixes(local, remote, peers []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := uint32(len(local) + len(remote) + len(peers) + len(s.prefixes) + len(s.routed))
	if all <= min(s.objs.Prefixes4.MaxEntries(), s.objs.Prefixes6.MaxEntries()) {
		return nil
	}
	policies, err := unionFlags(local, remote, peers)
	if err != nil {
		return err
	}
	return s.prefixRoom(withRouted(policies, s.routed))
}

// prefixRoom says whether there is room for prefixes beside those that they take the place of.
func (s *Steering) prefixRoom(want map[netip.Prefix]steerPrefixFlag) error {
	var v4, v6 int
	for p := range want {
		count(p.Addr(), &v4, &v6)
	}
	if err := room("protected prefixes", v4, v6, s.objs.Prefixes4, s.objs.Prefixes6); err != nil {
		return err
	}
	for p := range s.prefixes {
		if _, stays := want[p]; !stays {
			count(p.Addr(), &v4, &v6)
		}
	}
	return room("protected prefixes, of before and after the change", v4, v6, s.objs.Prefixes4, s.objs.Prefixes6)
}

// SetRouted makes into the whole set of prefixes that routes lead into virtual interfaces, but for those more special ones
// in past, which lead elsewhere; of both the longest that holds an address counts. What goes there is protected, whoever sends it.
// The change is made as that of SetPrefixes is.
func (s *Steering) SetRouted(into, past []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setFlags(&s.routed, routedFlags(into, past))
}

func routedFlags(into, past []netip.Prefix) map[netip.Prefix]steerPrefixFlag {
	routed := make(map[netip.Prefix]steerPrefixFlag, len(into)+len(past))
	for _, p := range into {
		routed[p.Masked()] = flagRouted
	}
	for _, p := range past {
		routed[p.Masked()] = flagPast
	}
	return routed
}

// withRouted returns the flags by policies, and by routes, of the prefixes of both.
func withRouted(policies, routed map[netip.Prefix]steerPrefixFlag) map[netip.Prefix]steerPrefixFlag {
	if len(routed) == 0 {
		return policies
	}
	longest := func(set map[netip.Prefix]steerPrefixFlag, p netip.Prefix) steerPrefixFlag {
		if f, ok := set[p]; ok {
			return f
		}
		if up, ok := covering(set, p); ok {
			return set[up]
		}
		return 0
	}
	both := make(map[netip.Prefix]steerPrefixFlag, len(policies)+len(routed))
	for p, f := range policies {
		both[p] = f | longest(routed, p)
	}
	for p, f := range routed {
		both[p] = f | longest(policies, p)
	}
	return both
}

// syncPrefixes brings the prefix maps to what is wanted. s.prefixes follows every single map operation, so that a failed call can
// be repeated.
func (s *Steering) syncPrefixes() (err error) {
	defer func() { err = errors.Join(err, s.changed()) }()
	want := withRouted(s.policies, s.routed)
	if err := s.prefixRoom(want); err != nil {
		return err
	}
	for _, step := range prefixSteps(s.prefixes, want) {
		m, key := s.prefixKey(step.prefix)
		if step.flags == 0 {
			if err := ignoreMissing(m.Delete(key)); err != nil {
				return fmt.Errorf("removing prefix %v from the steering program: %w", step.prefix, err)
			}
			delete(s.prefixes, step.prefix)
			continue
		}
		if err := m.Put(key, step.flags); err != nil {
			return fmt.Errorf("adding prefix %v to the steering program: %w", step.prefix, err)
		}
		s.prefixes[step.prefix] = step.flags
	}
	return nil
}

// unionFlags gives every prefix the flags of all prefixes that cover it, itself
// included: a trie look-up sees the longest match only.
func unionFlags(local, remote, peers []netip.Prefix) (map[netip.Prefix]steerPrefixFlag, error) {
	set := make(map[netip.Prefix]steerPrefixFlag, len(local)+len(remote))
	add := func(prefixes []netip.Prefix, flag steerPrefixFlag) error {
		for _, p := range prefixes {
			if !p.IsValid() || p.Addr().Is4In6() {
				return fmt.Errorf("protected prefix %v is not valid", p)
			}
			set[p.Masked()] |= flag | namedFlag(p)
		}
		return nil
	}
	if err := add(local, flagLocal); err != nil {
		return nil, err
	}
	if err := add(remote, flagRemote); err != nil {
		return nil, err
	}
	if err := add(peers, flagPeer); err != nil {
		return nil, err
	}
	inheritFlags(set)
	return set, nil
}

// inheritFlags spreads flags from each prefix of the set to those inside it, but not that of a route to what more special routes
// lead past.
func inheritFlags(set map[netip.Prefix]steerPrefixFlag) {
	for _, p := range byLength(set) { // shorter first: one step up is enough
		if up, ok := covering(set, p); ok {
			f := set[up] &^ flagPast
			if set[p]&flagPast != 0 {
				f &^= flagRouted
			}
			set[p] |= f
		}
	}
}

// covering returns the longest prefix of the set that is shorter than p and covers it.
func covering(set map[netip.Prefix]steerPrefixFlag, p netip.Prefix) (netip.Prefix, bool) {
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		up, _ := p.Addr().Prefix(bits)
		if _, ok := set[up]; ok {
			return up, true
		}
	}
	return netip.Prefix{}, false
}

func namedFlag(p netip.Prefix) steerPrefixFlag {
	for _, range_ := range special {
		if p.Bits() >= range_.Bits() && range_.Contains(p.Addr()) {
			return flagNamed
		}
	}
	return 0
}

// prefixStep is one map operation: flags 0 deletes.
type prefixStep struct {
	prefix netip.Prefix
	flags  steerPrefixFlag
}

// prefixSteps returns the operations that lead from the stored set to the
// wanted one. At every moment each address has at least the flags that it has
// both before and after:
//
//  1. Every entry of either set gets what it has in the one or the other,
//     inherited. A new entry hides the shorter ones, and so it holds their flags; an
//     entry about to go holds what will cover its addresses then.
//  2. Vanished entries are deleted, longest first.
//  3. Entries that hold more than wanted get their final flags.
func prefixSteps(have, want map[netip.Prefix]steerPrefixFlag) []prefixStep {
	both := make(map[netip.Prefix]steerPrefixFlag, len(have)+len(want))
	for p, f := range have {
		both[p] |= f &^ flagPast // what vanishes keeps no route out of what will cover it
	}
	for p, f := range want {
		both[p] |= f
	}
	inheritFlags(both)
	for p, f := range both {
		if f == 0 {
			both[p] = flagPast
		}
	}
	order := byLength(both)
	slices.Reverse(order)

	var steps []prefixStep
	for _, p := range order {
		if both[p] != have[p] {
			steps = append(steps, prefixStep{p, both[p]})
		}
	}
	for _, p := range order {
		if want[p] == 0 {
			steps = append(steps, prefixStep{p, 0})
		}
	}
	for _, p := range order {
		if want[p] != 0 && both[p] != want[p] {
			steps = append(steps, prefixStep{p, want[p]})
		}
	}
	return steps
}

// byLength returns the prefixes of a set, shorter first.
func byLength(set map[netip.Prefix]steerPrefixFlag) []netip.Prefix {
	order := make([]netip.Prefix, 0, len(set))
	for p := range set {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b netip.Prefix) int {
		if c := cmp.Compare(a.Bits(), b.Bits()); c != 0 {
			return c
		}
		return a.Addr().Compare(b.Addr())
	})
	return order
}

// prefixKey returns the map and key of a prefix: the length in host order (the
// program's target is little-endian), then the address in network order.
func (s *Steering) prefixKey(p netip.Prefix) (*ebpf.Map, []byte) {
	key := binary.LittleEndian.AppendUint32(nil, uint32(p.Bits()))
	key = append(key, p.Addr().AsSlice()...)
	if p.Addr().Is4() {
		return s.objs.Prefixes4, key
	}
	return s.objs.Prefixes6, key
}
