package esp

import (
	"testing"
	"unsafe"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
	"sallyport/tools/asmlayout"
)

func TestGeneratorKnowsTheLayout(t *testing.T) {
	var (
		b packet.Batch
		p packet.Packet
		o sad.Outbound
		r plainOutbound
		a plainInbound
		k plainTaken
		f packet.Flow
		s *Scratch
	)
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"frameSize": packet.FrameSize, "tailSlack": packet.TailSlack, "batchMax": packet.BatchMax,
		"etherLen": packet.EtherLen, "ipv4Len": ipv4Len, "ipv4DF": ipv4DF, "protoESP": packet.ProtoESP,
		"protoIPv4": packet.ProtoIPv4, "protoTCP": packet.ProtoTCP, "protoUDP": packet.ProtoUDP,
		"batchFlows": unsafe.Offsetof(b.Flows), "packetFlowSrc": unsafe.Offsetof(f.Src), "packetFlowDst": unsafe.Offsetof(f.Dst), "packetFlowRest": unsafe.Offsetof(f.SrcPort), "packetFlowSize": unsafe.Sizeof(f),
		"flagsOpened": uintptr(packet.FlagDecapsulated | packet.FlagPorts),
		"openBatch":   unsafe.Offsetof(a.b), "openLive": unsafe.Offsetof(a.live), "openOps": unsafe.Offsetof(a.ops),
		"openTop": unsafe.Offsetof(a.top), "openBytes": unsafe.Offsetof(a.bytes), "openIn": unsafe.Offsetof(a.in), "openFrom": unsafe.Offsetof(a.from), "openEnd": unsafe.Offsetof(a.end),
		"openRuns": unsafe.Offsetof(a.runs), "openRun": unsafe.Offsetof(a.run), "openNow": unsafe.Offsetof(a.now), "openDue": unsafe.Offsetof(a.due),
		"flagEncap": uintptr(sad.FlagEncap), "openRunSize": unsafe.Sizeof(openRun{}),
		"openFront": unsafe.Offsetof(a.front), "openECN": unsafe.Offsetof(a.ecn),
		"batchN": unsafe.Offsetof(b.N), "packetPort": unsafe.Offsetof(p.Port), "packetClass": unsafe.Offsetof(p.Class), "packetSlot": unsafe.Offsetof(p.Slot),
		"classInbound": uintptr(packet.ClassInbound),
		"takeBatch":    unsafe.Offsetof(k.b), "takeOps": unsafe.Offsetof(k.ops), "takeFirst": unsafe.Offsetof(k.first), "takeAddresses": unsafe.Offsetof(k.addresses),
		"takeIn": unsafe.Offsetof(k.in), "takeFrom": unsafe.Offsetof(k.from), "takeFind": unsafe.Offsetof(k.find), "takeRuns": unsafe.Offsetof(k.runs), "takeDone": unsafe.Offsetof(k.done),
		"notTurned": uintptr(notTurned), "takeGCM": unsafe.Offsetof(k.gcm), "takeHi": unsafe.Offsetof(k.hi), "takeAbove": unsafe.Offsetof(k.above), "takeSlot": unsafe.Offsetof(k.slot),
		"takePort": unsafe.Offsetof(k.port), "takeLate": unsafe.Offsetof(k.late),
		"batchMem": unsafe.Offsetof(b.Mem), "batchP": unsafe.Offsetof(b.P),
		"packetAddr": unsafe.Offsetof(p.Addr), "packetLen": unsafe.Offsetof(p.Len), "packetL3": unsafe.Offsetof(p.L3), "packetEnd": unsafe.Offsetof(p.End),
		"packetVersion": unsafe.Offsetof(p.Version), "packetTOS": unsafe.Offsetof(p.TOS), "packetFlags": unsafe.Offsetof(p.Flags),
		"packetSPI": unsafe.Offsetof(p.SPI), "packetSeq": unsafe.Offsetof(p.Seq), "packetSize": unsafe.Sizeof(p),
		"flagsKept":   uintptr(packet.FlagLocal | packet.FlagRouted),
		"outboundSPI": unsafe.Offsetof(o.SPI), "outboundSeqMax": unsafe.Offsetof(o.SeqMax), "outboundHeaderSum": unsafe.Offsetof(o.HeaderSum),
		"outboundHeader": unsafe.Offsetof(o.Header),
		"plainBatch":     unsafe.Offsetof(r.b), "plainLive": unsafe.Offsetof(r.live), "plainSA": unsafe.Offsetof(r.sa), "plainOf": unsafe.Offsetof(r.o),
		"plainOps": unsafe.Offsetof(r.ops), "plainLengths": unsafe.Offsetof(r.lengths), "plainGCM": unsafe.Offsetof(r.gcm),
		"plainTOSMask": unsafe.Offsetof(r.tosMask), "plainCopyDF": unsafe.Offsetof(r.copyDF), "plainSetDF": unsafe.Offsetof(r.setDF),
		"plainID": unsafe.Offsetof(r.id), "plainSeq": unsafe.Offsetof(r.seq), "plainBytes": unsafe.Offsetof(r.bytes),
		"plainFrom": unsafe.Offsetof(r.from), "plainKeys": unsafe.Offsetof(r.keys), "plainNow": unsafe.Offsetof(r.now), "plainDue": unsafe.Offsetof(r.due), "plainRuns": unsafe.Offsetof(r.runs), "plainDone": unsafe.Offsetof(r.done),
		"otherForm": uintptr(notPlain), "runSize": unsafe.Sizeof(run{}), "plainHeader": plainHeaderLen,
		"plainFront": plainFront, "trailerLen": trailerLen,
	})
	asmlayout.Check(t, "layout.go", map[string]uintptr{"keyRounds": keyRounds})
	if packet.FlagDF != 1<<3 || flowAddrLo() != 8 {
		t.Error("the assembly has Don't Fragment or an address otherwise")
	}
	if sad.FlagESN != 1<<2 || sad.FlagECN != 1<<3 || sad.FlagCopyDSCP != 1<<4 || sad.FlagCopyDF != 1<<5 || sad.FlagSetDF != 1<<6 {
		t.Error("the assembly has an association's flags otherwise")
	}
	// Fields that are written together, and a run's order.
	var one run
	var open openRun
	if unsafe.Offsetof(one.sa) != 0 || unsafe.Offsetof(one.packets) != 8 || unsafe.Offsetof(one.bytes) != 16 || unsafe.Offsetof(open.sa) != 0 || unsafe.Offsetof(open.packets) != 8 {
		t.Error("the assembly has a run otherwise")
	}
	if unsafe.Offsetof(p.L4) != unsafe.Offsetof(p.L3)+2 || unsafe.Offsetof(p.Proto) != unsafe.Offsetof(p.End)+7 || unsafe.Offsetof(p.Version) != unsafe.Offsetof(p.End)+6 ||
		unsafe.Offsetof(p.TTL) != unsafe.Offsetof(p.TOS)+1 || unsafe.Offsetof(p.Flags) != unsafe.Offsetof(p.TOS)+2 ||
		unsafe.Offsetof(p.Slot) != unsafe.Offsetof(p.SPI)+4 || unsafe.Offsetof(o.Slot) != unsafe.Offsetof(o.SPI)+4 {
		t.Error("fields that the assembly writes together lie apart")
	}
	if unsafe.Sizeof(*s) < unsafe.Offsetof(s.ECNAlarms)+unsafe.Sizeof(s.ECNAlarms)+packet.Apart {
		t.Error("the next value on the heap lies too near")
	}
}

// flowAddrLo is the offset of the low half of an address.
func flowAddrLo() uintptr { return unsafe.Offsetof(packet.Addr{}.Lo) }

// breakKey makes a key one that seals nothing, but says that it is one of AES-GCM still: it has no rounds.
func breakKey(k *transform.Key) {
	*(*uint32)(unsafe.Add(unsafe.Pointer(k), keyRounds)) = 0
}

// keyRounds is where an expanded key of AES-GCM has the number of rounds.
const keyRounds = 256
