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
	IKE                IKE          `yaml:"ike"`
	Interfaces         []Interface  `yaml:"interfaces"`
	Connections        []Connection `yaml:"connections"`
	Secrets            []SecretItem `yaml:"secrets"`
	Authorities        []Authority  `yaml:"authorities"`
	Pools              []Pool       `yaml:"pools"`
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
	Role    string `yaml:"role"`     // protected, outside or both; tunnel: a virtual one, which the daemon makes
	XDPMode string `yaml:"xdp_mode"` // one of xdpModes; not of a tunnel
	// Of a tunnel.
	MTU   AutoInt             `yaml:"mtu"`   // bytes; auto: what somebody has set, 1400 at first
	Addrs []AddressWithPrefix `yaml:"addrs"` // ADDRESS/LENGTH; others stay
	// Encapsulation is what its packets are put into before they are protected in transport mode: none, gre or ipip.
	Encapsulation string `yaml:"encapsulation"`
	Key           GREKey `yaml:"key"` // of GRE headers, in both directions; unset: none
}

// GREKey is a number of 32 bits, or none.
type GREKey struct {
	Value uint32
	Set   bool
}

// Virtual says that the interface is one that the daemon makes.
func (i *Interface) Virtual() bool { return i.Role == "tunnel" }

// AddressWithPrefix is an address of an interface with the prefix of its network.
type AddressWithPrefix struct{ netip.Prefix }

// xdpModes are the ways to attach that can be asked for; the engine has the same list.
var xdpModes = []string{"auto", "native", "generic", "copy", "zero-copy"}

// IKE holds what concerns the key exchange as a whole.
type IKE struct {
	Threads            AutoInt  `yaml:"threads"`               // goroutines of the server, 1 to 64; auto: one per core
	SAs                int      `yaml:"sas_max"`               // IKE SAs altogether
	HalfOpen           int      `yaml:"half_open_max"`         // IKE SAs whose peer is not proven
	HalfOpenPerAddress int      `yaml:"half_open_per_address"` // of these, from one IPv4 address or one IPv6 /64, before it is asked for cookies
	CookieThreshold    int      `yaml:"cookie_threshold"`      // half-open IKE SAs from which on cookies are demanded; 0: always
	Rekeys             int      `yaml:"rekeys_per_second"`
	Keepalive          Duration `yaml:"keepalive"`          // of NAT mappings; 0: none
	RetransmitTimeout  Duration `yaml:"retransmit_timeout"` // the first wait for an answer
	RetransmitBase     Factor   `yaml:"retransmit_base"`    // each wait is so many times the one before
	RetransmitTries    int      `yaml:"retransmit_tries"`   // times that a request is sent again
	RetransmitJitter   int      `yaml:"retransmit_jitter"`  // percent, random, off each wait
	RetransmitLimit    Duration `yaml:"retransmit_limit"`   // the longest wait; 0: none
	FragmentSize       int      `yaml:"fragment_size"`      // bytes of the largest IKE packet, IP header in
	KeyLog             string   `yaml:"keylog"`             // file for the keys of every IKE SA, for Wireshark; empty: none
}

