package main

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"sallyport/cmd/internal/control"
	"sallyport/dataplane"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/worker"
)

func TestWatchReadsFilters(t *testing.T) {
	o, err := watchOf(control.Watch{Packets: 3, Name: "site-b", Source: "198.51.100.1", Dest: "2001:db8::/32", Host: "203.0.113.0/24", Port: 80, Proto: 6, Drop: "replayed"})
	if err != nil {
		t.Fatal(err)
	}
	f := &o.Filter
	if o.Packets != 3 || f.Src != netip.MustParsePrefix("198.51.100.1/32") || f.Dst != netip.MustParsePrefix("2001:db8::/32") || f.Host != netip.MustParsePrefix("203.0.113.0/24") ||
		f.Port != 80 || f.Proto != 6 || f.Reason != packet.DropReplayed || f.Dropped {
		t.Errorf("%+v", f)
	}
	if !o.Name("site-b/net") || o.Name("site-bb/net") {
		t.Error("the name of a connection stands for its children, and for nothing else")
	}
	if o, err = watchOf(control.Watch{Drop: "any"}); err != nil || !o.Filter.Dropped || o.Filter.Reason != packet.DropNone || o.Name != nil {
		t.Errorf("%+v %v", o, err)
	}
	for _, w := range []control.Watch{{Source: "x"}, {Dest: "1.2.3"}, {Host: "::/129"}, {Drop: "none"}, {Drop: "replay"}} {
		if _, err := watchOf(w); err == nil {
			t.Errorf("%+v is taken", w)
		}
	}
}

// What is captured is read back by a reader of pcapng: interfaces, directions, lengths, comments.
func TestCaptureIsPcapng(t *testing.T) {
	var file bytes.Buffer
	ready := 0
	c := capture{out: &file, ready: func() error { ready++; return nil }, snap: 64, interfaces: map[string]int{}}
	if err := c.begin([]dataplane.PortStats{{Name: "lan", Role: worker.Protected}, {Name: "wan", Role: worker.Outside}, {Name: "sp-default", TUN: true}}); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	sealed := packet.Packet{Seq: 9, SPI: 0x1001, Class: packet.ClassOutbound}
	for _, v := range []dataplane.Capture{
		{Captured: &worker.Captured{Packet: sealed, Len: 60}, Time: at, Port: "lan", Association: "site-b/net", Data: make([]byte, 60)},
		{Captured: &worker.Captured{Packet: sealed, Len: 130, Sent: true}, Time: at, Port: "wan", Association: "site-b/net", Data: make([]byte, 64)},
		{Captured: &worker.Captured{Packet: packet.Packet{Reason: packet.DropRunt}, Len: 3}, Time: at, Port: "wan", Data: make([]byte, 3)},
		{Captured: &worker.Captured{Len: 3}, Time: at, Port: "ike", Data: make([]byte, 3)},
	} {
		if err := c.put(&v); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.end(5); err != nil || ready != 1 {
		t.Fatal(err, ready)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name, side, comment string
		kept, length        int
		direction           pcapgo.NgEpbFlag
	}{
		{"lan", "protected", "site-b/net, SPI 0x00001001, sequence 9", 60, 60, pcapgo.NgEpbFlagDirectionInbound},
		{"wan", "outside", "site-b/net, SPI 0x00001001, sequence 9", 64, 130, pcapgo.NgEpbFlagDirectionOutbound},
		{"wan", "outside", "dropped: runt", 3, 3, pcapgo.NgEpbFlagDirectionInbound},
	} {
		data, info, options, err := r.ReadPacketDataWithOptions()
		if err != nil {
			t.Fatal(err)
		}
		face, _ := r.Interface(info.InterfaceIndex)
		if face.Name != want.name || face.Description != want.side || len(data) != want.kept || info.Length != want.length || !info.Timestamp.Equal(at) {
			t.Errorf("%+v %+v, want %+v", face, info, want)
		}
		if strings.Join(options.Comments, "|") != want.comment || options.Flags == nil || options.Flags.Direction != want.direction {
			t.Errorf("%+v, want %+v", options, want)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("IKE's way between workers and server is captured as well: %v", err)
	}
	if face, _ := r.Interface(0); face.Statistics.PacketsDropped != 5 {
		t.Errorf("%+v", face.Statistics)
	}
}
