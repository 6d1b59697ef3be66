package packet

// Drop is the reason why a packet ended in the gateway. The table [Drops] gives
// each its name: the same word stands in Go, in the control tool, in metrics,
// traces and logs. Every packet that enters either leaves or lands in exactly
// one of these.
type Drop uint8

// The reasons, in the order of the packet's way.
const (
	DropNone Drop = iota

	DropRunt
	DropNotIP
	DropVLAN
	DropBadIPHeader
	DropBadIPChecksum
	DropBadExtensionHeader
	DropMartian

	DropOuterFragment
	DropBadFragment
	DropTinyFragment
	DropFragmentOverlap
	DropDuplicateFragment
	DropFragmentTooLarge
	DropFragmentLimit
	DropFragmentTimeout
	DropTransportFragment
	DropShortESP
	DropReservedSPI
	DropNoAssociation
	DropWrongEndpoint
	DropKeepalive
	DropBadAH
	DropUnexpectedIKE
	DropICMPHeeded
	DropICMPUnverified
	DropICMPExcess
	DropTooOld
	DropReplayed
	DropBadICV
	DropBadTrailer
	DropDummy
	DropBundleMismatch
	DropBadInner
	DropBadNextHeader
	DropBadGRE
	DropNotECNCapable
	DropSelectorMismatch

	DropCleartext
	DropSpoofed
	DropPolicyDiscard
	DropNoPolicy
	DropNoOutbound
	DropExposed
	DropFragmentNoPorts
	DropFiltered
	DropRateLimited
	DropLifetimeEnded
	DropTransportAddresses
	DropSequenceExhausted
	DropTooBig
	DropNoRoom
	DropPeerUnreachable

	DropTTLExpired
	DropTunnelLoop
	DropNoRoute
	DropUnreachable
	DropNeighbourUnresolved
	DropNeighbourFailed
	DropPortDown
	DropTxFull
	DropPuntFull
	DropIKEFull
	DropHandoverFull
	DropHandoverLoop
	DropStopped

	DropCount // number of reasons, not a reason
)

// Severity says how a person should read a drop counter that moves.
type Severity uint8

const (
	Normal  Severity = iota // expected in a healthy network
	Warning                 // something is misconfigured or overloaded
	Attack                  // someone sends what a correct peer does not
)

func (s Severity) String() string { return [...]string{"normal", "warning", "attack"}[s] }

// DropInfo describes one reason.
type DropInfo struct {
	Name     string // stable, kebab-case
	Severity Severity
	Sentence string
	Source   string // RFC and section, where one says so
}

