package worker

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// claimInbound finds the association of every inbound packet. Associations without an
// owner become this worker's: the queue where the packets arrive decides. Packets of
// associations that another worker owns are handed over. Packets of one association tend to follow
// each other, so one look-up serves a run of them.
func (w *Worker) claimInbound() {
	b, kept := &w.batch, w.lists.in[:0]
	var mine *sad.Inbound
	for _, i := range w.lists.in {
		if spi := b.P[i].SPI; mine == nil || mine.SPI != spi {
			if mine = w.group.sad.LookupInbound(spi); mine == nil {
				w.drop(i, packet.DropNoAssociation)
				continue
			}
			if fixed := mine.Flags.Fixed(); fixed&sad.FlagBundled != 0 {
				if !fixed.Outer() {
					w.lacksAH(i, mine)
					mine = nil
					continue
				}
				w.verifies = true
			}
			if !w.claim(i, &mine.Ownership) {
				mine = nil
				continue
			}
			if w.crowded {
				w.group.sad.PrefetchSelectors(mine)
			}
			if mine.Asked() {
				w.group.sad.Refresh(mine)
				if mine.Wanted() >= 0 {
					w.moves.inbound(spi)
				}
			}
			if mine.Flags&sad.FlagGuarded != 0 {
				w.guarded = true
			}
		}
		if mine.Flags&sad.FlagEnded != 0 {
			w.group.sad.InboundTerms(mine.Slot).Ended.Add(1)
			w.drop(i, packet.DropLifetimeEnded)
			continue
		}
		w.inbound[i] = mine
		kept = append(kept, i)
	}
	w.lists.in = kept
}

// claimOutbound does the same for packets to be protected, by the association's handle.
func (w *Worker) claimOutbound() {
	b, kept := &w.batch, w.lists.out[:0]
	var mine *sad.Outbound
	var of uint32
	for _, i := range w.lists.out {
		if handle := b.P[i].SPI; mine == nil || of != handle {
			if mine = w.group.sad.LookupOutbound(handle); mine == nil {
				w.acquire(b.P[i].Tunnel, &b.Flows[i])
				w.drop(i, packet.DropNoOutbound)
				w.await(int(i))
				continue
			}
			if !w.claim(i, &mine.Ownership) {
				mine = nil
				continue
			}
			if mine.Flags&sad.FlagBundled != 0 {
				w.signs = true
			}
			if mine.Asked() {
				w.group.sad.RefreshOutbound(mine)
				if mine.Wanted() >= 0 {
					w.moves.outbound(handle)
				}
				if why := mine.Complaint(); why != 0 && w.passOn(i, why) {
					mine = nil
					continue
				}
			}
			of = handle
		}
		if mine.Flags&(sad.FlagEnded|sad.FlagGuarded) != 0 && !w.admits(i, mine) {
			continue
		}
		w.outbound[i] = mine
		kept = append(kept, i)
	}
	w.lists.out = kept
}

// claim says whether this worker owns the association of packet i, which it does from now on if
// nobody did. Otherwise it hands the packet over.
func (w *Worker) claim(i uint8, o *sad.Ownership) bool {
	owner := o.Owner()
	if owner == w.ID || owner < 0 && o.Claim(w.ID) {
		return true
	}
	w.handOver(i, o.Owner())
	return false
}

// handOver gives packet i, frame and all, to another worker. Its class says where
// that worker takes it up again.
func (w *Worker) handOver(i uint8, to int) {
	p := &w.batch.P[i]
	if to < 0 || to == w.ID {
		// Released between two looks: the next worker to see a packet of it claims it.
		to = (w.ID + 1) % len(w.group.Workers)
	}
	if p.Handovers >= handoversMax || to == w.ID {
		w.drop(i, packet.DropHandoverLoop)
		return
	}
	p.Handovers++
	if !w.group.handover[w.ID][to].push(*p) {
		w.drop(i, packet.DropHandoverFull)
		return
	}
	w.Counters.HandedOut.Add(1)
}

// moves are the associations of this worker that another is to own from the next batch
// on, collected while their packets pass.
type moves struct {
	in, out [packet.BatchMax]uint32
	ins     int
	outs    int
}

func (m *moves) inbound(spi uint32) {
	if m.ins < len(m.in) {
		m.in[m.ins] = spi
		m.ins++
	}
}

func (m *moves) outbound(handle uint32) {
	if m.outs < len(m.out) {
		m.out[m.outs] = handle
		m.outs++
	}
}

// finishMoves gives up the associations that are to move, now that no packet of theirs is
// in this worker's hands.
func (w *Worker) finishMoves() {
	m := &w.moves
	for _, spi := range m.in[:m.ins] {
		if sa := w.group.sad.LookupInbound(spi); sa != nil {
			sa.Release(w.ID)
		}
	}
	for _, handle := range m.out[:m.outs] {
		if sa := w.group.sad.LookupOutbound(handle); sa != nil {
			sa.Release(w.ID)
		}
	}
	m.ins, m.outs = 0, 0
}
