// Package control carries questions from the control tool to the daemon: one
// JSON object a line over a unix socket, an answer for each, in order.
//
//	request   {"verb": "sas", "args": {"name": "site-b/net"}}
//	response  {"schema": 1, "error": "", "result": {...}}
//
// Trace and capture go on answering until they are done or the tool closes the connection.
//
// The socket has mode 0660, and the peer's credentials are checked as well. A
// request is at most 64 KiB. The field names and units of the result types in
// this file are stable within one schema number. Key material is in none of
// them.
package control

import "time"

// Schema is the version of the types below. Fields may be added within one version.
const Schema = 1

// The verbs.
const (
	VerbStatus      = "status"
	VerbSAs         = "sas"
	VerbConnections = "conns"
	VerbPolicies    = "policies"
	VerbRecorder    = "recorder"
	VerbCounters    = "counters"
	VerbReload      = "reload"
	VerbUp          = "up"
	VerbDown        = "down"
	VerbRekey       = "rekey"
	VerbTrace       = "trace"   // answers with a line for each packet; every line but the last has "more"
	VerbCapture     = "capture" // one answer with "more", then pcapng until the end
)

// Status describes the daemon.
type Status struct {
	Version       string    `json:"version"`
	Instance      string    `json:"instance"`
	PID           int       `json:"pid"`
	ConfigPath    string    `json:"config_path"`
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	ReloadedAt    time.Time `json:"reloaded_at,omitzero"`
	PinDir        string    `json:"pin_dir"`
	Connections   int       `json:"connections"` // that are negotiated
	IKE           IKE       `json:"ike"`
	Associations  int       `json:"associations"`
	ManualKeys    int       `json:"manual_keys"` // associations with manual keys
	Policies      int       `json:"policies"`
	Warnings      []string  `json:"warnings"`
	Workers       []Worker  `json:"workers"`
	Ports         []Port    `json:"ports"`
	Totals        Totals    `json:"totals"`
}

// Worker is one packet worker. Counters count since the daemon's start.
type Worker struct {
	Worker     int     `json:"worker"`
	Core       int     `json:"core"` // -1: not bound to one
	Busy       float64 `json:"busy"` // share of the last full second spent on packets, 0 to 1
	PacketsIn  uint64  `json:"packets_in"`
	BytesIn    uint64  `json:"bytes_in"`
	PacketsOut uint64  `json:"packets_out"`
	BytesOut   uint64  `json:"bytes_out"`
	Sealed     uint64  `json:"sealed"` // packets encapsulated
	Opened     uint64  `json:"opened"` // packets decapsulated
	Drops      uint64  `json:"drops"`
	Sleeps     uint64  `json:"sleeps"`
	Handovers  uint64  `json:"handovers"` // packets given to other workers
	FramesFree uint64  `json:"frames_free"`
}

// Port is one network interface.
type Port struct {
	Name   string  `json:"name"`
	Role   string  `json:"role"`   // protected, outside or both; kernel: the TUN device
	Mode   string  `json:"mode"`   // zero-copy, copy or generic; tun
	Reason string  `json:"reason"` // why this mode
	Up     bool    `json:"up"`
	MTU    int     `json:"mtu"` // bytes
	Queues []Queue `json:"queues"`
}

// Queue is one queue of a port with what its AF_XDP socket counted (XDP_STATISTICS).
type Queue struct {
	Queue      int    `json:"queue"`
	Worker     int    `json:"worker"`
	Received   uint64 `json:"received"`
	Sent       uint64 `json:"sent"`
	RxDropped  uint64 `json:"rx_dropped"`
	RxInvalid  uint64 `json:"rx_invalid"`
	TxInvalid  uint64 `json:"tx_invalid"`
	RxRingFull uint64 `json:"rx_ring_full"`
	FillEmpty  uint64 `json:"fill_empty"`
	TxEmpty    uint64 `json:"tx_empty"`
}

