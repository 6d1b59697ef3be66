package replay

import (
	"testing"
	"unsafe"

	"sallyport/tools/asmlayout"
)

// TestGeneratorKnowsTheLayout: assembly of package esp reads windows, and moves them as Follow does.
func TestGeneratorKnowsTheLayout(t *testing.T) {
	var w Window
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"windowTop": unsafe.Offsetof(w.top), "windowRun": unsafe.Offsetof(w.run), "windowSpan": unsafe.Offsetof(w.span), "windowLog": unsafe.Offsetof(w.log),
	})
}