// Connection is a peer; as in swanctl.conf, its children are the tunnels.
type Connection struct {
	Name        string     `yaml:",key"`
	LocalAddrs  []Endpoint `yaml:"local_addrs"`  // empty: whichever leads to the peer
	RemoteAddrs []Endpoint `yaml:"remote_addrs"` // empty: any
	LocalPort   Port       `yaml:"local_port"`   // 500 or 4500, of the first message; under manual keys the UDP port under encap
	RemotePort  Port       `yaml:"remote_port"`
	Encap       bool       `yaml:"encap"`        // ESP in UDP even where there is no NAT
	UDPChecksum bool       `yaml:"udp_checksum"` // over IPv6; without it, it is zero, which only a peer set up for it takes (RFC 8200, 8.1; RFC 6935)

	Proposals     []Words     `yaml:"proposals"` // of the IKE SA
	MOBIKE        bool        `yaml:"mobike"`
	DPDDelay      Duration    `yaml:"dpd_delay"`     // silence after which the peer's liveness is checked; 0: never
	PathMTUTime   Duration    `yaml:"path_mtu_time"` // how often it is probed how large packets reach the peer; 0: never
	Fragmentation string      `yaml:"fragmentation"` // yes, accept, force or no
	Childless     string      `yaml:"childless"`     // allow, prefer, force or never
	Unique        string      `yaml:"unique"`        // no, never, keep or replace
	KeyingTries   int         `yaml:"keyingtries"`   // attempts to reach a peer; 0: for ever
	RekeyTime     Duration    `yaml:"rekey_time"`    // of the IKE SA; 0: never
	ReauthTime    Duration    `yaml:"reauth_time"`   // 0: never
	OverTime      Duration    `yaml:"over_time"`     // after these, until the IKE SA is deleted; unset: a tenth of them
	RandTime      Duration    `yaml:"rand_time"`     // taken off them, at random; unset: over_time
	VIPs          []VirtualIP `yaml:"vips"`          // virtual addresses to ask of the peer
	Pools         []string    `yaml:"pools"`         // from which peers get theirs
	SendCert      string      `yaml:"send_cert"`     // ifasked, always or never
	SendCertReq   bool        `yaml:"send_certreq"`
	Priority      int         `yaml:"priority"` // among connections with the same child selectors; the lowest that works is used
	Local         LocalProof  `yaml:"local"`
	Remote        RemoteProof `yaml:"remote"`
	Children      []Child     `yaml:"children"`
}

// LocalProof is how we prove who we are.
type LocalProof struct {
	Auth  string   `yaml:"auth"`  // psk or pubkey
	ID    string   `yaml:"id"`    // unset: the certificate's subject, else our address
	Certs []string `yaml:"certs"` // files, ours first, then intermediate ones
}

// RemoteProof is what the peer has to prove.
type RemoteProof struct {
	Auth       string   `yaml:"auth"`       // psk or pubkey
	ID         string   `yaml:"id"`         // unset: the peer's address, if it is one; %any
	Certs      []string `yaml:"certs"`      // files: one of these certificates and no other
	CACerts    []string `yaml:"cacerts"`    // files: issued below one of these; unset: below any authority
	Revocation string   `yaml:"revocation"` // relaxed, ifuri or strict
}

// Child is one pair of associations and the traffic that uses them.
type Child struct {
	Name         string            `yaml:",key"`
	LocalTS      []TrafficSelector `yaml:"local_ts"`
	RemoteTS     []TrafficSelector `yaml:"remote_ts"`
	ESPProposals []Words           `yaml:"esp_proposals"` // under manual keys the first is used
	AHProposals  []Words           `yaml:"ah_proposals"`  // AH in place of ESP; with both and manual keys, AH around ESP
	Mode         string            `yaml:"mode"`          // tunnel or transport
	Interface    string            `yaml:"interface"`     // a tunnel: routes lead traffic there, not policies
	RekeyTime    Duration          `yaml:"rekey_time"`    // 0: never
	LifeTime     Duration          `yaml:"life_time"`     // unset: a tenth more than rekey_time
	RandTime     Duration          `yaml:"rand_time"`     // unset: life_time less rekey_time
	RekeyBytes   Size              `yaml:"rekey_bytes"`   // 0: never
	LifeBytes    Size              `yaml:"life_bytes"`
	RandBytes    Size              `yaml:"rand_bytes"`
	RekeyPackets Size              `yaml:"rekey_packets"` // 0: never
	LifePackets  Size              `yaml:"life_packets"`
	RandPackets  Size              `yaml:"rand_packets"`
	StartAction  string            `yaml:"start_action"`  // none, trap, start or trap|start
	CloseAction  string            `yaml:"close_action"`  // when the peer closes it; none, trap or start
	DPDAction    string            `yaml:"dpd_action"`    // when the peer is dead; none, trap or start
	Inactivity   Duration          `yaml:"inactivity"`    // closed after so long without traffic; 0: never
	ReplayWindow int               `yaml:"replay_window"` // packets, 32 to 65536
	CopyDSCP     Copying           `yaml:"copy_dscp"`     // to the outer header, from it, both or neither: out, in, yes, no
	CopyDF       bool              `yaml:"copy_df"`
	CopyECN      bool              `yaml:"copy_ecn"`
	SetDF        bool              `yaml:"set_df"`      // DF where nothing is copied
	DSCP         int               `yaml:"dscp"`        // of every outer packet, 0 to 63, where it is not copied
	TTL          TTL               `yaml:"ttl"`         // of outer packets
	MTU          AutoInt           `yaml:"mtu"`         // of outer packets, bytes; auto: the route's, or what is learned of the path
	Fragment     string            `yaml:"fragment"`    // what is too large for the path: before or after encryption
	TFCPadding   Padding           `yaml:"tfc_padding"` // inner packets are padded to so many bytes, or to what fits the path: mtu
	// Filters judge inner packets, the first that matches; what none matches is judged by FilterDefault.
	Filters       []FilterRule `yaml:"filters"`
	FilterDefault string       `yaml:"filter_default"` // allow or deny
	LimitIn       RateLimit    `yaml:"limit_in"`
	LimitOut      RateLimit    `yaml:"limit_out"`
}