// Totals are the gateway's packets. Once the rings are idle,
// Received + Originated = Sent + Punted + Delivered + Merged + Dropped.
type Totals struct {
	Received   uint64 `json:"received"`
	Originated uint64 `json:"originated"`
	Sent       uint64 `json:"sent"`
	SentESP    uint64 `json:"sent_esp"` // of sent: sealed by this gateway
	Punted     uint64 `json:"punted"`
	Delivered  uint64 `json:"delivered"` // to IKE
	Merged     uint64 `json:"merged"`    // fragments of outer datagrams that were put together, but for one of each
	Dropped    uint64 `json:"dropped"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
	Fragments
}

// Fragments are the packets that were cut up, before encryption and after it, and the outer ones that were put together.
type Fragments struct {
	Fragmented    uint64 `json:"fragmented"`
	FragmentedESP uint64 `json:"fragmented_esp"`
	Reassembled   uint64 `json:"reassembled"`
}

// Paths is what ICMP errors about ESP packets of ours came to, and the probing of paths.
type Paths struct {
	Learned     uint64 `json:"learned"`     // path MTUs learned or confirmed
	Forgotten   uint64 `json:"forgotten"`   // path MTUs that grew too old
	Unreachable uint64 `json:"unreachable"` // passed on to a sender of inner packets
	Implausible uint64 `json:"implausible"` // quoted nothing that was sent lately, or said what cannot be
	Stale       uint64 `json:"stale"`       // said nothing new
	Probed      uint64 `json:"probed"`      // results of probing
	Lowered     uint64 `json:"lowered"`     // of these, less than was thought
	Raised      uint64 `json:"raised"`      // and more
}

// IKE are the figures of the key exchange, counted since the daemon's start.
type IKE struct {
	SAs             int         `json:"sas"`       // IKE SAs now, half-open ones too
	HalfOpen        int         `json:"half_open"` // of these, begun by peers that are not proven
	Received        uint64      `json:"received"`  // datagrams
	Sent            uint64      `json:"sent"`
	Retransmitted   uint64      `json:"retransmitted"` // requests of ours
	Repeated        uint64      `json:"repeated"`      // answers of ours
	Established     uint64      `json:"established"`
	Rekeyed         uint64      `json:"rekeyed"`
	Ended           uint64      `json:"ended"` // those that were never established too
	ChildrenUp      uint64      `json:"children_up"`
	ChildrenRekeyed uint64      `json:"children_rekeyed"`
	ChildrenRemoved uint64      `json:"children_removed"`
	ChildrenFailed  uint64      `json:"children_failed"`
	Hints           uint64      `json:"hints"` // unauthenticated notifies, which change nothing
	Panics          uint64      `json:"panics"`
	Exchanges       []Exchanges `json:"exchanges"`
}

// Exchanges counts those of one type.
type Exchanges struct {
	Name   string `json:"name"`
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
}

// IKESA is one IKE SA, in the order of swanctl --list-sas.
type IKESA struct {
	Name          string    `json:"name"`   // of the connection; empty while it is not known
	Number        uint64    `json:"number"` // of the daemon's life, from 1
	State         string    `json:"state"`
	Version       int       `json:"version"` // 2
	Initiator     bool      `json:"initiator"`
	InitiatorSPI  string    `json:"initiator_spi"` // 16 hexadecimal digits
	ResponderSPI  string    `json:"responder_spi"`
	LocalID       string    `json:"local_id"`
	LocalHost     string    `json:"local_host"`
	LocalPort     uint16    `json:"local_port"`
	LocalVIPs     []string  `json:"local_vips"` // that the peer gave us
	RemoteID      string    `json:"remote_id"`
	RemoteHost    string    `json:"remote_host"`
	RemotePort    uint16    `json:"remote_port"`
	RemoteVIPs    []string  `json:"remote_vips"` // that we gave the peer
	Proposal      string    `json:"proposal"`
	EstablishedAt time.Time `json:"established_at,omitzero"`
	RekeyAt       time.Time `json:"rekey_at,omitzero"`
	ReauthAt      time.Time `json:"reauth_at,omitzero"`
	ExpireAt      time.Time `json:"expire_at,omitzero"`
	LastIn        time.Time `json:"last_in,omitzero"` // the last authenticated message
	NATLocal      bool      `json:"nat_local"`
	NATRemote     bool      `json:"nat_remote"`
	Encap         bool      `json:"encap"`
	MOBIKE        bool      `json:"mobike"`
	Fragmentation bool      `json:"fragmentation"`
	PathProbing   string    `json:"path_probing"` // of the path MTU: on, off, or unanswered if the peer answers no probes
	Waiting       bool      `json:"waiting"`      // a request of ours has no answer yet
	Queued        int       `json:"queued"`       // exchanges that wait for it
	Worker        int       `json:"worker"`       // of the IKE server
	Children      []ChildSA `json:"children"`
}

// ChildSA is one child of an IKE SA.
type ChildSA struct {
	Name          string    `json:"name"`
	Number        uint64    `json:"number"` // of the daemon's life, from 1
	Tunnel        uint32    `json:"tunnel"` // of the data plane, what swanctl calls reqid
	State         string    `json:"state"`  // installed, rekeyed or deleting
	Mode          string    `json:"mode"`
	Protocol      string    `json:"protocol"`                // ESP
	Encap         string    `json:"encap"`                   // none or udp
	Interface     string    `json:"interface,omitempty"`     // the virtual interface whose traffic it carries
	Encapsulation string    `json:"encapsulation,omitempty"` // gre, gre key N or ipip
	Proposal      string    `json:"proposal"`
	InstalledAt   time.Time `json:"installed_at"`
	RekeyAt       time.Time `json:"rekey_at,omitzero"`
	ExpireAt      time.Time `json:"expire_at,omitzero"`
	In            Direction `json:"in"`
	Out           Direction `json:"out"`
	LocalTS       []string  `json:"local_ts"`
	RemoteTS      []string  `json:"remote_ts"`
}

// Direction is one association of a child.
type Direction struct {
	SPI      string    `json:"spi"` // 8 hexadecimal digits
	Bytes    uint64    `json:"bytes"`
	Packets  uint64    `json:"packets"`
	LastUsed time.Time `json:"last_used,omitzero"`
	Sequence uint64    `json:"sequence"`
	Window   uint32    `json:"window"` // packets; 0 for out
	Worker   int       `json:"worker"` // of the data plane; -1: none yet
	Drops    []Drop    `json:"drops"`
	Terms    []string  `json:"terms,omitempty"` // filter and rate limits of the inner packets, and what is not as usual of the outer ones
	Volume
	Path
}

// Volume is what an association may carry; what is left out is not bounded.
type Volume struct {
	RekeyBytes   uint64 `json:"rekey_bytes,omitempty"` // of inner packets, after which it is renewed
	LifeBytes    uint64 `json:"life_bytes,omitempty"`  // after which it ends
	RekeyPackets uint64 `json:"rekey_packets,omitempty"`
	LifePackets  uint64 `json:"life_packets,omitempty"`
	SequenceLeft uint64 `json:"sequence_left,omitempty"` // numbers that may still be sent; of out
}

// Path is what is known of the way that an outbound association's packets take, and what that means for those that are too large for it.
type Path struct {
	MTU           int       `json:"mtu,omitempty"`             // of outer packets, as configured; 0: that of the route
	PathMTU       int       `json:"path_mtu,omitempty"`        // as learned
	PathMTUAt     time.Time `json:"path_mtu_at,omitzero"`      // when it was learned, or confirmed
	PathMTUUntil  time.Time `json:"path_mtu_until,omitzero"`   // when larger packets are tried again
	PathMTUProbed bool      `json:"path_mtu_probed,omitempty"` // by packets that arrived, not learned of ICMP errors
	InnerMTU      int       `json:"inner_mtu,omitempty"`       // the largest inner packet that fits by all this; 0: not known
	Fragmented    uint64    `json:"fragmented,omitempty"`      // packets that were cut up before encryption
	FragmentedESP uint64    `json:"fragmented_esp,omitempty"`  // and after it
}

// Connection is a configured connection.
type Connection struct {
	Name        string            `json:"name"`
	LocalAddrs  []string          `json:"local_addrs"` // empty: any
	RemoteAddrs []string          `json:"remote_addrs"`
	LocalAuth   string            `json:"local_auth"`
	LocalID     string            `json:"local_id"` // empty: the address
	RemoteAuth  string            `json:"remote_auth"`
	RemoteID    string            `json:"remote_id"`
	Proposals   []string          `json:"proposals"`
	Priority    int               `json:"priority"`
	Pools       []string          `json:"pools"`
	IKESAs      int               `json:"ike_sas"` // established ones
	Children    []ConnectionChild `json:"children"`
}

// ConnectionChild is a configured child.
type ConnectionChild struct {
	Name        string   `json:"name"`
	Mode        string   `json:"mode"`
	StartAction string   `json:"start_action"`
	Proposals   []string `json:"proposals"`
	LocalTS     []string `json:"local_ts"`
	RemoteTS    []string `json:"remote_ts"`
	Installed   int      `json:"installed"` // child SAs
}

// Connections is the answer to conns.
type Connections struct {
	Connections []Connection `json:"connections"`
}

// Target names what up, down and rekey act on.
type Target struct {
	Name           string  `json:"name"`                      // CONNECTION or CONNECTION/CHILD
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"` // 0: 30
}