// Drops is the table of drop reasons, indexed by [Drop].
var Drops = [DropCount]DropInfo{
	DropNone: {"none", Normal, "The packet was not dropped.", ""},

	DropRunt:               {"runt", Attack, "The frame ends before its Ethernet or IP header does.", ""},
	DropNotIP:              {"not-ip", Normal, "The frame is neither IPv4 nor IPv6.", ""},
	DropVLAN:               {"vlan", Warning, "The frame is of a VLAN. Only the untagged network of an interface is served.", ""},
	DropBadIPHeader:        {"bad-ip-header", Attack, "The IP version, header length or total length contradicts the frame.", "RFC 1812, 5.2.2"},
	DropBadIPChecksum:      {"bad-ip-checksum", Attack, "The IPv4 header checksum is wrong.", "RFC 1812, 5.2.2"},
	DropBadExtensionHeader: {"bad-extension-header", Attack, "The IPv6 extension header chain is cut short or too long.", "RFC 8200, 4"},
	DropMartian:            {"martian", Attack, "The source or destination address may not be forwarded.", "RFC 1812, 5.3.7"},

	DropOuterFragment:     {"outer-fragment", Attack, "A fragment of an outer packet reached decryption.", "RFC 4303, 3.4.1"},
	DropBadFragment:       {"bad-fragment", Attack, "A fragment without data, of a length that no fragment has, that contradicts the others of its datagram about its end, or with a mixture of ECN fields that no sender makes.", "RFC 8200, 4.5; RFC 3168, 5.3"},
	DropTinyFragment:      {"tiny-fragment", Attack, "A first fragment that ends before the SPI and sequence number.", "RFC 1858, 3"},
	DropFragmentOverlap:   {"fragment-overlap", Attack, "Fragments of one datagram overlap; all of them are dropped.", "RFC 5722, 3"},
	DropDuplicateFragment: {"duplicate-fragment", Normal, "An exact copy of a fragment that is there already.", "RFC 8200, 4.5"},
	DropFragmentTooLarge:  {"fragment-too-large", Warning, "The datagram is larger than a frame holds.", ""},
	DropFragmentLimit:     {"fragment-limit", Warning, "Too many fragments of one datagram, or too many that wait: another source takes less room.", "RFC 4301, 7"},
	DropFragmentTimeout:   {"fragment-timeout", Warning, "The rest of the datagram did not come in time.", "RFC 8200, 4.5"},
	DropTransportFragment: {"transport-fragment", Warning, "A fragment, under an association in transport mode, which carries whole datagrams only.", "RFC 4303, 3.3.4"},
	DropShortESP:          {"short-esp", Attack, "The ESP packet is too short for its header, IV, trailer and ICV, or not aligned.", "RFC 4303, 2"},
	DropReservedSPI:       {"reserved-spi", Attack, "The SPI lies in 0 to 255, which is reserved.", "RFC 4303, 2.1"},
	DropNoAssociation:     {"no-association", Warning, "No inbound association has this SPI.", "RFC 4303, 3.4.2"},
	DropWrongEndpoint:     {"wrong-endpoint", Attack, "The association exists, but not between these outer addresses or not with this encapsulation.", "RFC 4301, 4.1"},
	DropKeepalive:         {"keepalive", Normal, "A NAT keepalive: one byte 0xff on UDP 4500.", "RFC 3948, 2.3"},
	DropBadAH:             {"bad-ah", Attack, "AH is cut short, not as long as the association's ICV makes it, or behind options that cannot be authenticated.", "RFC 4302, 2.2 and 3.3.3"},
	DropUnexpectedIKE:     {"unexpected-ike", Normal, "An IKE message arrived, and no IKE runs here.", "RFC 3948, 2.2"},
	DropICMPHeeded:        {"icmp-heeded", Normal, "An ICMP error about ESP of ours: it is taken to heart if it quotes a packet that an association sent lately.", "RFC 4301, 8.2.1"},
	DropICMPUnverified:    {"icmp-unverified", Attack, "An ICMP error about ESP of ours that is damaged, or quotes too little to say which packet it is about.", "RFC 4301, 8.2.1"},
	DropICMPExcess:        {"icmp-excess", Warning, "More ICMP errors about ESP of ours arrive than are looked at.", "RFC 4301, 6"},
	DropTooOld:            {"too-old", Warning, "The sequence number lies left of the replay window.", "RFC 4303, 3.4.3"},
	DropReplayed:          {"replayed", Attack, "The sequence number was received before.", "RFC 4303, 3.4.3"},
	DropBadICV:            {"bad-icv", Attack, "The integrity check value does not match.", "RFC 4303, 3.4.4"},
	DropBadTrailer:        {"bad-trailer", Attack, "Pad length or padding contradicts the authenticated packet.", "RFC 4303, 2.4"},
	DropDummy:             {"dummy", Normal, "A dummy packet (next header 59), sent to hide traffic patterns.", "RFC 4303, 2.6"},
	DropBundleMismatch:    {"bundle-mismatch", Attack, "AH or ESP came alone, or with another association's of the other, where the association demands both.", "RFC 4301, 5.2"},
	DropBadInner:          {"bad-inner", Attack, "The decrypted packet is not a well-formed IP packet.", "RFC 4303, 3.4.4"},
	DropBadNextHeader:     {"bad-next-header", Warning, "The next header is not one that this association's mode carries.", "RFC 4303, 2.6"},
	DropBadGRE:            {"bad-gre", Warning, "The GRE header has a version, flags, a protocol, a checksum or a key that the interface does not.", "RFC 2784, 2; RFC 2890, 2.1"},
	DropNotECNCapable:     {"not-ecn-capable", Warning, "Congestion was marked on the way, but the decrypted packet's transport is not ECN-capable: the loss is the signal.", "RFC 6040, 4.2"},
	DropSelectorMismatch:  {"selector-mismatch", Attack, "The decrypted packet lies outside the association's selectors.", "RFC 4301, 5.2 step 4"},

	DropCleartext:          {"cleartext", Attack, "A cleartext packet arrived that policy says must be protected.", "RFC 4301, 5.2"},
	DropSpoofed:            {"spoofed", Attack, "A packet with a protected source arrived on an interface that is not protected.", "RFC 2827"},
	DropPolicyDiscard:      {"policy-discard", Normal, "A policy says discard.", "RFC 4301, 4.4.1"},
	DropNoPolicy:           {"no-policy", Warning, "No policy matches a packet that may leave only under one.", "RFC 4301, 5.1"},
	DropNoOutbound:         {"no-outbound", Warning, "Policy says protect, and no outbound association is installed, or came while the packet waited for one.", "RFC 4301, 5.1"},
	DropExposed:            {"exposed", Warning, "What came out of a tunnel would leave in the clear by an interface that is not protected: the route to the protected network is gone, or wrong.", "RFC 4301, 5.2"},
	DropFragmentNoPorts:    {"fragment-no-ports", Warning, "A later fragment has no ports, the policy selects by port, and the first fragment did not come before it.", "RFC 4301, 7"},
	DropFiltered:           {"filtered", Normal, "The tunnel's filter denies the packet.", "RFC 4301, 4.1"},
	DropRateLimited:        {"rate-limited", Normal, "The tunnel carries more than its rate limit allows in this direction.", ""},
	DropLifetimeEnded:      {"lifetime-ended", Warning, "The association has carried as many bytes or packets as it may.", "RFC 4301, 4.4.2.1"},
	DropSequenceExhausted:  {"sequence-exhausted", Warning, "The outbound association has used its last sequence number.", "RFC 4303, 3.3.3"},
	DropTooBig:             {"too-big", Normal, "The packet does not fit the tunnel's MTU; its sender is told by ICMP, within the rate limit.", "RFC 4301, 8.2.1"},
	DropPeerUnreachable:    {"peer-unreachable", Warning, "Somebody on the way said that packets of this association do not arrive; the sender of the next one is told by ICMP.", "RFC 2003, 4.5; RFC 4301, 6"},
	DropNoRoom:             {"no-room", Warning, "The frame has no room for the encapsulation.", ""},
	DropTransportAddresses: {"transport-addresses", Warning, "Policy says transport mode, which carries only what goes between the association's own two addresses.", "RFC 4301, 4.1"},

	DropTTLExpired:          {"ttl-expired", Normal, "Time to live or hop limit ran out; the sender is told by ICMP, within the rate limit.", "RFC 1812, 5.3.1"},
	DropTunnelLoop:          {"tunnel-loop", Warning, "The way to the association's peer leads into a tunnel interface: there is no more special route to the peer by an interface on the outside.", "RFC 2003, 4"},
	DropNoRoute:             {"no-route", Warning, "No route to the destination.", ""},
	DropUnreachable:         {"unreachable", Normal, "The route to the destination says unreachable, prohibit or blackhole.", ""},
	DropNeighbourUnresolved: {"neighbour-unresolved", Normal, "The next hop's link address is not known yet; the kernel was asked.", ""},
	DropNeighbourFailed:     {"neighbour-failed", Warning, "The next hop does not answer.", ""},
	DropPortDown:            {"port-down", Warning, "The egress interface is gone or down.", ""},
	DropTxFull:              {"tx-full", Warning, "The egress queue's TX ring is full.", ""},
	DropPuntFull:            {"punt-full", Warning, "The queue towards the kernel is full.", ""},
	DropIKEFull:             {"ike-full", Warning, "The queue towards IKE is full: more IKE datagrams arrive than are read.", ""},
	DropHandoverFull:        {"handover-full", Warning, "The ring to the association's worker is full.", ""},
	DropHandoverLoop:        {"handover-loop", Warning, "The packet was handed between workers too often.", ""},
	DropStopped:             {"stopped", Normal, "The packet was in the gateway when it stopped.", ""},
}

func (d Drop) String() string {
	if d < DropCount {
		return Drops[d].Name
	}
	return "invalid"
}
