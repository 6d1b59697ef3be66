package main

import (
	"context"
	"io"

	"github.com/rs/zerolog"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// engine is what the daemon asks of the data plane. Its methods may be called
// from any goroutine; none waits for a packet.
type engine interface {
	Start() error
	// Stop ends the workers. The XDP links stay pinned and drop protected traffic.
	Stop() error
	// Apply replaces policies, endpoints and ports as a whole, or changes nothing
	// and returns an error. tunnels gives each protect policy's Tunnel its number.
	Apply(c *config.Config, tunnels map[string]uint32) error
	// Install installs an association and returns its handle: the SPI if inbound. It copies the
	// key, which the daemon overwrites when it drops the configuration.
	Install(a *config.Association) (uint32, error)
	Remove(inbound bool, handle uint32) error
	// Bind makes an outbound association the one that a tunnel sends by; 0 is none.
	Bind(tunnel, outbound uint32) error
	// Ready says whether an installed outbound association is bound to a tunnel.
	Ready(tunnel uint32) bool
	// Policies lists the policies in the order in which they match, negotiated ones in their places.
	Policies() []spd.Policy
	// Recorder copies the flight recorders of the associations for which match is true.
	Recorder(match func(name string, spi uint32) bool) []control.Flight
	Snapshot() snapshot
	// SAs lists the live associations, Associations counts them.
	SAs() []control.SA
	Associations() int
	// Trace and Capture go on until they are done or the context ends.
	Trace(ctx context.Context, w control.Watch, f func(*control.Traced) error) error
	Capture(ctx context.Context, w control.Watch, ready func() error, out io.Writer) error
}

// snapshot holds the engine's counters at one moment.
type snapshot struct {
	Workers []control.Worker
	Ports   []control.Port
	XDP     []control.Named
	Drops   [packet.DropCount]uint64
	Totals  control.Totals
	Paths   control.Paths
	Failed  uint64 // changes of the steering program's maps
	Pending string // what of them is still to be made, "" for nothing
}

// fencer keeps the fences of protected prefixes in the kernel.
type fencer interface {
	// Fence makes the daemon's fences exactly these.
	Fence(fences []config.Fence) error
	// Reserve makes the virtual interfaces, so that routes can lead there before the daemon runs: what goes there is dropped.
	Reserve(c *config.Config) error
}

// platform makes the parts that touch the kernel. Tests put others here.
type platform struct {
	fences func() (fencer, error)
	// engine makes the packet engine and the key exchange over it. Neither runs yet.
	engine func(*config.Config, zerolog.Logger) (engine, exchanger, error)
}
