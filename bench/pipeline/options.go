// Package pipeline measures the whole packet path in memory: one engine with an inside and an
// outside port, both of them queues in memory, and its workers stepped on goroutines of the
// caller's choice.
//
//	source ─ one copy a packet ─► RX ring ─ worker.Step ─ TX ring ─► discarded, one packet in 1,000 checked
//
// Nothing of the real path is left out: policy, association, sequence numbers with ESN, a
// replay window of 4096, counters, TTL, next hop, link header. What the worker does
// with sockets is not there: no system call, no kernel.
//
// Each worker is a lane with a source of its own: a set of frames, in an order that has nothing to do with the
// order of the associations in memory. When the gateway encrypts, they come round again. When it decrypts,
// the far end seals them afresh, outside the timed part, whenever they have all been used. The far end is the
// standard library's ciphers (farend.go), which also open what the gateway sealed.
package pipeline

import (
	"fmt"
	"math/bits"
	"net/netip"

	"sallyport/dataplane/transform"
)

// Options say what to measure. The zero value of a field means its default.
type Options struct {
	Decrypt bool
	Kind    Kind            // default IPv4
	Suite   transform.Suite // default AES-128-GCM
	// Sizes are the lengths of the inner datagrams, which follow each other in this order; default 64.
	Sizes []int
	// Associations, each with a policy and a pair of networks of its own, up to AssociationsMax; default 1.
	Associations int
	// Workers, each with a queue of each port, a share of the associations and a source of its own; default 1.
	Workers int
	// Flows are spread evenly over the associations; default 256, never fewer than associations.
	Flows int
	// Ring is the number of entries of each ring, a power of two; default 256.
	Ring int
	// Packets is how many different packets each source holds; default 1024, which larger sizes
	// read from beyond the second-level cache, as packets that arrive are.
	Packets int
	// Spare is the number of associations that there is room for beside those that carry packets.
	Spare int
}

// AssociationsMax is how many pairs of networks the rig's addresses are divided into at most: all hosts of
// the remote network, and eighths of the local one.
const AssociationsMax = 1 << (remoteBits + localBits)

const (
	remoteBits = 17
	localBits  = 3
)

// WorkersMax keeps the rig's memory within reason.
const WorkersMax = 16

// SizeMax is the largest inner datagram that fits an outer MTU of 1500 whatever the suite, and with AES-GCM whatever the kind.
const SizeMax = 1420

// SizeMin holds an IPv4 and a UDP header; of IPv6 it is 48.
const SizeMin = ipv4Len + udpLen

// IMIX is the usual mixture of sizes, 7 : 4 : 1, of which the largest is as large as fits the tunnel.
var IMIX = []int{64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64}

func (o Options) withDefaults() Options {
	if o.Suite == transform.None {
		o.Suite = transform.AES128GCM16
	}
	if len(o.Sizes) == 0 {
		o.Sizes = []int{64}
	}
	if o.Associations == 0 {
		o.Associations = 1
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Flows == 0 {
		o.Flows = 256
	}
	o.Flows = max(o.Flows, o.Associations)
	if o.Ring == 0 {
		o.Ring = 256
	}
	if o.Packets == 0 {
		o.Packets = 1024
	}
	return o
}

func (o *Options) check() error {
	if o.Associations < 0 || o.Associations > AssociationsMax {
		return fmt.Errorf("%d associations: 1 to %d are possible", o.Associations, AssociationsMax)
	}
	if o.Workers < 0 || o.Workers > min(WorkersMax, o.Associations) {
		return fmt.Errorf("%d workers: 1 to %d are possible, and an association for each", o.Workers, WorkersMax)
	}
	for _, s := range o.Sizes {
		if least := o.Kind.SizeMin(); s < least || s > SizeMax {
			return fmt.Errorf("packets of %d bytes: %d to %d are possible", s, least, SizeMax)
		}
	}
	return nil
}

// networks are those that association k protects. While there are few associations they differ in the remote
// network only.
func (o *Options) networks(k int) (local, remote netip.Prefix) {
	depth := bits.Len(uint(o.Associations - 1))
	deep := max(depth-remoteBits, 0)
	depth -= deep
	remote = netip.PrefixFrom(addr4(number4(theirNet.Addr())+uint32(k&(1<<depth-1))<<(remoteBits-depth)), theirNet.Bits()+depth)
	local = netip.PrefixFrom(addr4(number4(ourNet.Addr())+uint32(k>>depth)<<(32-ourNet.Bits()-deep)), ourNet.Bits()+deep)
	return local, remote
}
