package rig

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

// NewGateway prepares one gateway in a namespace of the caller's making, for networks other than the rig's. config
// returns the YAML for its socket and pins; associations is how many it holds when it is ready. Nothing runs yet.
func NewGateway(bed *testbed.Bed, ns *testbed.Namespace, bin, name string, associations int, config func(g *Gateway) string) (*Gateway, error) {
	folder, err := bed.Folder()
	if err != nil {
		return nil, err
	}
	pins := filepath.Join(folder, "bpf")
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a bpffs at %s: %w", pins, err)
	}
	at := filepath.Join(folder, name)
	g := &Gateway{
		Name: name, NS: ns, Socket: at + ".sock", Config: at + ".yaml", Log: at + ".log", Pins: filepath.Join(pins, name),
		bin: bin, associations: associations,
	}
	return g, os.WriteFile(g.Config, []byte(config(g)), 0o600)
}