// Done is the answer to up, down and rekey.
type Done struct {
	Seconds float64 `json:"seconds"`
}

// SA is one association.
type SA struct {
	Name          string    `json:"name"`      // CONNECTION/CHILD
	Direction     string    `json:"direction"` // in or out
	SPI           string    `json:"spi"`       // 0x and 8 hexadecimal digits
	Suite         string    `json:"suite"`
	ESN           bool      `json:"esn"`
	Local         string    `json:"local"`                   // outer address
	Remote        string    `json:"remote"`                  // outer address
	Protocol      string    `json:"protocol"`                // ESP or AH
	Bundled       string    `json:"bundled,omitempty"`       // SPI of the AH around this ESP, or of the ESP in this AH
	Mode          string    `json:"mode"`                    // tunnel or transport
	Encap         string    `json:"encap"`                   // none or udp
	Interface     string    `json:"interface,omitempty"`     // the virtual interface whose traffic it carries
	Encapsulation string    `json:"encapsulation,omitempty"` // gre, gre key N or ipip
	Window        uint32    `json:"window"`                  // packets; 0 for out
	Sequence      uint64    `json:"sequence"`
	Packets       uint64    `json:"packets"`
	Bytes         uint64    `json:"bytes"`
	Drops         []Drop    `json:"drops"`
	Worker        int       `json:"worker"` // -1: none yet
	Manual        bool      `json:"manual"` // keys come from the configuration file
	InstalledAt   time.Time `json:"installed_at"`
	LocalTS       []string  `json:"local_ts"`
	RemoteTS      []string  `json:"remote_ts"`
	Terms         []string  `json:"terms,omitempty"` // filter and rate limits of the inner packets, and what is not as usual of the outer ones
	Volume
	Path
}

