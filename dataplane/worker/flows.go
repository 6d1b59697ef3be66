package worker

import (
	"math/bits"
	"math/rand/v2"

	"sallyport/dataplane/offheap"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// flows remembers what the tables say of the flows that this worker saw last, one cache line each: to find a flow again
// takes less than to ask even a small policy database, and a large one or a large routing table reads a dozen lines, one
// after the other. A place has room for two flows; a third takes that of the first. What is remembered is never older than
// the snapshot in use: an entry of an earlier one is not valid.
type flows struct {
	places  []flowPlace
	mapping offheap.Mapping
	shift   uint
	seed    [4]uint64

	policies   *spd.Table // that generation stands for, with endpoints: what goes to one of them meets no policy
	endpoints  *AddrSet
	generation uint32
	// many says that there may be more flows than the caches hold, so that asking for an entry before it is read pays.
	many bool
}

type flowPlace [2]flowEntry

// flowEntry is what the tables say of a flow; one cache line.
type flowEntry struct {
	flow       packet.Flow
	generation uint32 // of the policies; 0: the entry is empty
	tunnel     uint32 // of a Protect policy
	// hop is the flow's next hop in the FIB snapshot hopGeneration; 0: not looked up.
	hop, hopGeneration uint32
	// handle is that of the outbound association which the tunnel was bound to when it was last asked for, 0 for none: see sad.Table.Current.
	handle uint32
	match  spd.Match
	action spd.Action
	_      [2]byte
}

// Sizes of the table: about two places for each association, in whole powers of two.
const (
	placesMin = 1 << 10
	placesMax = 1 << 21
)

func newFlows(associations int) (*flows, error) {
	n := 1 << bits.Len(uint(min(max(2*associations, placesMin), placesMax)-1))
	f := &flows{shift: uint(64 - bits.Len(uint(n-1)))}
	for i := range f.seed {
		f.seed[i] = rand.Uint64()
	}
	var err error
	f.places, f.mapping, err = offheap.New[flowPlace](n)
	return f, err
}

// close gives the memory back. The worker must have stopped.
func (f *flows) close() {
	f.mapping.Release()
	f.places, f.mapping = nil, nil
}

// follow makes the tables of a snapshot those that entries are valid for.
func (f *flows) follow(t *Tables) {
	f.many = t.SPD.Indexed()
	if f.policies != t.SPD || f.endpoints != t.Endpoints {
		f.policies, f.endpoints = t.SPD, t.Endpoints
		if f.generation++; f.generation == 0 {
			clear(f.places)
			f.generation = 1
		}
	}
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
	return uint32((hi ^ lo) >> f.shift)
}

// place4 is place for IPv4 addresses and the rest of a flow.
func (f *flows) place4(src, dst, rest uint64) uint32 {
	hi, lo := bits.Mul64((src<<32|dst)^f.seed[0], rest^f.seed[1])
	return uint32((hi ^ lo) >> f.shift)
}

// same compares two flows word by word.
func same(a, b *packet.Flow) bool {
	return a.Src.Lo == b.Src.Lo && a.Dst.Lo == b.Dst.Lo && a.Rest() == b.Rest() && a.Src.Hi == b.Src.Hi && a.Dst.Hi == b.Dst.Hi
}

// find returns the entry of a flow, nil if it is not at its place.
func (f *flows) find(place uint32, flow *packet.Flow) *flowEntry {
	p := &f.places[place]
	if same(&p[0].flow, flow) {
		return &p[0]
	}
	if same(&p[1].flow, flow) {
		return &p[1]
	}
	return nil
}

// policy returns the entry of a flow, whose place is given, with what the policies say of it. It is good until the next call.
func (f *flows) policy(place uint32, flow *packet.Flow) *flowEntry {
	e := f.find(place, flow)
	if e == nil {
		p := &f.places[place]
		p[1] = p[0]
		e = &p[0]
		*e = flowEntry{flow: *flow}
	}
	if e.generation != f.generation {
		f.judge(e, flow)
	}
	return e
}

// judge asks the policies about a flow.
func (f *flows) judge(e *flowEntry, flow *packet.Flow) {
	e.generation = f.generation
	index, match := f.policies.Outbound(flow)
	if e.match = match; match != spd.NoMatch {
		p := f.policies.Policy(index)
		e.action, e.tunnel, e.handle = p.Action, p.Tunnel, 0
	}
}
