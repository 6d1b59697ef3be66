package pipeline

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// verify carries packets, and has the far end check them all.
func verify(t *testing.T, o Options) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := r.Lanes[0]
	for range 8 {
		if l.Left() == 0 {
			l.Refresh()
		}
		if err := l.Verify(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEverySuiteIsVerified carries packets of many sizes both ways in every suite and has the far
// end check them all.
func TestEverySuiteIsVerified(t *testing.T) {
	var sizes []int
	for s := SizeMin; s <= 1400; s += 61 {
		sizes = append(sizes, s)
	}
	for _, suite := range transform.List() {
		for _, decrypt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/decrypt=%v", suite, decrypt), func(t *testing.T) {
				verify(t, Options{Decrypt: decrypt, Suite: suite, Sizes: sizes, Associations: 7, Packets: 256})
			})
		}
	}
}

// TestEveryKindIsVerified carries packets of many sizes through tunnels of every kind, and has the far end check them all.
func TestEveryKindIsVerified(t *testing.T) {
	for kind := range Kind(len(kindNames)) {
		var sizes []int
		for s := kind.SizeMin(); s <= SizeMax; s += 61 {
			sizes = append(sizes, s)
		}
		sizes = append(sizes, SizeMax)
		for _, decrypt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/decrypt=%v", kind, decrypt), func(t *testing.T) {
				verify(t, Options{Decrypt: decrypt, Kind: kind, Sizes: sizes, Associations: 7, Packets: 256})
			})
		}
	}
}

// TestKindsAreNamed: every word is the kind's that it is for.
func TestKindsAreNamed(t *testing.T) {
	for i, word := range Kinds() {
		if k, err := ParseKind(word); err != nil || k != Kind(i) || k.String() != word {
			t.Errorf("%s is %d, %v", word, k, err)
		}
	}
	if _, err := ParseKind("carrier pigeon"); err == nil {
		t.Error("there are no pigeons")
	}
}

