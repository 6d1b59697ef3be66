package ipfrag

import (
	"math/rand/v2"

	"sallyport/dataplane/packet"
)

// portsSets is the number of sets of a [Ports], each with two places.
const portsSets = 512

// Ports remembers the ports of first fragments for later ones, which have none, so that selectors judge all fragments of a
// datagram alike (RFC 4301, 7: stateful checking). A datagram is remembered for [Timeout]; a newcomer takes the place of the older
// one of two.
type Ports struct {
	seed  uint64
	sets  [portsSets][2]first
	Known int // how many were remembered, ever: while it is 0 nothing can be found
}

// first is what a first fragment said.
type first struct {
	key
	spi      uint32 // of the inbound association that it came out of; 0: of none
	until    int64
	src, dst uint16
	proto    uint8
	end      uint16 // of its data
}

// NewPorts returns an empty one.
func NewPorts() *Ports { return &Ports{seed: rand.Uint64()} }

// Remember takes the ports of a first fragment: record p, flow f, IP datagram h. spi is that of the inbound association
// through which it came, 0 for none.
func (t *Ports) Remember(p *packet.Packet, f *packet.Flow, h []byte, spi uint32, now int64) {
	g, ok := fragmentOf(p, h)
	if !ok || g.offset != 0 || f.Flags&packet.FlagPorts == 0 {
		return
	}
	k := keyOf(f, &g)
	set := &t.sets[(k.hash(t.seed)^uint64(spi))%portsSets]
	e := &set[0]
	if !e.is(&k, spi) && (set[1].is(&k, spi) || set[1].until < e.until) {
		e = &set[1]
	}
	*e = first{key: k, spi: spi, until: now + Timeout, src: f.SrcPort, dst: f.DstPort, proto: f.Proto, end: uint16(g.length)}
	t.Known++
}

func (e *first) is(k *key, spi uint32) bool { return e.key == *k && e.spi == spi }

// Inherit gives the flow f of a later fragment protocol and ports of its first one, and says whether that was seen, through the same
// association. A fragment that reaches into the first one is refused: it could change what was judged (RFC 3128).
func (t *Ports) Inherit(p *packet.Packet, f *packet.Flow, h []byte, spi uint32, now int64) bool {
	if t.Known == 0 {
		return false
	}
	g, ok := fragmentOf(p, h)
	if !ok {
		return false
	}
	k := keyOf(f, &g)
	set := &t.sets[(k.hash(t.seed)^uint64(spi))%portsSets]
	for i := range set {
		if e := &set[i]; e.is(&k, spi) && now < e.until && g.offset >= int(e.end) {
			f.SrcPort, f.DstPort, f.Proto = e.src, e.dst, e.proto
			f.Flags = f.Flags&^packet.FlagLaterFragment | packet.FlagPorts
			return true
		}
	}
	return false
}
