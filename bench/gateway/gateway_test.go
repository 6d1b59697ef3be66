package gateway

import (
	"fmt"
	"testing"

	"sallyport/dataplane/transform"
)

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
				r, err := New(Options{Decrypt: decrypt, Suite: suite, Sizes: sizes, Associations: 7, Sealed: 256})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				for range 8 {
					if r.Left() == 0 {
						r.Refresh()
					}
					if err := r.Verify(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// TestVerifyNotices proves that the far end's judgement is worth something.
func TestVerifyNotices(t *testing.T) {
	for _, decrypt := range []bool{false, true} {
		r, err := New(Options{Decrypt: decrypt, Sealed: 256})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.inner[5][40] ^= 1
		if err := r.Verify(); err == nil {
			t.Errorf("decrypt=%v: a changed byte was not noticed", decrypt)
		}
		r.inner[5][40] ^= 1
		if err := r.Verify(); err != nil {
			t.Error(err)
		}
		if !decrypt {
			r.peers[0].salt[0] ^= 1
		} else {
			r.source[r.next+3][60] ^= 1
		}
		if err := r.Verify(); err == nil {
			t.Errorf("decrypt=%v: a wrong ICV was not noticed", decrypt)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Sizes: []int{20}}, {Sizes: []int{64, 1421}}, {Associations: AssociationsMax + 1}, {Associations: -1}, {Ring: 100}} {
		if r, err := New(o); err == nil {
			r.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestManyAssociations spreads packets over more associations than flows were asked for.
func TestManyAssociations(t *testing.T) {
	for _, decrypt := range []bool{false, true} {
		r, err := New(Options{Decrypt: decrypt, Associations: 1000})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Measure(20000, 0); err != nil {
			t.Error(err)
		}
	}
}