// SecretItem is a preshared key, if its name begins with ike, or a private key, if with private.
type SecretItem struct {
	Name       string     `yaml:",key"`
	ID         []string   `yaml:"id"` // of the two that share the key, either or both; unset: of everyone
	Secret     Passphrase `yaml:"secret"`
	SecretFile string     `yaml:"secret_file"`
	File       string     `yaml:"file"` // of a private key
}

// Authority is a certification authority that we trust.
type Authority struct {
	Name     string   `yaml:",key"`
	CACert   string   `yaml:"cacert"` // file
	CRLURIs  []string `yaml:"crl_uris"`
	OCSPURIs []string `yaml:"ocsp_uris"`
}

// Pool is a range of virtual addresses for peers.
type Pool struct {
	Name  string    `yaml:",key"`
	Addrs AddrRange `yaml:"addrs"` // ADDRESS/LENGTH or FIRST-LAST
	DNS   []Address `yaml:"dns"`
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
	AH         Around `yaml:"ah"`
}

// Around holds the keys of the AH around a child's ESP.
type Around struct {
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
		IKE: IKE{
			SAs: 200000, HalfOpen: 10000, HalfOpenPerAddress: 5, CookieThreshold: 30, Rekeys: 1000, Keepalive: Duration{20 * time.Second},
			RetransmitTimeout: Duration{4 * time.Second}, RetransmitBase: 1.8, RetransmitTries: 5, RetransmitJitter: 10, FragmentSize: 1280,
		},
	}
}

// unset is the value of a duration whose default depends on others.
const unset = time.Duration(-1)

func (i *Interface) setDefaults() { i.XDPMode, i.Encapsulation = "auto", "none" }

func (c *Connection) setDefaults() {
	c.UDPChecksum = true
	c.MOBIKE, c.DPDDelay, c.PathMTUTime, c.RekeyTime = true, Duration{30 * time.Second}, Duration{10 * time.Minute}, Duration{4 * time.Hour}
	c.OverTime, c.RandTime = Duration{unset}, Duration{unset}
	c.Fragmentation, c.Childless, c.Unique, c.SendCert, c.SendCertReq = "yes", "allow", "no", "ifasked", true
	c.Remote.Revocation = "relaxed"
}

func (c *Child) setDefaults() {
	c.Mode, c.ReplayWindow, c.Fragment = "tunnel", 4096, "before"
	c.FilterDefault, c.LimitIn.Burst, c.LimitOut.Burst = "allow", Duration{unset}, Duration{unset}
	c.CopyDSCP, c.CopyDF, c.CopyECN, c.TTL = "out", true, true, defaultTTL
	c.RekeyTime, c.LifeTime, c.RandTime = Duration{time.Hour}, Duration{unset}, Duration{unset}
}

// Address is one unicast IP address.
type Address struct{ netip.Addr }

// Endpoint is what local_addrs and remote_addrs list: an address, a prefix or %any, or the name of a host.
type Endpoint struct {
	Prefix netip.Prefix // of an address all bits; of %any 0 of them, and IsAny says so for both families
	Host   string
	IsAny  bool
}

// Addr returns the address, if the endpoint is a single one.
func (e Endpoint) Addr() (netip.Addr, bool) {
	return e.Prefix.Addr(), e.Prefix.IsValid() && e.Prefix.IsSingleIP()
}
