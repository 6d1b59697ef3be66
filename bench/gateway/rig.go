// Package gateway measures the whole packet path in memory: one engine with an inside and an
// outside port, both of them queues in memory, and its one worker stepped on the
// caller's goroutine.
//
//	source ─ one copy a packet ─► RX ring ─ worker.Step ─ TX ring ─► discarded, one packet in 1,000 checked
//
// Nothing of the real path is left out: policy, association, sequence numbers with ESN, a
// replay window of 4096, counters, TTL, next hop, link header. What the worker does
// with sockets is not there: no system call, no kernel.
//
// When it encrypts, the source is a set of frames, one of each flow, that come round again. When
// it decrypts, it is a ring of packets which the far end seals afresh, outside the
// timed part, whenever they have all been used. The far end is the
// standard library's ciphers (peer.go), which also open what the gateway sealed.
package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"sallyport/dataplane"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/dataplane/worker"
)

// Options say what to measure. The zero value of a field means its default.
type Options struct {
	Decrypt bool
	Suite   transform.Suite // default AES-128-GCM
	// Sizes are the lengths of the inner IPv4 datagrams, which follow each other in this order; default 64.
	Sizes []int
	// Associations, each with a policy and a remote prefix of its own, up to AssociationsMax; default 1.
	Associations int
	// Flows are spread evenly over the associations; default 256, never fewer than associations.
	Flows int
	// Ring is the number of entries of each ring, a power of two; default 256.
	Ring int
	// Sealed is how many packets the far end seals at a time; default 4096.
	Sealed int
}

// AssociationsMax is how many prefixes 198.18.0.0/15 is divided into at most.
const AssociationsMax = 1 << 16

// SizeMax is the largest inner datagram that fits an outer MTU of 1500 whatever the suite.
const SizeMax = 1420

// SizeMin holds an IPv4 and a UDP header.
const SizeMin = 28

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
	if o.Flows == 0 {
		o.Flows = 256
	}
	o.Flows = max(o.Flows, o.Associations)
	if o.Ring == 0 {
		o.Ring = 256
	}
	if o.Sealed == 0 {
		o.Sealed = 4096
	}
	return o
}

func (o *Options) check() error {
	if o.Associations < 0 || o.Associations > AssociationsMax {
		return fmt.Errorf("%d associations: 1 to %d are possible", o.Associations, AssociationsMax)
	}
	for _, s := range o.Sizes {
		if s < SizeMin || s > SizeMax {
			return fmt.Errorf("packets of %d bytes: %d to %d are possible", s, SizeMin, SizeMax)
		}
	}
	return nil
}

// Ports of the rig.
const (
	inside = iota
	outside
)

// The rig's addresses: the gateway, its peer, and the networks behind them.
var (
	ours      = netip.MustParseAddr("192.0.2.1")
	theirs    = netip.MustParseAddr("192.0.2.2")
	ourNet    = netip.MustParsePrefix("198.51.100.0/24")
	theirNet  = netip.MustParsePrefix("198.18.0.0/15")
	firstESN  = uint64(1<<32 - 100) // outbound numbers begin here, so that both halves are in use
	etherHead = []byte{2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 8, 0}
)

// Rig is a gateway with its source and sink. One goroutine uses it.
type Rig struct {
	o      Options
	engine *dataplane.Engine
	worker *worker.Worker
	in     *memio.Queue
	out    *memio.Queue
	peers  []*peer
	begun  time.Time

	source [][]byte // frames as they are injected
	owner  []int    // the association of each
	inner  [][]byte // the inner datagram of each
	next   int      // first of source that is not used yet

	carried, seen, failed int
	failure               error
	check                 func([]byte)
}

// New makes a rig. Close gives its memory back.
func New(o Options) (*Rig, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Rig{o: o, begun: time.Now()}
	if err := r.open(); err != nil {
		r.Close()
		return nil, err
	}
	r.check = r.compare
	r.load()
	return r, nil
}

