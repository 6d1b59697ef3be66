package sad

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/transform"
)

// TestQuotedFindsTheRightOne installs and removes associations whose peers chose few SPIs, and finds each by what it sent, as a list
// of all would.
func TestQuotedFindsTheRightOne(t *testing.T) {
	table, err := New(Config{Capacity: 64, Workers: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	r := rand.New(rand.NewPCG(1, 2))
	local := netip.MustParseAddr("192.0.2.1")
	type one struct {
		h   Handle
		spi uint32
		to  netip.Addr
	}
	var all []one
	keymat := make([]byte, transform.AES128GCM16.Info().KeyLen)
	for step := range 3000 {
		if len(all) > 0 && (r.IntN(2) == 0 || len(all) == 60) {
			k := r.IntN(len(all))
			if err := table.Remove(all[k].h); err != nil {
				t.Fatal(err)
			}
			all = append(all[:k], all[k+1:]...)
		} else {
			n := one{spi: 256 + uint32(r.IntN(5)), to: netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(200))})}
			if n.h, err = table.Install(Params{SPI: n.spi, Suite: transform.AES128GCM16, Keymat: keymat, Local: local, Remote: n.to, Sequence: 100}); err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
		for spi := range uint32(5) {
			c := Complaint{Local: local, Remote: netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(200))}), SPI: 256 + spi, Sequence: 90}
			got, _ := table.quoted(&c)
			found, want := false, false
			for _, n := range all {
				if n.spi == c.SPI && n.to == c.Remote {
					want = true
					found = found || got != nil && got.Handle() == n.h
				}
			}
			if found != want || !want && got != nil {
				t.Fatalf("step %d: SPI %d to %v: found %v, want %v", step, c.SPI, c.Remote, found, want)
			}
		}
	}
	for _, n := range all {
		table.Remove(n.h)
	}
	if len(table.paths.bySPI) != 0 {
		t.Errorf("left behind: %v", table.paths.bySPI)
	}
}

// TestMovedAssociationForgetsItsPath changes the peer's address.
func TestMovedAssociationForgetsItsPath(t *testing.T) {
	table, err := New(Config{Capacity: 64, Workers: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	local, here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	keymat := make([]byte, transform.AES128GCM16.Info().KeyLen)
	h, err := table.Install(Params{SPI: 256, Suite: transform.AES128GCM16, Keymat: keymat, Local: local, Remote: here, Sequence: 100, Outer: Outer{MTU: 1400}})
	if err != nil {
		t.Fatal(err)
	}
	o := table.LookupOutbound(h.Value())
	c := Complaint{Local: local, Remote: here, SPI: 256, Sequence: 99, Length: 1400, TooBig: true, MTU: 1200}
	if _, mtu, err := table.Complain(&c, time.Now()); err != nil || mtu != 1200 || o.PathMTU() != 1200 {
		t.Fatalf("%d, %v", mtu, err)
	}
	for _, x := range []struct {
		to   netip.Addr
		want uint16
	}{{there, 1400}, {here, 1200}} {
		if err := table.Move(h, Endpoints{Local: local, Remote: x.to}); err != nil || o.PathMTU() != x.want {
			t.Errorf("to %v: path MTU %d, want %d (%v)", x.to, o.PathMTU(), x.want, err)
		}
	}
}

// TestProbedPathMTU holds what a peer has proven against what somebody on the way says: less is believed until it is looked at again,
// more never, and a new proof counts whatever it says.
func TestProbedPathMTU(t *testing.T) {
	tab := table(t, 8, 0)
	now := time.Now()
	p := params(false, 0x1234)
	p.Sequence = 100
	h := install(t, tab, p)
	o := tab.LookupOutbound(h.Value())
	known := func(what string, mtu int, probed bool) {
		t.Helper()
		var i *Info
		tab.Range(func(x *Info) bool { y := *x; i = &y; return false })
		if i.PathMTU != mtu || i.PathProbed != probed || int(o.PathMTU()) != mtu {
			t.Errorf("%s: %d, probed %v, in use %d; want %d, %v", what, i.PathMTU, i.PathProbed, o.PathMTU(), mtu, probed)
		}
	}
	complain := func(mtu int) error {
		_, _, err := tab.Complain(&Complaint{Local: p.Local, Remote: p.Remote, SPI: 0x1234, Sequence: 99, Length: 1500, TooBig: true, MTU: mtu}, now)
		return err
	}
	probe := func(mtu, want int) {
		t.Helper()
		if before, err := tab.Probed(h, mtu, now, now.Add(time.Hour)); err != nil || before != want {
			t.Errorf("before %d: %d, %v", mtu, before, err)
		}
	}
	probe(1400, 0)
	known("probed", 1400, true)
	if err := complain(1450); !errors.Is(err, ErrNothingNew) {
		t.Error("more than what was probed:", err)
	}
	if err := complain(1400); !errors.Is(err, ErrNothingNew) {
		t.Error("as much as was probed:", err)
	}
	known("unchanged", 1400, true)
	if err := complain(1000); err != nil {
		t.Error("less:", err)
	}
	known("less, says ICMP", 1000, false)
	probe(1400, 1000)
	known("a lie", 1400, true)
	if n := tab.AgePaths(now.Add(time.Hour - time.Second)); n != 0 {
		t.Error("forgotten too early")
	}
	if n := tab.AgePaths(now.Add(time.Hour)); n != 1 {
		t.Error("not forgotten")
	}
	known("forgotten", 0, false)
	if _, err := tab.Probed(InboundHandle(0x1234), 1400, now, now); !errors.Is(err, ErrNotFound) {
		t.Error("of nothing:", err)
	}
}

// TestManyAssociationsOfOnePath come and go, and one moves away: what one of them finds out counts for those that are there.
func TestManyAssociationsOfOnePath(t *testing.T) {
	const n = 50
	tab := table(t, 4096, 0)
	now := time.Now()
	var all []Handle
	add := func() {
		p := params(false, uint32(0x1000+len(all)))
		all = append(all, install(t, tab, p))
	}
	probe := func(h Handle, mtu int) {
		t.Helper()
		if _, err := tab.Probed(h, mtu, now, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want uint16, list ...Handle) {
		t.Helper()
		for _, h := range list {
			if got := tab.LookupOutbound(h.Value()).PathMTU(); got != want {
				t.Fatalf("%s: %v has %d, want %d", what, h, got, want)
			}
		}
	}
	for range n {
		add()
	}
	for range 3 { // again and again
		for _, h := range all {
			probe(h, 1400)
		}
	}
	check("probed", 1400, all...)
	moved := all[0]
	p := params(false, 0)
	if err := tab.Move(moved, Endpoints{Local: p.Local, Remote: p.Remote.Next()}); err != nil {
		t.Fatal(err)
	}
	probe(all[1], 1300)
	check("of the path that was left", 0, moved)
	check("lowered", 1300, all[1:]...)
	for i := range 10 * n { // rekeys
		add()
		if err := tab.Remove(all[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	live := all[10*n+1:]
	check("inherited", 1300, live...)
	for _, known := range tab.paths.known {
		if len(known.handles) > 2*len(live)+8 {
			t.Errorf("%d handles of %d are kept", len(known.handles), len(live))
		}
	}
	probe(live[0], 1350)
	check("raised", 1350, live...)
	if tab.AgePaths(now.Add(2*time.Hour)) != 1 {
		t.Error("not forgotten")
	}
	check("forgotten", 0, live...)
	probe(live[1], 1250)
	check("found out again", 1250, live[1])
}
