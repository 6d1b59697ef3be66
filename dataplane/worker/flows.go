package worker

import (
	"math/bits"
	"math/rand/v2"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/offheap"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// flows remembers what the tables say of the flows that this worker saw last: to find a flow again takes less than to ask even a small
// policy database, and a large one or a large routing table reads a dozen lines, one after the other. IPv4 and IPv6 have
// places of their own, two cache lines each: a place has room for four flows of IPv4 or two of IPv6, and one more takes that of another. What is
// remembered is never older than the snapshot in use: an entry of an earlier one is not valid.
type flows struct {
	places   []flowPlace4
	places6  []flowPlace6
	mappings [2]offheap.Mapping
	shift    uint
	seed     [4]uint64
	evict    uint32 // counts the flows that took the place of another

	// leads says that there may be entries that are led, by these routes and interfaces.
	leads      bool
	routes     *fib.Table
	interfaces *Interface

	policies   *spd.Table // that generation stands for, with endpoints: what goes to one of them meets no policy
	endpoints  *AddrSet
	generation uint32
	// judged counts the flows that the policies were asked about since generation changed. many says that these may be more than the caches
	// hold, so that asking for an entry before it is read pays: it costs a packet some 7 ns. Flows that have ended since count as well: to
	// know which live, entries would have to be marked when they are read, or flows of batches be sampled, which the packets of all would pay for.
	// So with many policies and short flows the 7 ns are paid though few flows live, until the policies change.
	judged int
	many   bool
	_      [packet.Apart]byte
}

type (
	flowPlace4 [4]flowEntry4
	flowPlace6 [2]flowEntry6
)

// placeLines is how many cache lines a place takes.
const placeLines = 2

// flowEntry4 is a flow of IPv4 and what the tables say of it; half a cache line.
type flowEntry4 struct {
	rest  uint64 // packet.Flow.Rest; 0: the entry is empty
	addrs uint64 // source<<32 | destination
	known
}

// flowEntry6 is the same of a flow of IPv6; one cache line.
type flowEntry6 struct {
	flow packet.Flow
	known
	_ [8]byte
}

// known is what the tables say of a flow.
type known struct {
	generation uint32 // of the policies; 0: they were not asked
	match      spd.Match
	action     spd.Action
	// led says that no policy speaks of the flow, but that its route leads into a virtual interface whose policies protect it: so
	// it looks like one that a policy protects, for the short way alone, see flows.lead.
	led bool
	_   [1]byte
	// way and of say where the flow goes. If a policy protects it, way is the tunnel, and of the handle of the outbound association which that was
	// bound to when it was last asked for, 0 for none: see sad.Table.Current. Otherwise way is its next hop in
	// the FIB snapshot of, 0 for none.
	way, of uint32
}

// protects says that the flow goes into a tunnel.
func (k *known) protects() bool { return k.match == spd.Matched && k.action == spd.Protect }

// Sizes of the tables: about two places for each association, in whole powers of two.
const (
	placesMin = 1 << 10
	placesMax = 1 << 21
)

func newFlows(associations int) (f *flows, err error) {
	n := 1 << bits.Len(uint(min(max(2*associations, placesMin), placesMax)-1))
	f = &flows{shift: uint(64 - bits.Len(uint(n-1)))}
	for i := range f.seed {
		f.seed[i] = rand.Uint64()
	}
	// Of a family that is not there nothing is touched, and no memory used.
	if f.places, f.mappings[0], err = offheap.New[flowPlace4](n); err != nil {
		return nil, err
	}
	if f.places6, f.mappings[1], err = offheap.New[flowPlace6](n); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// close gives the memory back. The worker must have stopped.
func (f *flows) close() {
	f.mappings[0].Release()
	f.mappings[1].Release()
	f.places, f.places6, f.mappings = nil, nil, [2]offheap.Mapping{}
}

// manyFlows is how many flows are many: of a core's second-level cache their lines take an eighth then.
const manyFlows = 2048

// follow makes the tables of a snapshot those that entries are valid for.
func (f *flows) follow(t *Tables) {
	if f.policies != t.SPD || f.endpoints != t.Endpoints || f.leads && (f.routes != t.FIB || f.interfaces != t.firstInterface()) {
		f.policies, f.endpoints, f.leads = t.SPD, t.Endpoints, false
		if f.generation++; f.generation == 0 {
			clear(f.places)
			clear(f.places6)
			f.generation = 1
		}
		f.judged = 0
	}
	f.many = t.SPD.Indexed() && f.judged >= manyFlows
}

// place returns the index of the place for a flow. Its bits depend on a seed, so nobody
// outside can choose flows that share one.
func (f *flows) place(flow *packet.Flow) uint32 {
	if flow.Version == 4 {
		return f.place4(flow.Src.Lo, flow.Dst.Lo, flow.Rest())
	}
	hi, lo := bits.Mul64(flow.Src.Lo^f.seed[0], flow.Dst.Lo^f.seed[1])
	h := hi ^ lo
	hi, lo = bits.Mul64(h^flow.Src.Hi^f.seed[2], bits.RotateLeft64(flow.Dst.Hi, 32)^flow.Rest()^f.seed[3])
	return uint32((hi ^ lo) >> (f.shift & 63))
}

// place4 is place for IPv4 addresses and the rest of a flow.
func (f *flows) place4(src, dst, rest uint64) uint32 {
	hi, lo := bits.Mul64((src<<32|dst)^f.seed[0], rest^f.seed[1])
	return uint32((hi ^ lo) >> (f.shift & 63))
}

// same compares two flows word by word.
func same(a, b *packet.Flow) bool {
	return a.Src.Lo == b.Src.Lo && a.Dst.Lo == b.Dst.Lo && a.Rest() == b.Rest() && a.Src.Hi == b.Src.Hi && a.Dst.Hi == b.Dst.Hi
}

// find4 returns what is remembered of the flow of IPv4 between addrs, as they stand in an entry, nil if it is not at its place.
func (f *flows) find4(place uint32, addrs, rest uint64) *known {
	if e := f.places[place].find(addrs, rest); e != nil {
		return &e.known
	}
	return nil
}

// find returns the entry of a flow, nil if it has none.
func (p *flowPlace4) find(addrs, rest uint64) *flowEntry4 {
	for k := range p {
		if p[k].addrs == addrs && p[k].rest == rest {
			return &p[k]
		}
	}
	return nil
}

// find returns what is remembered of a flow, nil if it is not at its place.
func (f *flows) find(place uint32, flow *packet.Flow) *known {
	if flow.Version == 4 {
		return f.find4(place, flow.Src.Lo<<32|flow.Dst.Lo, flow.Rest())
	}
	return f.find6(place, flow)
}

// find6 is find for a flow of IPv6.
func (f *flows) find6(place uint32, flow *packet.Flow) *known {
	p := &f.places6[place]
	for k := range p {
		if same(&p[k].flow, flow) {
			return &p[k].known
		}
	}
	return nil
}

// policy returns what the policies say of a flow, whose place is given. It is good until the next call.
func (f *flows) policy(place uint32, flow *packet.Flow) *known {
	k := f.find(place, flow)
	if k == nil {
		k = f.enter(place, flow)
	}
	if k.generation != f.generation || k.led {
		f.judge(k, flow)
	}
	return k
}

// lead remembers that the route of a flow, whose place is given and which no policy speaks of, leads to the outbound association with a handle, to which a tunnel is
// bound. Whether the flow may go there at all must not depend on the port that it comes by. It holds until the policies, the routes or the interfaces change.
func (f *flows) lead(t *Tables, place uint32, flow *packet.Flow, tunnel, handle uint32) {
	if k := f.find(place, flow); k != nil {
		*k = known{generation: f.generation, match: spd.Matched, action: spd.Protect, led: true, way: tunnel, of: handle}
		f.leads, f.routes, f.interfaces = true, t.FIB, t.firstInterface()
	}
}

// enter gives a flow an entry of which nothing is known yet: one that is empty or no longer valid, or that of another.
func (f *flows) enter(place uint32, flow *packet.Flow) *known {
	f.evict++
	if flow.Version == 4 {
		p := &f.places[place]
		e := &p[f.evict%uint32(len(p))]
		for k := range p {
			if p[k].generation != f.generation {
				e = &p[k]
				break
			}
		}
		*e = flowEntry4{rest: flow.Rest(), addrs: flow.Src.Lo<<32 | flow.Dst.Lo}
		return &e.known
	}
	p := &f.places6[place]
	e := &p[f.evict%uint32(len(p))]
	for k := range p {
		if p[k].generation != f.generation {
			e = &p[k]
			break
		}
	}
	*e = flowEntry6{flow: *flow}
	return &e.known
}

// judge asks the policies about a flow.
func (f *flows) judge(k *known, flow *packet.Flow) {
	f.judged++
	index, match := f.policies.Outbound(flow)
	*k = known{generation: f.generation, match: match}
	if match != spd.NoMatch {
		p := f.policies.Policy(index)
		k.action = p.Action
		if k.protects() {
			k.way = p.Tunnel
		}
	}
}
