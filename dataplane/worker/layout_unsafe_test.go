package worker

import (
	"math/bits"
	"testing"
	"unsafe"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/tools/asmlayout"
)

func TestGeneratorKnowsTheLayout(t *testing.T) {
	var (
		b packet.Batch
		p packet.Packet
		r outRun
		f flows
		e flowEntry4
		k known
		l departure
		o inRun
		h fib.Hop
	)
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"batchN": unsafe.Offsetof(b.N), "packetPort": unsafe.Offsetof(p.Port), "packetClass": unsafe.Offsetof(p.Class), "packetHop": unsafe.Offsetof(p.Hop),
		"packetReason": unsafe.Offsetof(p.Reason), "protoTCP": packet.ProtoTCP, "protoUDP": packet.ProtoUDP, "tcpSYN": tcpSYN,
		"classOutbound": uintptr(packet.ClassOutbound), "flagPorts": uintptr(packet.FlagPorts), "flagDF": uintptr(packet.FlagDF), "expressLen": expressLen,
		"outBatch": unsafe.Offsetof(r.b), "outFlows": unsafe.Offsetof(r.f), "outProtected": unsafe.Offsetof(r.protected), "outValid": unsafe.Offsetof(r.valid),
		"outSA": unsafe.Offsetof(r.sa), "outMTU": unsafe.Offsetof(r.mtu), "outHandle": unsafe.Offsetof(r.handle), "outHop": unsafe.Offsetof(r.hop),
		"outTunnel": unsafe.Offsetof(r.tunnel), "outOutbound": unsafe.Offsetof(r.outbound), "outList": unsafe.Offsetof(r.list),
		"outTook": unsafe.Offsetof(r.took), "outNext": unsafe.Offsetof(r.next),
		"outSlots": unsafe.Offsetof(r.slots), "outHops": unsafe.Offsetof(r.hops), "outMask": unsafe.Offsetof(r.mask), "outOwner": unsafe.Offsetof(r.owner), "outRoutes": unsafe.Offsetof(r.routes),
		"notPlain": uintptr(notPlain | sad.FlagInterface),
		"hopKind":  unsafe.Offsetof(h.Kind), "hopMTU": unsafe.Offsetof(h.MTU), "hopSize": unsafe.Sizeof(h), "kindForward": uintptr(fib.Forward), "kindsLead": uintptr(fib.Failed - fib.Forward + 1),
		"flowsPlaces": unsafe.Offsetof(f.places), "flowsShift": unsafe.Offsetof(f.shift), "flowsSeed": unsafe.Offsetof(f.seed),
		"flowRest": unsafe.Offsetof(e.rest), "flowAddrs": unsafe.Offsetof(e.addrs), "flowKnown": unsafe.Offsetof(e.known), "flowSize": unsafe.Sizeof(e),
		"knownValid": unsafe.Offsetof(k.generation), "knownWay": unsafe.Offsetof(k.way), "knownOf": unsafe.Offsetof(k.of), "classForward": uintptr(packet.ClassForward),
		"inRunBatch": unsafe.Offsetof(o.b), "inRunFlows": unsafe.Offsetof(o.f), "inRunIn": unsafe.Offsetof(o.in), "inRunList": unsafe.Offsetof(o.list),
		"inRunValid": unsafe.Offsetof(o.valid), "inRunRoutes": unsafe.Offsetof(o.routes), "inRunWay": unsafe.Offsetof(o.way), "inRunMTU": unsafe.Offsetof(o.mtu),
		"inRunNext": unsafe.Offsetof(o.next), "inRunKept": unsafe.Offsetof(o.kept), "inRunTook": unsafe.Offsetof(o.took),
		"departureBatch": unsafe.Offsetof(l.b), "departureList": unsafe.Offsetof(l.list), "departureDescs": unsafe.Offsetof(l.descs), "departureSealed": unsafe.Offsetof(l.sealed),
		"departureLink": unsafe.Offsetof(l.link), "departureHop": unsafe.Offsetof(l.hop), "departurePort": unsafe.Offsetof(l.port), "departureFlags": unsafe.Offsetof(l.flags),
		"flagSealedBit": uintptr(bits.TrailingZeros16(uint16(packet.FlagSealed))),
	})
	// What is read or written together, or counted on.
	if unsafe.Offsetof(p.Tunnel) != unsafe.Offsetof(p.Hop)+4 || unsafe.Offsetof(r.tunnel) != unsafe.Offsetof(r.hop)+4 ||
		unsafe.Offsetof(k.match) != 4 || unsafe.Offsetof(k.action) != 5 || unsafe.Sizeof(flowPlace4{}) != 128 || unsafe.Sizeof(p.Class) != 1 || unsafe.Sizeof(p.Reason) != 1 ||
		unsafe.Offsetof(p.DstPort) != unsafe.Offsetof(p.End)+4 || unsafe.Offsetof(p.SrcPort) != unsafe.Offsetof(p.End)+2 ||
		unsafe.Sizeof(l.link) != 24 || unsafe.Sizeof(packet.Desc{}) != 16 {
		t.Error("fields that the assembly takes together lie apart")
	}
	for _, kind := range []fib.Kind{fib.NoRoute, fib.Forward, fib.Unresolved, fib.Failed, fib.Local, fib.Unreachable, fib.Tunnel, fib.Multicast} {
		if leads(kind) != (kind-fib.Forward <= fib.Failed-fib.Forward) {
			t.Errorf("the assembly is wrong about where %s leads", kind)
		}
	}
}

// sunkPorts keeps the test's ports on the heap.
var sunkPorts []*port

// TestWorkersWriteApart holds that what one worker writes in each batch and what another one uses lie apart, however closely the values of
// the Go heap stand side by side.
func TestWorkersWriteApart(t *testing.T) {
	pairs := map[uintptr]bool{}
	for range 64 {
		sunkPorts = append(sunkPorts, &port{counters: new(QueueCounters)})
		pairs[uintptr(unsafe.Pointer(sunkPorts[len(sunkPorts)-1].counters))/packet.Apart] = true
	}
	if len(pairs) != len(sunkPorts) {
		t.Errorf("the counters of %d queues lie on %d pairs of cache lines", len(sunkPorts), len(pairs))
	}
	var (
		p port
		f flows
		r ring[uint64]
	)
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"ports of two workers", unsafe.Sizeof(p) - unsafe.Offsetof(p.failed) - unsafe.Sizeof(p.failed), 2 * packet.Apart},
		{"flows of two workers", unsafe.Sizeof(f) - unsafe.Offsetof(f.many) - unsafe.Sizeof(f.many), packet.Apart},
		{"a ring and what lies in front of it", unsafe.Offsetof(r.head), packet.Apart},
		{"consumer and producer of a ring", unsafe.Offsetof(r.tail) - unsafe.Offsetof(r.head), packet.Apart},
		{"what the producer of a ring writes and what both read", unsafe.Offsetof(r.mask) - unsafe.Offsetof(r.tail), packet.Apart},
	} {
		if c.got < c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}
