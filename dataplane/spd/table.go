package spd

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"sallyport/dataplane/packet"
)

const (
	// scanMax is up to how many clauses a list is simply scanned, and not indexed further.
	scanMax = 8
	// splitMax is into how many prefixes a range is split for the index. One that takes more
	// is entered under the one prefix that holds it; clauses are compared exactly in any case.
	splitMax = 16
)

// Table is the database, compiled. Immutable; any number of workers read it.
type Table struct {
	policies []Policy
	clauses  []clause // in the order of the policies
	index    *node    // nil if the clauses are few enough to scan
	local    []netip.Prefix
	remote   []netip.Prefix
	peers    []netip.Prefix
	peerSet  bart.Lite
}

// node is a set of clauses, by index in ascending order, and if it is large,
// beside them an index by one of the addresses.
type node struct {
	// parent is the node of the next shorter prefix in the same index, whose clauses hold
	// for the addresses of this one as well.
	parent  *node
	clauses []uint32
	by      *bart.Table[*node] // by local address below an index by remote address
}

// Build compiles policies, the first of which has precedence. Errors name the
// policy. A policy whose selector is identical to that of an earlier one with
// another action is an error.
func Build(policies []Policy) (*Table, error) {
	t := &Table{policies: slices.Clone(policies)}
	var local, remote, peers []netip.Prefix
	for i := range t.policies {
		p := &t.policies[i]
		if p.Action > Discard {
			return nil, fmt.Errorf("policy %q: no such action", p.Name)
		}
		if len(p.Selectors) == 0 {
			return nil, fmt.Errorf("policy %q: no selectors", p.Name)
		}
		from := len(t.clauses)
		for j := range p.Selectors {
			var err error
			if t.clauses, err = appendClauses(t.clauses, &p.Selectors[j], uint32(i)); err != nil {
				return nil, fmt.Errorf("policy %q: selector %d: %w", p.Name, j+1, err)
			}
		}
		if p.Action != Bypass {
			for j := range t.clauses[from:] {
				c := &t.clauses[from+j]
				local = c.localRange().appendPrefixes(local)
				remote = c.remoteRange().appendPrefixes(remote)
				if p.Action == Protect && p.Transport {
					peers = c.remoteRange().appendPrefixes(peers)
				}
			}
		}
	}
	if err := t.contradiction(); err != nil {
		return nil, err
	}
	t.local, t.remote, t.peers = cover(local), cover(remote), cover(peers)
	for _, p := range t.peers {
		t.peerSet.Insert(p)
	}
	if len(t.clauses) > scanMax {
		all := make([]uint32, len(t.clauses))
		for i := range all {
			all[i] = uint32(i)
		}
		t.index = &node{by: t.indexBy(all, true)}
	}
	return t, nil
}

// contradiction finds two policies that say different things of the same packets.
func (t *Table) contradiction() error {
	seen := make(map[clause]uint32, len(t.clauses))
	for _, c := range t.clauses {
		policy := c.policy
		if t.policies[policy].Negotiated {
			continue
		}
		c.policy = 0
		earlier, ok := seen[c]
		if !ok {
			seen[c] = policy
			continue
		}
		if a, b := &t.policies[earlier], &t.policies[policy]; a.Action != b.Action {
			return fmt.Errorf("policy %q contradicts policy %q: %s and %s for the same selector, local %s remote %s",
				b.Name, a.Name, b.Action, a.Action, c.localRange(), c.remoteRange())
		}
	}
	return nil
}

// indexBy enters clauses by their remote or local address and links each prefix
// to the next shorter one. Long lists under one remote prefix get an index by local address.
func (t *Table) indexBy(clauses []uint32, remote bool) *bart.Table[*node] {
	by := new(bart.Table[*node])
	var prefixes []netip.Prefix
	for _, i := range clauses {
		r := t.clauses[i].localRange()
		if remote {
			r = t.clauses[i].remoteRange()
		}
		if prefixes = r.appendPrefixes(prefixes[:0]); len(prefixes) > splitMax {
			prefixes = append(prefixes[:0], commonPrefix(r.First, r.Last))
		}
		for _, p := range prefixes {
			n, ok := by.Get(p)
			if !ok {
				n = new(node)
				by.Insert(p, n)
			}
			n.clauses = append(n.clauses, i)
		}
	}
	type level struct {
		netip.Prefix
		*node
	}
	var way []level // the prefixes that hold the one in hand, shortest first
	for p, n := range by.AllSorted() {
		for len(way) > 0 && !way[len(way)-1].Overlaps(p) {
			way = way[:len(way)-1]
		}
		if len(way) > 0 {
			n.parent = way[len(way)-1].node
		}
		way = append(way, level{p, n})
		if remote && len(n.clauses) > scanMax {
			n.by = t.indexBy(n.clauses, false)
		}
	}
	return by
}

// Outbound finds the policy for a packet that leaves the protected side: its
// source is local (SPD-S and SPD-O). The index is valid unless the verdict is NoMatch.
// NeedsPorts comes with the index of the policy that would need them.
func (t *Table) Outbound(f *packet.Flow) (index uint32, verdict Match) {
	return t.find(f, outbound)
}

// Inbound finds the policy for a packet that comes from outside in the clear:
// its source is remote (SPD-I).
func (t *Table) Inbound(f *packet.Flow) (index uint32, verdict Match) {
	return t.find(f, inbound)
}

func (t *Table) find(f *packet.Flow, s side) (uint32, Match) {
	if t.index == nil {
		for i := range t.clauses {
			if m := t.clauses[i].match(f, s); m != NoMatch {
				return t.clauses[i].policy, m
			}
		}
		return 0, NoMatch
	}
	best, verdict := uint32(len(t.clauses)), NoMatch
	local, remote := f.SrcAddr(), f.DstAddr()
	if s == inbound {
		local, remote = remote, local
	}
	n, _ := t.index.by.Lookup(remote)
	for ; n != nil; n = n.parent {
		if n.by == nil {
			best, verdict = t.first(n.clauses, f, s, best, verdict)
			continue
		}
		for m, _ := n.by.Lookup(local); m != nil; m = m.parent {
			best, verdict = t.first(m.clauses, f, s, best, verdict)
		}
	}
	if verdict == NoMatch {
		return 0, NoMatch
	}
	return t.clauses[best].policy, verdict
}

// first returns the first clause of the list that matches, if it comes before best.
func (t *Table) first(list []uint32, f *packet.Flow, s side, best uint32, verdict Match) (uint32, Match) {
	for _, i := range list {
		if i >= best {
			break
		}
		if m := t.clauses[i].match(f, s); m != NoMatch {
			return i, m
		}
	}
	return best, verdict
}

// Policy returns a policy by the index that a look-up gave.
func (t *Table) Policy(index uint32) *Policy { return &t.policies[index] }

// Indexed says that the policies are too many to be simply looked through.
func (t *Table) Indexed() bool { return t.index != nil }

// Len returns the number of policies.
func (t *Table) Len() int { return len(t.policies) }

// Prefixes returns the fewest prefixes that hold exactly the local and the
// remote addresses of all protect and discard policies: what must not pass by the
// workers, for steering. The slices belong to the table.
func (t *Table) Prefixes() (local, remote []netip.Prefix) { return t.local, t.remote }

// Peers returns the fewest prefixes that hold exactly the remote addresses of the policies for transport mode. The slice belongs to the table.
func (t *Table) Peers() []netip.Prefix { return t.peers }

// IsPeer says whether a is a remote address of a policy for transport mode.
func (t *Table) IsPeer(a netip.Addr) bool { return len(t.peers) > 0 && t.peerSet.Contains(a) }