func (r *Rig) open() (err error) {
	hop := func(port uint16) fib.Hop {
		return fib.Hop{Kind: fib.Forward, Port: port, MTU: 1500, SrcMAC: [6]byte{2, 0, 0, 0, 2, byte(port)}, DstMAC: [6]byte{2, 0, 0, 0, 3, byte(port)}}
	}
	r.engine, err = dataplane.New(dataplane.Config{
		RingSize: r.o.Ring, Associations: r.o.Associations, ClampMSS: true,
		FIB: fib.Build(1, []fib.Entry{{Prefix: ourNet, Hop: hop(inside)}, {Prefix: netip.PrefixFrom(theirs, 32), Hop: hop(outside)}}),
		Ports: []dataplane.PortConfig{
			{Name: "inside", Role: worker.Protected, Queues: make([]worker.Queue, 1)},
			{Name: "outside", Role: worker.Outside, Queues: make([]worker.Queue, 1)},
		},
	}, nil, zerolog.Nop())
	if err != nil {
		return err
	}
	if r.in, err = memio.NewQueue(r.engine.Mem(), r.o.Ring); err != nil {
		return err
	}
	if r.out, err = memio.NewQueue(r.engine.Mem(), r.o.Ring); err != nil {
		return err
	}
	r.engine.SetQueues(inside, []worker.Queue{r.in})
	r.engine.SetQueues(outside, []worker.Queue{r.out})
	if r.o.Decrypt {
		r.in, r.out = r.out, r.in
	}
	r.engine.SetOwn([]netip.Addr{ours})
	workers, err := r.engine.Manual()
	if err != nil {
		return err
	}
	r.worker = workers[0]
	if err := r.install(); err != nil {
		return err
	}
	r.worker.Step(0) // fills the fill rings
	return nil
}

// install makes the associations, both directions of each, and their policies.
func (r *Rig) install() error {
	policies := make([]spd.Policy, r.o.Associations)
	random := rand.NewChaCha8([32]byte{})
	for k := range policies {
		selectors := []spd.Selector{{
			Local: []spd.Range{spd.RangeOf(ourNet)}, Remote: []spd.Range{spd.RangeOf(r.prefix(k))},
			LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts,
		}}
		policies[k] = spd.Policy{Name: fmt.Sprint("tunnel ", k), Action: spd.Protect, Selectors: selectors, Tunnel: uint32(k)}
		keymat := make([]byte, r.o.Suite.Info().KeyLen)
		random.Read(keymat)
		p := sad.Params{
			Name: policies[k].Name, Suite: r.o.Suite, Keymat: keymat, Local: ours, Remote: theirs,
			ESN: true, Window: 4096, Selectors: selectors, CopyDSCP: true, CopyDF: true, ECN: true,
		}
		far, err := newPeer(p.Suite, keymat)
		if err != nil {
			return err
		}
		r.peers = append(r.peers, far)
		p.Inbound = true
		in, err := r.engine.Install(p)
		if err != nil {
			return err
		}
		p.Inbound, p.SPI, p.Sequence = false, 0x10000+uint32(k), firstESN
		out, err := r.engine.Install(p)
		if err != nil {
			return err
		}
		if err := r.engine.Bind(uint32(k), out); err != nil {
			return err
		}
		far.spi, far.seq = p.SPI, p.Sequence
		if r.o.Decrypt {
			far.spi, far.seq = in.Value(), 0
		}
	}
	return r.engine.Apply(dataplane.Policies{SPD: policies, Endpoints: []netip.Addr{ours}})
}

// prefix is the network behind association k.
func (r *Rig) prefix(k int) netip.Prefix {
	depth := bits.Len(uint(r.o.Associations - 1))
	return netip.PrefixFrom(addr4(number4(theirNet.Addr())+uint32(k)<<(17-depth)), theirNet.Bits()+depth)
}

func number4(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// load makes the source's frames.
func (r *Rig) load() {
	frames := max(r.o.Flows, len(r.o.Sizes))
	if r.o.Decrypt {
		frames = r.o.Sealed
	}
	frames = (frames + packet.BatchMax - 1) / packet.BatchMax * packet.BatchMax
	for i := range frames {
		flow := i % r.o.Flows
		k := flow % r.o.Associations
		remote := r.prefix(k)
		host := uint32(flow/r.o.Associations) & (1<<(32-remote.Bits()) - 1)
		local, far := number4(ourNet.Addr())+uint32(1+flow%250), number4(remote.Addr())+host
		if r.o.Decrypt {
			local, far = far, local
		}
		inner := datagram(local, far, uint16(1024+flow), r.o.Sizes[i%len(r.o.Sizes)])
		frame := append(bytes.Clone(etherHead), inner...)
		if r.o.Decrypt {
			frame = append(bytes.Clone(etherHead), outer(r.peers[k].sealedLen(len(inner)))...)
		}
		r.source, r.owner, r.inner = append(r.source, frame), append(r.owner, k), append(r.inner, inner)
	}
	r.Refresh()
}

// datagram returns an IPv4 datagram with UDP of size bytes.
func datagram(src, dst uint32, port uint16, size int) []byte {
	h := make([]byte, size)
	header4(h, 17, src, dst)
	udp := h[20:]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 4000)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := 8; i < len(udp); i++ {
		udp[i] = byte(i*7) + byte(port)
	}
	return h
}

