package sad

import (
	"fmt"
	"slices"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// Filter says which inner packets of one direction pass, without memory of others: the first rule that matches decides. It is immutable and
// compiled once for all associations that it holds for. The zero value lets all pass.
type Filter struct {
	table *spd.Table
	rules []spd.Policy
	deny  bool
}

// NewFilter compiles rules in their order; Bypass lets a packet pass, Discard drops it. With deny, what none matches is dropped. It is an
// error if two rules say the opposite of the same packets.
func NewFilter(rules []spd.Policy, deny bool) (*Filter, error) {
	table, err := spd.Build(rules)
	if err != nil {
		return nil, err
	}
	return &Filter{table, slices.Clone(rules), deny}, nil
}

// Rules are what the filter was compiled of, and not to be changed. Deny says that what none of them matches is dropped.
func (f *Filter) Rules() []spd.Policy { return f.rules }
func (f *Filter) Deny() bool          { return f.deny }

// String says in words what the filter is.
func (f *Filter) String() string {
	word := "allow"
	if f.deny {
		word = "deny"
	}
	return fmt.Sprintf("filter of %d rules, else %s", len(f.rules), word)
}

// Limit bounds the rate of one direction; 0 is no bound.
type Limit struct {
	Packets, Bytes uint64 // a second; bytes of inner IP datagrams
	// Burst is how long the rate may be saved up.
	Burst time.Duration
}

// LimitMax bounds a rate, and BurstMin and BurstMax what may be saved up of it.
const (
	LimitMax = 1 << 40
	BurstMin = time.Millisecond
	BurstMax = 10 * time.Second
)

func (l *Limit) check() error {
	switch {
	case *l == Limit{}:
		return nil
	case l.Packets > LimitMax || l.Bytes > LimitMax:
		return fmt.Errorf("rate limit of %d packets and %d bytes a second; at most %d", l.Packets, l.Bytes, uint64(LimitMax))
	case l.Burst < BurstMin || l.Burst > BurstMax:
		return fmt.Errorf("rate limit with a burst of %v; %v to %v", l.Burst, BurstMin, BurstMax)
	}
	return nil
}

// Terms are what the packets of an association are subject to beside its key, window and selectors. Few associations have any, so
// they lie beside the arena. They belong to the association's owner; the counters may be read by anyone.
type Terms struct {
	hard           Lifetime // its hard bounds
	filter         *spd.Table
	deny           bool
	packets, bytes bucket
	// Filtered, Limited and Ended count what was dropped.
	Filtered, Limited, Ended packet.Counter
}

// bytesBurstMin is what a bucket of bytes holds at least: any packet that can be.
const bytesBurstMin = 65535

// terms is what p asks for; nil if that is nothing.
func (p *Params) terms() *Terms {
	t := &Terms{hard: Lifetime{HardBytes: p.Lifetime.HardBytes, HardPackets: p.Lifetime.HardPackets}}
	if t.hard == (Lifetime{}) && !p.guarded() {
		return nil
	}
	if p.Filter != nil {
		t.filter, t.deny = p.Filter.table, p.Filter.deny
	}
	t.packets = newBucket(p.Limit.Packets, p.Limit.Burst, 1)
	t.bytes = newBucket(p.Limit.Bytes, p.Limit.Burst, bytesBurstMin)
	return t
}

// guarded says that each packet has to be held against a filter or a limit.
func (p *Params) guarded() bool { return p.Filter != nil || p.Limit != Limit{} }

// Over says that these counts have reached a hard bound.
func (t *Terms) Over(bytes, packets uint64) bool {
	return t != nil && (t.hard.HardBytes != 0 && bytes >= t.hard.HardBytes || t.hard.HardPackets != 0 && packets >= t.hard.HardPackets)
}

// Judge holds a packet of so many bytes against the filter and then the rate. now is the time of its batch on the workers' clock.
func (t *Terms) Judge(f *packet.Flow, inbound bool, bytes int, now int64) packet.Drop {
	if t.filter != nil {
		var index uint32
		var match spd.Match
		if inbound {
			index, match = t.filter.Inbound(f)
		} else {
			index, match = t.filter.Outbound(f)
		}
		switch {
		case match == spd.NeedsPorts:
			return packet.DropFragmentNoPorts
		case match == spd.Matched && t.filter.Policy(index).Action == spd.Discard, match == spd.NoMatch && t.deny:
			t.Filtered.Add(1)
			return packet.DropFiltered
		}
	}
	t.packets.fill(now)
	t.bytes.fill(now)
	if !t.packets.has(1) || !t.bytes.has(uint64(bytes)) {
		t.Limited.Add(1)
		return packet.DropRateLimited
	}
	t.packets.take(1)
	t.bytes.take(uint64(bytes))
	return packet.DropNone
}

// bucket is a token bucket, in millionths of a token. Its clock is that of the batches.
type bucket struct {
	rate   uint64 // tokens a second; 0: no bound
	most   uint64 // millionths that it holds
	credit uint64 // millionths in it
	at     int64  // the workers' clock when it was last filled, nanoseconds; 0: never
}

// newBucket returns a full bucket for what a rate gives in a burst, but at least for least tokens.
func newBucket(rate uint64, burst time.Duration, least uint64) bucket {
	most := max(rate*uint64(burst/time.Microsecond), least*1e6)
	return bucket{rate: rate, most: most, credit: most}
}

// fill adds what the rate gave since the last time.
func (b *bucket) fill(now int64) {
	if b.rate == 0 || now-b.at < int64(time.Microsecond) {
		return
	}
	passed := uint64(now-b.at) / uint64(time.Microsecond)
	if room := b.most - b.credit; b.at == 0 || passed > room/b.rate {
		b.credit, b.at = b.most, now
		return
	}
	b.credit += passed * b.rate
	b.at += int64(passed) * int64(time.Microsecond) // the rest of a microsecond counts the next time
}

func (b *bucket) has(tokens uint64) bool { return b.rate == 0 || b.credit >= tokens*1e6 }

func (b *bucket) take(tokens uint64) {
	if b.rate != 0 {
		b.credit -= tokens * 1e6
	}
}

// InboundTerms and OutboundTerms return the terms of an association in a slot that was looked up; nil if it has none.
func (t *Table) InboundTerms(slot uint32) *Terms  { return t.terms[in][slot] }
func (t *Table) OutboundTerms(slot uint32) *Terms { return t.terms[out][slot] }
