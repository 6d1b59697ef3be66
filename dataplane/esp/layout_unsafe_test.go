package esp

import (
	"testing"
	"unsafe"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/tools/asmlayout"
)

func TestGeneratorKnowsTheLayout(t *testing.T) {
	var (
		b packet.Batch
		p packet.Packet
		o sad.Outbound
		r plainOutbound
	)
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"frameSize": packet.FrameSize, "tailSlack": packet.TailSlack, "batchMax": packet.BatchMax,
		"etherLen": packet.EtherLen, "ipv4Len": ipv4Len, "ipv4DF": ipv4DF, "protoESP": packet.ProtoESP,
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
		"plainFront": plainFront, "trailerLen": trailerLen,
	})
	// Fields that are written together.
	if unsafe.Offsetof(p.L4) != unsafe.Offsetof(p.L3)+2 || unsafe.Offsetof(p.Proto) != unsafe.Offsetof(p.End)+7 || unsafe.Offsetof(p.Version) != unsafe.Offsetof(p.End)+6 ||
		unsafe.Offsetof(p.TTL) != unsafe.Offsetof(p.TOS)+1 || unsafe.Offsetof(p.Flags) != unsafe.Offsetof(p.TOS)+2 ||
		unsafe.Offsetof(p.Slot) != unsafe.Offsetof(p.SPI)+4 || unsafe.Offsetof(o.Slot) != unsafe.Offsetof(o.SPI)+4 {
		t.Error("fields that the assembly writes together lie apart")
	}
}