// SAQuery narrows the lists of IKE SAs and associations.
type SAQuery struct {
	Name  string `json:"name,omitempty"`  // CONNECTION or CONNECTION/CHILD
	Limit int    `json:"limit,omitempty"` // 0: 1000
}

// FlightQuery names the associations whose flight recorder is asked for.
type FlightQuery struct {
	Name string `json:"name"` // CONNECTION, CONNECTION/CHILD, or an SPI as 0x and hexadecimal digits
}

// Flights is the answer to recorder.
type Flights struct {
	Flights []Flight `json:"flights"`
}

// Flight is what is recorded of one association: its last packets, few of those that passed and every one that was dropped.
type Flight struct {
	Name      string         `json:"name"`            // CONNECTION/CHILD
	Direction string         `json:"direction"`       // in or out
	SPI       string         `json:"spi"`             // 0x and 8 hexadecimal digits
	Time      time.Time      `json:"time"`            // when it was copied
	Burst     string         `json:"burst,omitempty"` // the drop with which a burst of errors began, at which it was copied
	Ended     bool           `json:"ended"`           // the association is gone
	Passed    uint64         `json:"passed"`          // recorded in all, of which the last ones are here
	Dropped   uint64         `json:"dropped"`
	Packets   []FlightPacket `json:"packets"` // the oldest first
}

// FlightPacket is one packet's headers and what became of it. Addresses are those of the outer packet where Outer is set, and
// empty where the header was not to be read.
type FlightPacket struct {
	Time        time.Time `json:"time"`
	Outer       bool      `json:"outer"`
	Sequence    uint64    `json:"sequence"`
	Source      string    `json:"source,omitempty"`
	Destination string    `json:"destination,omitempty"`
	Protocol    uint8     `json:"protocol"`
	SourcePort  uint16    `json:"source_port,omitempty"`
	DestPort    uint16    `json:"destination_port,omitempty"`
	Length      int       `json:"length"`
	TTL         uint8     `json:"ttl"`
	TOS         uint8     `json:"tos"`
	Fragment    bool      `json:"fragment,omitempty"`
	DF          bool      `json:"df,omitempty"`
	Drop        string    `json:"drop,omitempty"` // empty: it passed
}

// SAs is the answer to sas. Total and TotalIKE count all that match, the lists hold up to the limit.
// SAs are the associations of the data plane, those of the IKE SAs' children too.
type SAs struct {
	TotalIKE int     `json:"total_ike"`
	IKESAs   []IKESA `json:"ike_sas"`
	Total    int     `json:"total"`
	SAs      []SA    `json:"sas"`
}

// Policy is one entry of the ordered policy list.
type Policy struct {
	Index    int      `json:"index"`
	Name     string   `json:"name"`
	Action   string   `json:"action"` // protect, bypass or discard
	Tunnel   string   `json:"tunnel"` // CONNECTION/CHILD under protect
	LocalTS  []string `json:"local_ts"`
	RemoteTS []string `json:"remote_ts"`
	Ready    bool     `json:"ready"` // protect: an outbound association is bound
	// Interface names the virtual interface that routes lead traffic into for it; it is not asked about anything else.
	Interface string `json:"interface,omitempty"`
	// Negotiated: it stands for as long as a child does, with the selectors that both sides agreed on.
	Negotiated bool `json:"negotiated,omitempty"`
}

