package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"sallyport/ike"
)

// A reload begins, moves and ends the key log; a file that others may read is refused, and what was goes on.
func TestReloadMovesTheKeyLog(t *testing.T) {
	x := &exchange{Server: ike.NewServer(ike.Options{Workers: 1, Log: zerolog.Nop()}, nil, nil), associations: newAssociations(nil)}
	defer x.Close(t.Context())
	first, second, open := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second"), filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		refused    bool
	}{{first, first, false}, {first, first, false}, {open, first, true}, {second, second, false}, {"", "", false}, {"", "", false}} {
		if err := x.logKeys(c.path); (err != nil) != c.refused {
			t.Errorf("%q: %v", c.path, err)
		}
		is := ""
		if x.keyLog != nil {
			is = x.keyLog.Name()
			if _, err := x.keyLog.WriteString(""); err != nil {
				t.Errorf("%q: %v", c.path, err)
			}
		}
		if is != c.want {
			t.Errorf("%q: keys go to %q", c.path, is)
		}
	}
}
