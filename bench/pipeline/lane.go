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
		inner := datagram(local, remote, uint16(1024+flow), o.Sizes[i%len(o.Sizes)])
		frame := append(bytes.Clone(etherHead), inner...)
		if o.Decrypt {
			frame = append(bytes.Clone(etherHead), outer(l.rig.far[k].sealedLen(len(inner)))...)
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
	for i, f := range l.source {
		l.rig.far[l.owner[i]].seal(f[len(etherHead)+20:], l.inner[i])
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
	port := byte(outside)
	if l.rig.o.Decrypt {
		port = inside
	}
	if head := []byte{2, 0, 0, 0, 3, port, 2, 0, 0, 0, 2, port, 8, 0}; len(frame) < 34 || !bytes.Equal(frame[:14], head) {
		return errors.New("the link header is wrong")
	}
	ip := frame[14:]
	if int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || sum16(ip[:20]) != 0xffff {
		return errors.New("the IPv4 header is wrong")
	}
	if !l.rig.o.Decrypt {
		if ip[9] != 50 || binary.BigEndian.Uint32(ip[12:]) != number4(ours) || binary.BigEndian.Uint32(ip[16:]) != number4(theirs) {
			return errors.New("it does not go to the peer")
		}
		var err error
		if ip, err = l.rig.far[l.owner[i]].open(ip[20:]); err != nil {
			return err
		}
	}
	want := bytes.Clone(l.inner[i])
	want[8]--
	want[10], want[11] = 0, 0
	binary.BigEndian.PutUint16(want[10:], ^sum16(want[:20]))
	if !bytes.Equal(ip, want) {
		return errors.New("the inner packet differs")
	}
	return nil
}
