package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/worker"
)

// Lane is one worker with its source and sink. One goroutine uses it.
type Lane struct {
	rig    *Rig
	worker *worker.Worker
	in     *memio.Queue
	out    *memio.Queue

	source [][]byte // frames as they are injected
	owner  []int    // the association of each
	inner  [][]byte // the inner datagram of each
	next   int      // first of source that is not used yet

	seen, failed int
	failure      error
	check        func([]byte)
	_            [packet.Apart]byte // other lanes lie no nearer
}

func newLane(r *Rig, number int, w *worker.Worker, in, out *memio.Queue) *Lane {
	l := &Lane{rig: r, worker: w, in: in, out: out}
	l.check = l.compare
	w.Step(0) // fills the fill rings
	l.load(number)
	return l
}

// load makes the source's frames: flows of the associations that fall to this lane.
func (l *Lane) load(number int) {
	o := &l.rig.o
	associations := (o.Associations - number + o.Workers - 1) / o.Workers
	flows := max(o.Flows/o.Workers, associations)
	frames := max(o.Packets, flows, len(o.Sizes))
	frames = (frames + packet.BatchMax - 1) / packet.BatchMax * packet.BatchMax
	order := rand.New(rand.NewPCG(1, uint64(number))).Perm(flows)
	for i := range frames {
		flow := order[i%flows]
		k := flow%associations*o.Workers + number
		localNet, remoteNet := o.networks(k)
		host := func(n netip.Prefix, i int) uint32 { return number4(n.Addr()) + uint32(i)&(1<<(32-n.Bits())-1) }
		local, remote := host(localNet, 1+flow/associations), host(remoteNet, flow/associations)
		if o.Decrypt {
			local, remote = remote, local
		}
		inner := datagram(o.Kind.inner(), local, remote, uint16(1024+flow), o.Sizes[i%len(o.Sizes)])
		frame := append(linkHeader(etherHead, o.Kind.inner()), inner...)
		if o.Decrypt {
			frame = append(linkHeader(etherHead, o.Kind.outer()), o.Kind.outerDatagram(l.rig.far[k].sealedLen(len(inner)))...)
		}
		l.source, l.owner, l.inner = append(l.source, frame), append(l.owner, k), append(l.inner, inner)
	}
	l.Refresh()
}

// Left returns how many packets can be carried before the source needs Refresh.
func (l *Lane) Left() int { return len(l.source) - l.next }

// Refresh readies the source for another round. Sealing costs as much as carrying, so it stays outside
// what is timed.
func (l *Lane) Refresh() {
	l.next = 0
	if !l.rig.o.Decrypt {
		return
	}
	front := len(etherHead) + l.rig.o.Kind.outerLen()
	for i, f := range l.source {
		l.rig.far[l.owner[i]].seal(f[front:], l.inner[i])
	}
}

// Carry takes one batch through the gateway and returns its packets. Left must not be 0. It does
// not allocate.
func (l *Lane) Carry() int {
	n := l.in.InjectBatch(l.source[l.next : l.next+packet.BatchMax])
	l.next += packet.BatchMax
	l.worker.Step(int64(time.Since(l.rig.begun)))
	out, _ := l.out.Discard(packet.BatchMax)
	if out != packet.BatchMax {
		l.failed++
	}
	return n
}

// Verify carries one batch like Carry and checks every byte of what comes out. Left must not be 0.
func (l *Lane) Verify() error {
	l.seen, l.failure = 0, nil
	l.in.InjectBatch(l.source[l.next : l.next+packet.BatchMax])
	l.worker.Step(int64(time.Since(l.rig.begun)))
	l.out.Drain(l.check)
	l.next += packet.BatchMax
	if l.failure == nil && l.seen != packet.BatchMax {
		l.failure = fmt.Errorf("%d of %d packets came out: drops %v", l.seen, packet.BatchMax, l.rig.drops())
	}
	return l.failure
}

// compare checks the next packet of a batch.
func (l *Lane) compare(frame []byte) {
	i := l.next + l.seen
	l.seen++
	if l.failure != nil || i >= len(l.source) {
		return
	}
	if err := l.judge(frame, i); err != nil {
		l.failure = fmt.Errorf("packet %d of a batch, association %d, %d bytes: %w", l.seen, l.owner[i], len(l.inner[i]), err)
	}
}

func (l *Lane) judge(frame []byte, i int) error {
	kind, port := l.rig.o.Kind, byte(outside)
	version := kind.outer()
	if l.rig.o.Decrypt {
		port, version = inside, kind.inner()
	}
	if head := linkHeader([]byte{2, 0, 0, 0, 3, port, 2, 0, 0, 0, 2, port}, version); len(frame) < 14+headerLen(version) || !bytes.Equal(frame[:14], head) {
		return errors.New("the link header is wrong")
	}
	ip := frame[14:]
	if version == 4 && (int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || sum16(ip[:ipv4Len]) != 0xffff) {
		return errors.New("the IPv4 header is wrong")
	}
	if version == 6 && (ip[0]>>4 != 6 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-ipv6Len) {
		return errors.New("the IPv6 header is wrong")
	}
	if !l.rig.o.Decrypt {
		if err := kind.judgeOuter(ip); err != nil {
			return err
		}
		var err error
		if ip, err = l.rig.far[l.owner[i]].open(ip[kind.outerLen():]); err != nil {
			return err
		}
	}
	want := bytes.Clone(l.inner[i])
	if kind.inner() == 6 {
		want[7]--
	} else {
		want[8]--
		want[10], want[11] = 0, 0
		binary.BigEndian.PutUint16(want[10:], ^sum16(want[:ipv4Len]))
	}
	if !bytes.Equal(ip, want) {
		return errors.New("the inner packet differs")
	}
	return nil
}

// judgeOuter says what is wrong with the headers in front of ESP in a datagram to the peer, whose lengths were looked at.
func (k Kind) judgeOuter(ip []byte) error {
	proto, addresses := ip[9], ip[12:20]
	if k.outer() == 6 {
		proto, addresses = ip[6], ip[8:40]
	}
	want := append(addrOf(k.outer(), number4(ours)).AsSlice(), addrOf(k.outer(), number4(theirs)).AsSlice()...)
	if !bytes.Equal(addresses, want) {
		return errors.New("it does not go to the peer")
	}
	if k != NATT {
		if proto != 50 {
			return fmt.Errorf("it has protocol %d", proto)
		}
		return nil
	}
	udp := ip[headerLen(k.outer()):]
	if proto != 17 || len(udp) < udpLen || binary.BigEndian.Uint64(udp) != ourPort<<48|theirPort<<32|uint64(len(udp))<<16 {
		return errors.New("it is not in UDP as it should be")
	}
	return nil
}

// linkHeader returns a link header for an IP version that begins like head.
func linkHeader(head []byte, version uint8) []byte {
	if version == 6 {
		return append(bytes.Clone(head[:12]), 0x86, 0xdd)
	}
	return append(bytes.Clone(head[:12]), 0x08, 0x00)
}