// Policies is the answer to policies.
type Policies struct {
	Unmatched string   `json:"unmatched"` // what happens to traffic under no policy
	Policies  []Policy `json:"policies"`
}

// Drop is one reason and how many packets ended for it.
type Drop struct {
	Name     string `json:"name"`
	Severity string `json:"severity,omitempty"` // normal, warning or attack
	Packets  uint64 `json:"packets"`
	Sentence string `json:"sentence,omitempty"`
	Source   string `json:"source,omitempty"` // RFC and section
}

// Named is a counter.
type Named struct {
	Name     string `json:"name"`
	Value    uint64 `json:"value"`
	Sentence string `json:"sentence,omitempty"`
}

// Counters is the answer to counters: all of them, zeros included.
type Counters struct {
	Totals Totals  `json:"totals"`
	Paths  Paths   `json:"paths"`
	Drops  []Drop  `json:"drops"`
	XDP    []Named `json:"xdp"` // packets by verdict of the steering program
	// SteeringFailed is how often its maps could not be brought in line with addresses and policies; that is tried again every second.
	SteeringFailed uint64 `json:"steering_failed"`
	Ports          []Port `json:"ports"`
	IKE            IKE    `json:"ike"`
	// Reasons are why IKE discarded messages, and why exchanges, children and IKE SAs failed or ended.
	Reasons []Drop `json:"ike_reasons"`
}

// Reload is the answer to reload.
type Reload struct {
	Installed        int      `json:"installed"` // associations
	Removed          int      `json:"removed"`
	Unchanged        int      `json:"unchanged"`
	PoliciesChanged  bool     `json:"policies_changed"`
	EndpointsChanged bool     `json:"endpoints_changed"`
	PortsChanged     bool     `json:"ports_changed"`
	LogLevelChanged  bool     `json:"log_level_changed"`
	Connections      int      `json:"connections"` // that are negotiated
	Warnings         []string `json:"warnings"`
}

// Watch chooses packets for a trace or a capture. What is left out is any. A packet is chosen if it fits at one stage: an
// ESP packet by its outer addresses, and by those of what was in it.
type Watch struct {
	Packets int    `json:"packets"`               // a trace ends after so many, a capture too unless 0
	Name    string `json:"name,omitempty"`        // CONNECTION or CONNECTION/CHILD
	Source  string `json:"source,omitempty"`      // address or prefix
	Dest    string `json:"destination,omitempty"` // address or prefix
	Host    string `json:"host,omitempty"`        // address or prefix of either
	Port    uint16 `json:"port,omitempty"`        // either
	Proto   uint8  `json:"protocol,omitempty"`
	Drop    string `json:"drop,omitempty"` // a drop reason, or any
	Snap    int    `json:"snap,omitempty"` // bytes of each packet that a capture copies; 0: all
}

// Traced is the way of one packet through one worker. A packet that goes from worker to worker is traced by each.
type Traced struct {
	Worker int         `json:"worker"`
	Steps  []TraceStep `json:"steps"`
}

// TraceStep is a packet right after a stage that did something with it. Addresses and ports are those of the
// outermost IP header at that moment.
type TraceStep struct {
	Stage       string    `json:"stage"`
	Time        time.Time `json:"time"`
	Interface   string    `json:"interface"` // by which it came; at send, by which it leaves
	Length      int       `json:"length"`    // of the frame, bytes
	Source      string    `json:"source,omitempty"`
	Destination string    `json:"destination,omitempty"`
	Protocol    uint8     `json:"protocol,omitempty"`
	SourcePort  uint16    `json:"source_port,omitempty"`
	DestPort    uint16    `json:"destination_port,omitempty"`
	TTL         uint8     `json:"ttl,omitempty"`
	Class       string    `json:"class,omitempty"` // what is to be done with it: inbound, outbound, forward, punt, transmit, ike, waiting
	Association string    `json:"association,omitempty"`
	SPI         string    `json:"spi,omitempty"`
	Sequence    uint64    `json:"sequence,omitempty"`
	Window      uint32    `json:"window,omitempty"`  // of replay, packets
	Highest     uint64    `json:"highest,omitempty"` // sequence number in it, after this stage
	Drop        string    `json:"drop,omitempty"`
	ToWorker    *int      `json:"to_worker,omitempty"` // handed over; -1: the worker is not known yet
	Parked      bool      `json:"parked,omitempty"`    // waits for its neighbour's link address
}

// Watched is the last answer of a trace.
type Watched struct {
	Packets int `json:"packets"`
}
