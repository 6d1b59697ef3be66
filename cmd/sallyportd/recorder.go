package main

import (
	"fmt"
	"strconv"
	"strings"

	"sallyport/cmd/internal/control"
	"sallyport/dataplane"
	"sallyport/dataplane/packet"
)

// Recorder answers the verb recorder.
func (g *gateway) Recorder(q control.FlightQuery) (control.Flights, error) {
	match := func(name string, _ uint32) bool { return named(name, q.Name) }
	if digits, ok := strings.CutPrefix(q.Name, "0x"); ok {
		want, err := strconv.ParseUint(digits, 16, 32)
		if err != nil {
			return control.Flights{}, fmt.Errorf("recorder: %q is no SPI", q.Name)
		}
		match = func(_ string, spi uint32) bool { return spi == uint32(want) }
	}
	list := g.engine.Recorder(match)
	if len(list) == 0 {
		return control.Flights{}, fmt.Errorf("no association has this name or SPI: %s", q.Name)
	}
	return control.Flights{Flights: list}, nil
}

// Recorder translates the engine's flight recorders into the control socket's terms.
func (p *packets) Recorder(match func(name string, spi uint32) bool) (list []control.Flight) {
	for _, f := range p.Engine.Flights(match) {
		out := control.Flight{
			Name: f.Name, Direction: "out", SPI: fmt.Sprintf("0x%08x", f.SPI), Time: f.At, Ended: !f.Exists,
			Passed: f.Passed, Dropped: f.Dropped, Packets: []control.FlightPacket{},
		}
		if f.Handle.Inbound() {
			out.Direction = "in"
		}
		if f.Burst != packet.DropNone {
			out.Burst = f.Burst.String()
		}
		for i := range f.Records {
			r := &f.Records[i]
			x := control.FlightPacket{
				Time: dataplane.RecordTime(r), Outer: r.Outer, Sequence: r.Sequence, Protocol: r.Proto, Length: int(r.Len), TTL: r.TTL, TOS: r.TOS,
				Fragment: r.Flags&packet.FlagFragment != 0, DF: r.Flags&packet.FlagDF != 0,
			}
			if r.Version != 0 {
				x.Source, x.Destination = r.Src.Netip(r.Version).String(), r.Dst.Netip(r.Version).String()
			}
			if r.Flags&packet.FlagPorts != 0 {
				x.SourcePort, x.DestPort = r.SrcPort, r.DstPort
			}
			if r.Reason != packet.DropNone {
				x.Drop = r.Reason.String()
			}
			out.Packets = append(out.Packets, x)
		}
		list = append(list, out)
	}
	return list
}