// TestLibraryOpensWhatItSeals is for every suite; each round takes all packets once.
func TestLibraryOpensWhatItSeals(t *testing.T) {
	for _, suite := range transform.List() {
		for _, decrypt := range []bool{false, true} {
			l, err := NewLibrary(Options{Suite: suite, Decrypt: decrypt, Sizes: []int{SizeMin, 100, SizeMax}, Packets: 64})
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(l.packets[1].text)
			s, err := l.Measure(0)
			if err != nil || s.Packets != 64 || s.Best <= 0 {
				t.Errorf("%s, decrypt=%v: %d packets, %v ns, %v", suite, decrypt, s.Packets, s.Best, err)
			}
			if same := bytes.Equal(before, l.packets[1].text); same != (decrypt || !suite.Info().Encrypts()) {
				t.Errorf("%s, decrypt=%v: the text is what it was: %v", suite, decrypt, same)
			}
			if n := testing.AllocsPerRun(5, func() { l.seal(&l.packets[0]) }); n != 0 {
				t.Errorf("%s: %v allocations a packet", suite, n)
			}
		}
	}
	l, err := NewLibrary(Options{Suite: transform.AES128GMAC, Decrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	l.seal(&l.packets[0])
	l.packets[0].text[3] ^= 1
	if l.open(&l.packets[0]) == nil {
		t.Error("a changed text opens")
	}
}

// TestVerifyNotices proves that the far end's judgement is worth something.
func TestVerifyNotices(t *testing.T) {
	for _, decrypt := range []bool{false, true} {
		r, err := New(Options{Decrypt: decrypt, Packets: 256})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		l := r.Lanes[0]
		l.inner[5][40] ^= 1
		if err := l.Verify(); err == nil {
			t.Errorf("decrypt=%v: a changed byte was not noticed", decrypt)
		}
		l.inner[5][40] ^= 1
		if err := l.Verify(); err != nil {
			t.Error(err)
		}
		if !decrypt {
			r.far[0].salt[0] ^= 1
		} else {
			l.source[l.next+3][60] ^= 1
		}
		if err := l.Verify(); err == nil {
			t.Errorf("decrypt=%v: a wrong ICV was not noticed", decrypt)
		}
	}
}

// TestSeparateGatewaysCarryTheirShares: as many lanes as workers, of gateways that share nothing, whose packets are all right; and
// what is told of allocations is the workers', not the harness's.
func TestSeparateGatewaysCarryTheirShares(t *testing.T) {
	o := Options{Associations: 5, Workers: 2}
	for name, make := range map[string]func(Options) (*Rig, error){"one gateway": New, "separate": NewSeparate} {
		r, err := make(o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if len(r.Lanes) != 2 || (r.Lanes[0].rig == r.Lanes[1].rig) != (name == "one gateway") {
			t.Errorf("%s: %d lanes", name, len(r.Lanes))
		}
		var owners []int
		for _, l := range r.Lanes {
			owners = append(owners, len(distinct(l.owner)))
			if err := l.Verify(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !slices.Equal(owners, []int{3, 2}) {
			t.Errorf("%s: %v associations", name, owners)
		}
		allocations := 1.0
		for range 10 { // the runtime itself allocates now and then
			s, err := r.Measure(r.Round(), 0, nil)
			if err != nil || s.Packets < len(r.Lanes)*r.Round() {
				t.Errorf("%s: %d packets, %v", name, s.Packets, err)
			}
			allocations = min(allocations, s.Allocations)
		}
		if allocations != 0 {
			t.Errorf("%s: %v allocations a packet", name, allocations)
		}
	}
	if r, err := NewSeparate(Options{Workers: 2}); err == nil {
		r.Close()
		t.Error("two workers share an association")
	}
}

func distinct(list []int) []int {
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Sizes: []int{20}}, {Sizes: []int{64, 1421}}, {Sizes: []int{47}, Kind: IPv6}, {Associations: AssociationsMax + 1}, {Associations: -1}, {Ring: 100}, {Workers: 2}, {Workers: WorkersMax + 1, Associations: 64}} {
		if r, err := New(o); err == nil {
			r.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestManyAssociations spreads packets over more associations than flows were asked for, and than there are
// remote hosts.
func TestManyAssociations(t *testing.T) {
	for _, associations := range []int{2, 1000, 1<<remoteBits + 5} {
		for _, decrypt := range []bool{false, true} {
			r, err := New(Options{Decrypt: decrypt, Associations: associations})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Lanes[0].Measure(20000, 0); err != nil {
				t.Errorf("%d associations, decrypt=%v: %v", associations, decrypt, err)
			}
			r.Close()
			if testing.Short() {
				break
			}
		}
	}
}

// TestEveryWorkerCarriesItsShare has several workers at once, none of which hands anything to another.
func TestEveryWorkerCarriesItsShare(t *testing.T) {
	for _, decrypt := range []bool{false, true} {
		r, err := New(Options{Decrypt: decrypt, Associations: 7, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s, err := r.Measure(20000, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Packets < 3*20000 {
			t.Errorf("%d packets", s.Packets)
		}
		for i, w := range r.engine.Stats().Workers {
			if w.Received < 20000 || w.HandedOut != 0 {
				t.Errorf("worker %d carried %d packets and handed over %d", i, w.Received, w.HandedOut)
			}
		}
	}
}

// TestSamplesAddUp takes one sample in two parts.
func TestSamplesAddUp(t *testing.T) {
	part := func(packets int, elapsed time.Duration, typical, best float64, gap int64) Sample {
		h := hdrhistogram.New(1, int64(gapMax), 3)
		h.RecordValue(gap)
		return Sample{Packets: packets, Elapsed: elapsed, Typical: typical, Best: best, Gaps: h}
	}
	var s Sample
	s.Add(part(100, time.Second, 10, 8, 5))
	s.Add(part(300, time.Second, 20, 9, 7))
	if s.Packets != 400 || s.Elapsed != 2*time.Second || s.Typical != 17.5 || s.Best != 8 || s.Gaps.TotalCount() != 2 || s.Gaps.Max() != 7 {
		t.Errorf("%+v, gaps %d to %d", s, s.Gaps.Min(), s.Gaps.Max())
	}
}

// TestChurnLeavesNothingBehind installs and removes while packets flow, and finds the table as it was.
func TestChurnLeavesNothingBehind(t *testing.T) {
	r, err := New(Options{Associations: 3, Spare: ChurnSpare})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	churn := r.StartChurn()
	if _, err := r.Measure(0, 50*time.Millisecond, nil); err != nil {
		t.Error(err)
	}
	changes, err := churn.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if changes.Count == 0 {
		t.Error("nothing was installed")
	}
	left := 0
	r.engine.Associations(func(*sad.Info) bool { left++; return true })
	if left != 2*3 {
		t.Errorf("%d associations are left, want %d", left, 2*3)
	}
}
