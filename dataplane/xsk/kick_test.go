package xsk

import (
	"testing"

	"sallyport/dataplane/packet"
)

// TestKickSendsMoreThanTheDefaultBudget counts what one Flush gets out: the
// kernel stops a call at 32 packets by default, and Flush goes on.
func TestKickSendsMoreThanTheDefaultBudget(t *testing.T) {
	left, right := enter(t)
	redirect(t, right)
	d := domain(t, 256)
	p := newPool(t, d)
	s := open(t, d, left, 0)
	for i := range 128 {
		b := frame(uint32(i), 60)
		a := p.get(1)[0]
		copy(d.umem.Mem()[a:], b)
		s.Transmit(descOf(a, len(b)))
	}
	must(t, s.Flush())
	if left := s.tx.pending(); left != 0 {
		t.Errorf("%d of 128 packets left behind", left)
	}
	done := 0
	await(t, "completions", func() bool { done += p.complete(s); return done == 128 })
	p.whole(256)
}

func descOf(addr uint64, size int) []packet.Desc {
	return []packet.Desc{{Addr: addr, Len: uint32(size)}}
}

// TestWhatOneFlushLeavesTheNextSends: with a completion ring of 32 the kernel takes no more packets than that, until
// completions are taken out.
func TestWhatOneFlushLeavesTheNextSends(t *testing.T) {
	left, right := enter(t)
	redirect(t, right)
	d := domain(t, 256)
	p := newPool(t, d)
	s, err := d.Open(Config{Ifindex: left.Attrs().Index, Ifname: "left", RxSize: 64, TxSize: 128, FillSize: 64, CompSize: 32})
	must(t, err)
	defer func() { s.Close(); p.put(s.Reclaim()...) }()
	if s.Unsent() {
		t.Error("packets are left behind before the first")
	}
	for i := range 100 {
		b := frame(uint32(i), 60)
		a := p.get(1)[0]
		copy(d.umem.Mem()[a:], b)
		s.Transmit(descOf(a, len(b)))
	}
	done, flushes := 0, 0
	must(t, s.Flush())
	if !s.Unsent() {
		t.Error("nothing is left behind")
	}
	await(t, "completions", func() bool {
		done += p.complete(s)
		if s.Unsent() {
			flushes++
			must(t, s.Flush())
		}
		return done == 100
	})
	if s.Unsent() || flushes == 0 {
		t.Errorf("after %d more flushes: left behind %v", flushes, s.Unsent())
	}
}
