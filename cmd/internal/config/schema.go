package config

import (
	"net/netip"
	"time"
)

// File is the schema of the configuration file. Every field with a yaml tag is
// a key; sallyport.example.yaml shows all of them. Key names are those of
// strongSwan's swanctl.conf where it has the thing.
type File struct {
	Instance           string       `yaml:"instance"`
	Control            Control      `yaml:"control"`
	Log                Log          `yaml:"log"`
	Workers            Workers      `yaml:"workers"`
	Dataplane          Dataplane    `yaml:"dataplane"`
	Interfaces         []Interface  `yaml:"interfaces"`
	Connections        []Connection `yaml:"connections"`
	Policies           []PolicyRule `yaml:"policies"`
	InsecureManualKeys bool         `yaml:"insecure_manual_keys"`
	Manual             []Manual     `yaml:"manual"`
}

// Control describes the control socket.
type Control struct {
	Socket string `yaml:"socket"` // path; empty: /run/sallyport/INSTANCE.sock
	Group  string `yaml:"group"`  // group that may use it beside root; empty: root only
}

// Log describes the daemon's log.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // auto (JSON unless on a terminal), json or text
}

// Workers describes the packet workers.
type Workers struct {
	Count AutoInt  `yaml:"count"` // 1 to 64; auto: one per core
	Cores Cores    `yaml:"cores"` // CPU numbers, one per worker; auto: the kernel's allowed ones
	Batch int      `yaml:"batch"` // packets, 1 to 64
	Spin  Duration `yaml:"spin"`  // how long an idle worker polls before it sleeps
}

// Dataplane holds the sizes and choices of the packet engine.
type Dataplane struct {
	Frames       AutoInt `yaml:"frames"`       // UMEM frames of 4096 bytes; auto: by queues and ring size
	Associations int     `yaml:"associations"` // most associations of one direction
	RingSize     int     `yaml:"ring_size"`    // descriptors, a power of two
	Unmatched    string  `yaml:"unmatched"`    // forward or discard: packets no policy matches
	MSSClamp     bool    `yaml:"mss_clamp"`
	PinDir       string  `yaml:"pin_dir"` // empty: /sys/fs/bpf/sallyport/INSTANCE
	TUN          string  `yaml:"tun"`     // empty: sp-INSTANCE, cut to 15 characters
}

// Interface is a network interface that the gateway works on.
type Interface struct {
	Name    string `yaml:",key"`
	Role    string `yaml:"role"`     // protected, outside or both
	XDPMode string `yaml:"xdp_mode"` // one of xdpModes
}

// xdpModes are the ways to attach that can be asked for; the engine has the same list.
var xdpModes = []string{"auto", "native", "generic", "copy", "zero-copy"}

// Connection is a peer; as in swanctl.conf, its children are the tunnels.
type Connection struct {
	Name        string  `yaml:",key"`
	LocalAddrs  Address `yaml:"local_addrs"`
	RemoteAddrs Address `yaml:"remote_addrs"`
	Encap       bool    `yaml:"encap"`
	LocalPort   Port    `yaml:"local_port"`   // UDP port under encap
	RemotePort  Port    `yaml:"remote_port"`  // UDP port under encap
	UDPChecksum bool    `yaml:"udp_checksum"` // compute it over IPv6 instead of zero (RFC 6935)
	Children    []Child `yaml:"children"`
}

// Child is one pair of associations and the traffic that uses them.
type Child struct {
	Name         string            `yaml:",key"`
	LocalTS      []TrafficSelector `yaml:"local_ts"`
	RemoteTS     []TrafficSelector `yaml:"remote_ts"`
	ESPProposals []Proposal        `yaml:"esp_proposals"` // the first is used while keys are manual
	Mode         string            `yaml:"mode"`          // tunnel
	ReplayWindow int               `yaml:"replay_window"` // packets, 64 to 65536
	CopyDSCP     bool              `yaml:"copy_dscp"`
	CopyDF       bool              `yaml:"copy_df"`
	CopyECN      bool              `yaml:"copy_ecn"`
	SetDF        bool              `yaml:"set_df"` // DF where nothing is copied
	MTU          AutoInt           `yaml:"mtu"`    // of the outer packet, bytes; auto: the route's
}

// PolicyRule is one entry of the ordered policy list.
type PolicyRule struct {
	Name     string            `yaml:"name"`
	Action   string            `yaml:"action"` // bypass, discard or protect
	LocalTS  []TrafficSelector `yaml:"local_ts"`
	RemoteTS []TrafficSelector `yaml:"remote_ts"`
	Child    string            `yaml:"child"` // protect: CONNECTION/CHILD, whose selectors it takes
}

// Manual holds the keys of one child. Its name is CONNECTION/CHILD.
type Manual struct {
	Name       string `yaml:",key"`
	SPIIn      SPI    `yaml:"spi_in"`
	SPIOut     SPI    `yaml:"spi_out"`
	KeyIn      Secret `yaml:"key_in"`
	KeyOut     Secret `yaml:"key_out"`
	KeyInFile  string `yaml:"key_in_file"`
	KeyOutFile string `yaml:"key_out_file"`
}

// defaults returns the schema with every default filled in.
func defaults() File {
	return File{
		Instance:  "default",
		Log:       Log{Level: "info", Format: "auto"},
		Workers:   Workers{Batch: 64, Spin: Duration{50 * time.Microsecond}},
		Dataplane: Dataplane{Associations: 65536, RingSize: 2048, Unmatched: "forward", MSSClamp: true},
	}
}

func (i *Interface) setDefaults()  { i.XDPMode = "auto" }
func (c *Connection) setDefaults() { c.LocalPort, c.RemotePort = 4500, 4500 }
func (c *Child) setDefaults() {
	c.Mode, c.ReplayWindow = "tunnel", 4096
	c.CopyDSCP, c.CopyDF, c.CopyECN = true, true, true
}

// Address is one IP address of a tunnel endpoint.
type Address struct{ netip.Addr }
