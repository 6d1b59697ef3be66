package spd

import (
	"testing"
	"unsafe"

	"sallyport/tools/asmlayout"
)

// TestGeneratorKnowsTheLayout: assembly of package esp holds packets against Plain.
func TestGeneratorKnowsTheLayout(t *testing.T) {
	var p Plain
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"plainRemote": unsafe.Offsetof(p.Remote), "plainRemotes": unsafe.Offsetof(p.Remotes), "plainLocal": unsafe.Offsetof(p.Local), "plainLocals": unsafe.Offsetof(p.Locals),
		"plainProto": unsafe.Offsetof(p.Proto), "plainMatters": unsafe.Offsetof(p.Matters), "noPlain": noProto | noProto<<16,
	})
}
