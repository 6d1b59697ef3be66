package suite

import (
	"bytes"
	"crypto/rand"
	"testing"
)

func TestBothSidesAgreeWithEveryMethod(t *testing.T) {
	for _, g := range groups {
		t.Run(g.word, func(t *testing.T) {
			k, err := Initiate(g.id, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			public, shared, err := Respond(g.id, rand.Reader, k.Public())
			if err != nil {
				t.Fatal(err)
			}
			mine, err := k.Finish(public)
			if err != nil || !bytes.Equal(mine, shared) {
				t.Fatal(err, mine, shared)
			}
		})
	}
}
