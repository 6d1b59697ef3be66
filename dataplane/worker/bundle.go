package worker

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// A bundle is two associations for one packet, AH around ESP (see sad.Bundle). Inbound, AH is verified in front of the stage that opens
// what is in it; outbound, it is made behind the one that seals. Few batches hold any such packet: claiming says whether one does.

// lacksAH ends packet i, which came as the ESP of a bundle alone. It claims nothing: anybody may have sent it.
func (w *Worker) lacksAH(i uint8, in *sad.Inbound) {
	if w.group.sad.InboundHead(in).Owner() == w.ID {
		in.OtherDrops.Add(1)
	}
	w.drop(i, packet.DropBundleMismatch)
}

// verify takes the packets of bundles out of their AH, and makes them those of the ESP that has to be inside.
func (w *Worker) verify() {
	w.verifies = false
	b, kept, signed := &w.batch, w.lists.in[:0], w.lists.bundled[:0]
	for _, i := range w.lists.in {
		if w.inbound[i].Flags&sad.FlagBundled == 0 {
			kept = append(kept, i)
		} else {
			signed = append(signed, i)
		}
	}
	signed = w.esp.Decapsulate(b, signed, w.inbound[:])
	w.observe(StageVerify)
	live := signed[:0]
	for _, i := range signed {
		in := w.group.sad.InboundPartner(w.inbound[i])
		p := &b.P[i]
		p.SPI, p.Slot = in.SPI, in.Slot
		w.inbound[i] = in
		if in.Flags&sad.FlagEnded != 0 {
			w.group.sad.InboundTerms(in.Slot).Ended.Add(1)
			w.drop(i, packet.DropLifetimeEnded)
			continue
		}
		if in.Flags&sad.FlagGuarded != 0 {
			w.guarded = true
		}
		live = append(live, i)
	}
	w.lists.in = w.join(kept, live)
}

// sign puts AH around the sealed packets of bundles.
func (w *Worker) sign() {
	w.signs = false
	b, kept, sealed := &w.batch, w.lists.out[:0], w.lists.bundled[:0]
	for _, i := range w.lists.out {
		o := w.outbound[i]
		if o.Flags&sad.FlagBundled == 0 {
			kept = append(kept, i)
			continue
		}
		o = w.group.sad.OutboundPartner(o)
		w.outbound[i] = o
		p := &b.P[i]
		p.SPI, p.Slot = o.SPI, o.Slot
		sealed = append(sealed, i)
	}
	w.lists.out = w.join(kept, w.esp.Encapsulate(b, sealed, w.outbound[:]))
}
