package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryJoinHasAPlace: a batch that passes all the places where lists are joined must not run out of room for that.
func TestEveryJoinHasAPlace(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	joins := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		joins += strings.Count(string(text), "w.join(")
	}
	if joins != joinsMax {
		t.Errorf("lists are joined at %d places, and there is room for %d", joins, joinsMax)
	}
}
