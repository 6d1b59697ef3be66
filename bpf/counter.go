package bpf

import "fmt"

// Counter is a verdict of the steering program. Every frame is counted in exactly one.
type Counter = steerCounter

// Counters returns how many frames got each verdict since the program was
// loaded, summed over the CPUs and indexed by [Counter].
func (s *Steering) Counters() ([]uint64, error) {
	sums := make([]uint64, CounterCount)
	var cpus []uint64
	for c := range sums {
		if err := s.objs.Counters.Lookup(uint32(c), &cpus); err != nil {
			return nil, fmt.Errorf("reading steering counter %s: %w", CounterInfos[c].Name, err)
		}
		for _, n := range cpus {
			sums[c] += n
		}
	}
	return sums, nil
}

// The counters, in the order of types.h.
const (
	PassNotIP     = steerCounterCOUNTER_PASS_NOT_IP
	PassNeighbour = steerCounterCOUNTER_PASS_NEIGHBOUR
	PassLinkLocal = steerCounterCOUNTER_PASS_LINK_LOCAL
	PassMulticast = steerCounterCOUNTER_PASS_MULTICAST
	PassOwn       = steerCounterCOUNTER_PASS_OWN
	PassOther     = steerCounterCOUNTER_PASS_OTHER
	DropMalformed = steerCounterCOUNTER_DROP_MALFORMED
	DropTags      = steerCounterCOUNTER_DROP_TAGS
	DropVLAN      = steerCounterCOUNTER_DROP_VLAN
	DropKeepalive = steerCounterCOUNTER_DROP_KEEPALIVE
	ESP           = steerCounterCOUNTER_ESP
	AH            = steerCounterCOUNTER_AH
	ESPInUDP      = steerCounterCOUNTER_ESP_IN_UDP
	Protect       = steerCounterCOUNTER_PROTECT
	Cleartext     = steerCounterCOUNTER_CLEARTEXT
	Spoofed       = steerCounterCOUNTER_SPOOFED
	UDPFragment   = steerCounterCOUNTER_UDP_FRAGMENT
	ICMPError     = steerCounterCOUNTER_ICMP_ERROR
	IKEMessage    = steerCounterCOUNTER_IKE
	NoSocketDrop  = steerCounterCOUNTER_NO_SOCKET_DROP
	NoSocketPass  = steerCounterCOUNTER_NO_SOCKET_PASS
	CounterCount  = steerCounterCOUNTER_COUNT // number of counters, not a counter
)

// CounterInfo describes one counter.
type CounterInfo struct {
	Name     string // stable, kebab-case
	Sentence string
}

// CounterInfos is the table of counters, indexed by [Counter].
var CounterInfos = [CounterCount]CounterInfo{
	PassNotIP:     {"pass-not-ip", "The frame is neither IPv4 nor IPv6: to the kernel."},
	PassNeighbour: {"pass-neighbour", "Neighbour discovery, router or multicast listener message: to the kernel."},
	PassLinkLocal: {"pass-link-local", "A link-local address that no policy names: to the kernel."},
	PassMulticast: {"pass-multicast", "A multicast or broadcast address that no policy names: to the kernel."},
	PassOwn:       {"pass-own", "For the gateway itself: to the kernel."},
	PassOther:     {"pass-other", "No protect policy covers source and destination: to the kernel."},
	DropMalformed: {"drop-malformed", "A header is cut short or contradicts itself, so the packet cannot be judged: dropped."},
	DropTags:      {"drop-tags", "More VLAN tags than are looked through: dropped."},
	DropVLAN:      {"drop-vlan", "Of a VLAN, which is not served, though under a protect policy or IPsec: dropped."},
	DropKeepalive: {"drop-keepalive", "A NAT keepalive: swallowed."},
	ESP:           {"esp", "ESP to an endpoint: to a worker."},
	AH:            {"ah", "AH to an endpoint: to a worker."},
	ESPInUDP:      {"esp-in-udp", "ESP in UDP to an endpoint: to a worker."},
	Protect:       {"protect", "From the protected side under a protect policy: to a worker."},
	Cleartext:     {"cleartext", "From outside in the clear though under a protect policy: to a worker, who judges it."},
	Spoofed:       {"spoofed", "From the side its source address does not live on: to a worker, who drops it."},
	UDPFragment:   {"udp-fragment", "A fragment of a UDP datagram to an endpoint: to a worker."},
	ICMPError:     {"icmp-error", "An ICMP error about a packet that we sent under IPsec: to a worker."},
	IKEMessage:    {"ike", "An IKE message: to the IKE socket."},
	NoSocketDrop:  {"no-socket-drop", "Protected traffic, and no socket takes it: dropped."},
	NoSocketPass:  {"no-socket-pass", "IKE, a UDP fragment or an ICMP error, and no socket takes it: to the kernel."},
}
