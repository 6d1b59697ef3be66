package sad

import (
	"fmt"
	"net/netip"
	"sync/atomic"
)

// Endpoints are where an association's outer packets go from and to.
type Endpoints struct {
	Local, Remote         netip.Addr
	Encap                 bool
	LocalPort, RemotePort uint16 // if Encap; 0 = 4500
}

// Move gives an association other endpoints. Sequence number, window and key stay. The owner takes them over
// before the next batch of its packets, see [Table.Refresh].
func (t *Table) Move(h Handle, to Endpoints) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, _, _, _ := t.carried(h)
	if old == nil {
		return fmt.Errorf("move association %s: %w", h, ErrNotFound)
	}
	if old.bundled() {
		return fmt.Errorf("move association %s: AH covers its endpoints", h)
	}
	p := *old
	p.Local, p.Remote, p.Encap, p.LocalPort, p.RemotePort = to.Local, to.Remote, to.Encap, 0, 0
	if to.Encap {
		p.LocalPort, p.RemotePort = to.LocalPort, to.RemotePort
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("move association %s: %w", h, err)
	}
	// The description is never changed, only replaced: the owner reads it without the mutex.
	t.moved.Store(h, &p)
	if h.Inbound() {
		a := t.LookupInbound(h.Value())
		t.describe(in, a.Slot, &p)
		a.notify()
	} else {
		a := t.LookupOutbound(h.Value())
		t.describe(out, a.Slot, &p)
		a.learn(0, 0) // of another path
		t.inherit(&p, a)
		a.notify()
	}
	return nil
}

// Refresh takes over what Move asked for. Only the owner calls it, when Asked says so and before it uses the association.
func (t *Table) Refresh(a *Inbound) {
	if a.noticed() {
		if p, ok := t.moved.LoadAndDelete(InboundHandle(a.SPI)); ok {
			a.place(p.(*Params))
		}
	}
}

// RefreshOutbound is Refresh for an outbound association.
func (t *Table) RefreshOutbound(o *Outbound) {
	if o.noticed() {
		if p, ok := t.moved.LoadAndDelete(o.Handle()); ok {
			o.place(p.(*Params))
		}
	}
}

// noticeBit in Ownership.want says that Move left something for the owner.
const noticeBit = 1 << 31

// notify sets the bit, and noticed clears it and says whether it was set.
func (o *Ownership) notify() { atomic.OrUint32(&o.want, noticeBit) }
func (o *Ownership) noticed() bool {
	return atomic.AndUint32(&o.want, ^uint32(noticeBit))&noticeBit != 0
}

// Asked says that the owner has something to do besides packets: Refresh, or Release at the end of the batch.
func (o *Ownership) Asked() bool { return atomic.LoadUint32(&o.want) != 0 }
