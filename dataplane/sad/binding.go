package sad

import (
	"fmt"
	"sync/atomic"
)

const (
	bindingChunk = 4096
	// TunnelsMax bounds the tunnel numbers that can be bound.
	TunnelsMax = bindingChunk * bindingChunk
)

// bindings map tunnels to their current outbound association. Chunks are made
// when first bound and stay, so a reader never sees an old copy.
type bindings [bindingChunk]atomic.Pointer[[bindingChunk]atomic.Uint32]

// Bind makes the association with handle value outbound the one that tunnel's packets
// take; 0 takes it away.
func (t *Table) Bind(tunnel, outbound uint32) error {
	if tunnel >= TunnelsMax {
		return fmt.Errorf("bind tunnel %d: at most %d tunnels", tunnel, TunnelsMax)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.LookupOutbound(outbound); o != nil && o.Flags.Fixed().Outer() {
		return fmt.Errorf("bind tunnel %d: %w", tunnel, errHalf)
	}
	p := &t.bindings[tunnel/bindingChunk]
	if p.Load() == nil {
		p.Store(new([bindingChunk]atomic.Uint32))
	}
	b := &p.Load()[tunnel%bindingChunk]
	// An association never says that it is bound while the binding says otherwise.
	if o := t.LookupOutbound(b.Load()); o != nil && o.bound == tunnel+1 {
		atomic.StoreUint32(&o.bound, 0)
	}
	b.Store(outbound)
	if o := t.LookupOutbound(outbound); o != nil {
		atomic.StoreUint32(&o.bound, tunnel+1)
	}
	t.bound.Add(1)
	return nil
}

// Current returns the outbound association that tunnel is bound to, and its handle; the association is nil if it is gone, and the handle 0 if none is
// bound. known is the handle that was returned before, or 0: if it is still right, nothing but the association itself is read.
func (t *Table) Current(tunnel, known uint32) (o *Outbound, handle uint32) {
	if i := known & t.mask; int(i) < len(t.outbound) && t.outbound[i].Serves(tunnel, known) {
		return &t.outbound[i], known
	}
	handle = t.Bound(tunnel)
	return t.LookupOutbound(handle), handle
}

// Bindings counts the calls of Bind: who saw the same number twice has missed none between.
func (t *Table) Bindings() uint64 { return t.bound.Load() }

// Bound returns the value of the outbound handle that tunnel is bound to, 0 if none.
func (t *Table) Bound(tunnel uint32) uint32 {
	if tunnel >= TunnelsMax {
		return 0
	}
	chunk := t.bindings[tunnel/bindingChunk].Load()
	if chunk == nil {
		return 0
	}
	return chunk[tunnel%bindingChunk].Load()
}