// outer returns an IPv4 datagram from the peer with room for an ESP packet of size bytes.
func outer(size int) []byte {
	h := make([]byte, 20+size)
	header4(h, 50, number4(theirs), number4(ours))
	return h
}

func header4(h []byte, proto byte, src, dst uint32) {
	h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint32(h[12:], src)
	binary.BigEndian.PutUint32(h[16:], dst)
	binary.BigEndian.PutUint16(h[10:], ^sum16(h[:20]))
}

// sum16 is the one's complement sum of b, whose length is even (RFC 1071).
func sum16(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// Left returns how many packets can be carried before the source needs Refresh.
func (r *Rig) Left() int { return len(r.source) - r.next }

// Refresh readies the source for another round. Sealing costs as much as carrying, so it stays outside
// what is timed.
func (r *Rig) Refresh() {
	r.next = 0
	if !r.o.Decrypt {
		return
	}
	for i, f := range r.source {
		r.peers[r.owner[i]].seal(f[len(etherHead)+20:], r.inner[i])
	}
}

// Carry takes one batch through the gateway and returns its packets. Left must not be 0. It does
// not allocate.
func (r *Rig) Carry() int {
	n := r.in.InjectBatch(r.source[r.next : r.next+packet.BatchMax])
	r.next += packet.BatchMax
	r.worker.Step(int64(time.Since(r.begun)))
	out, _ := r.out.Discard(packet.BatchMax)
	r.carried += n
	if out != packet.BatchMax {
		r.failed++
	}
	return n
}

// Verify carries one batch like Carry and checks every byte of what comes out. Left must not be 0.
func (r *Rig) Verify() error {
	r.seen, r.failure = 0, nil
	r.in.InjectBatch(r.source[r.next : r.next+packet.BatchMax])
	r.worker.Step(int64(time.Since(r.begun)))
	r.out.Drain(r.check)
	r.next += packet.BatchMax
	if r.failure == nil && r.seen != packet.BatchMax {
		r.failure = fmt.Errorf("%d of %d packets came out: drops %v", r.seen, packet.BatchMax, r.drops())
	}
	return r.failure
}

// compare checks the next packet of a batch.
func (r *Rig) compare(frame []byte) {
	i := r.next + r.seen
	r.seen++
	if r.failure != nil || i >= len(r.source) {
		return
	}
	if err := r.judge(frame, i); err != nil {
		r.failure = fmt.Errorf("packet %d of a batch, association %d, %d bytes: %w", r.seen, r.owner[i], len(r.inner[i]), err)
	}
}

func (r *Rig) judge(frame []byte, i int) error {
	port := byte(outside)
	if r.o.Decrypt {
		port = inside
	}
	if head := []byte{2, 0, 0, 0, 3, port, 2, 0, 0, 0, 2, port, 8, 0}; len(frame) < 34 || !bytes.Equal(frame[:14], head) {
		return errors.New("the link header is wrong")
	}
	ip := frame[14:]
	if int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || sum16(ip[:20]) != 0xffff {
		return errors.New("the IPv4 header is wrong")
	}
	if !r.o.Decrypt {
		if ip[9] != 50 || binary.BigEndian.Uint32(ip[12:]) != number4(ours) || binary.BigEndian.Uint32(ip[16:]) != number4(theirs) {
			return errors.New("it does not go to the peer")
		}
		var err error
		if ip, err = r.peers[r.owner[i]].open(ip[20:]); err != nil {
			return err
		}
	}
	want := bytes.Clone(r.inner[i])
	want[8]--
	want[10], want[11] = 0, 0
	binary.BigEndian.PutUint16(want[10:], ^sum16(want[:20]))
	if !bytes.Equal(ip, want) {
		return errors.New("the inner packet differs")
	}
	return nil
}

// drops returns the drop counters that are not zero.
func (r *Rig) drops() map[string]uint64 {
	out := map[string]uint64{}
	for reason, n := range r.engine.Stats().Drops {
		if n > 0 {
			out[packet.Drop(reason).String()] = n
		}
	}
	return out
}

// Close gives the rig's memory back.
func (r *Rig) Close() {
	for _, q := range []*memio.Queue{r.in, r.out} {
		if q != nil {
			q.Close()
		}
	}
	if r.engine != nil {
		r.engine.Close()
	}
}
