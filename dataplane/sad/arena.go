package sad

import (
	"sync/atomic"

	"sallyport/dataplane/transform"
)

// OutboundArena returns the slots of outbound associations, and the bits of a handle that are the slot. It is for the short ways of packets, some of them
// in assembly, that find an association by a handle which they remember: see [Outbound.Serves].
func (t *Table) OutboundArena() (slots []Outbound, mask uint32) { return t.outbound, t.mask }

// OutboundKeys returns the keys of outbound associations, by slot.
func (t *Table) OutboundKeys() []transform.Key { return t.keys[out] }

// Serves says that o is the association with a handle, and the one that tunnel is bound to.
func (o *Outbound) Serves(tunnel, handle uint32) bool {
	return handle != 0 && atomic.LoadUint32(&o.live) == handle && atomic.LoadUint32(&o.bound) == tunnel+1
}
