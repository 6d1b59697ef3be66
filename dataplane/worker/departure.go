package worker

import (
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// departure is the way of packets to one next hop into the queue of this worker that leads there. The assembly knows its layout.
type departure struct {
	b *packet.Batch
	// list are the packets, of which the first is for the hop and seated, see forward.Seat.
	list []uint8
	// descs and sealed are the places in the queue that are free, at least one.
	descs  []packet.Desc
	sealed []bool
	link   forward.Link
	hop    uint32
	port   uint16
	flags  packet.Flags
}

// stageGeneric gives the packets their flags and their link headers, and puts them in line, as far as they are for the hop, are
// seated, and find a place. It returns how many they are.
func (r *departure) stageGeneric() (n int) {
	for _, i := range r.list {
		p := &r.b.P[i]
		if p.Hop != r.hop || p.L3 != packet.EtherLen || p.Len != p.End || n >= len(r.descs) || n >= len(r.sealed) {
			break
		}
		r.link.Put((*[packet.EtherLen]byte)(r.b.Mem[p.Addr:]), p.Version)
		p.Flags |= r.flags
		p.Port = r.port
		r.descs[n] = packet.Desc{Addr: p.Addr, Len: uint32(p.Len)}
		r.sealed[n] = p.Flags&packet.FlagSealed != 0
		n++
	}
	return n
}
