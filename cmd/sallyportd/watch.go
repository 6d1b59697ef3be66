package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sallyport/cmd/internal/control"
	"sallyport/cmd/internal/version"
	"sallyport/dataplane"
	"sallyport/dataplane/packet"
)

// watchOf reads what the control tool asks to see.
func watchOf(w control.Watch) (*dataplane.Watch, error) {
	o := &dataplane.Watch{Packets: w.Packets}
	if w.Name != "" {
		o.Name = func(name string) bool { return named(name, w.Name) }
	}
	for _, f := range []struct {
		key, text string
		to        *netip.Prefix
	}{{"source", w.Source, &o.Filter.Src}, {"destination", w.Dest, &o.Filter.Dst}, {"host", w.Host, &o.Filter.Host}} {
		if f.text == "" {
			continue
		}
		if a, err := netip.ParseAddr(f.text); err == nil {
			*f.to = netip.PrefixFrom(a, a.BitLen())
		} else if *f.to, err = netip.ParsePrefix(f.text); err != nil {
			return nil, fmt.Errorf("%s %q is neither an address nor a prefix", f.key, f.text)
		}
	}
	o.Filter.Port, o.Filter.Proto = w.Port, w.Proto
	switch w.Drop {
	case "":
	case "any":
		o.Filter.Dropped = true
	default:
		i := slices.IndexFunc(packet.Drops[:], func(d packet.DropInfo) bool { return d.Name == w.Drop })
		if i <= int(packet.DropNone) {
			return nil, fmt.Errorf("drop %q is no reason for a drop; sallyport counters --all names them", w.Drop)
		}
		o.Filter.Reason = packet.Drop(i)
	}
	return o, nil
}

// Trace answers the verb trace.
func (p *packets) Trace(ctx context.Context, w control.Watch, f func(*control.Traced) error) error {
	o, err := watchOf(w)
	if err != nil {
		return err
	}
	return p.Engine.Trace(ctx, o, func(t *dataplane.Trace) error { return f(traced(t)) })
}

func traced(t *dataplane.Trace) *control.Traced {
	out := &control.Traced{Worker: t.Worker}
	for i := range t.Steps {
		s := &t.Steps[i]
		p := &s.Packet
		step := control.TraceStep{
			Stage: s.Stage.String(), Time: s.Time, Interface: s.Port, Length: int(p.Len), TTL: p.TTL, Class: p.Class.String(),
			Association: s.Association, Window: s.Window, Highest: s.Highest, Parked: s.Parked,
		}
		if f := &s.Flow; f.Version != 0 {
			step.Source, step.Destination, step.Protocol = f.SrcAddr().String(), f.DstAddr().String(), f.Proto
			if f.Flags&packet.FlagPorts != 0 {
				step.SourcePort, step.DestPort = f.SrcPort, f.DstPort
			}
		}
		if p.Class == packet.ClassInbound || p.Seq != 0 {
			step.SPI, step.Sequence = fmt.Sprintf("0x%08x", p.SPI), p.Seq
		}
		if p.Reason != packet.DropNone {
			step.Drop = p.Reason.String()
		}
		if s.Handed {
			step.ToWorker = &s.Owner
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}

// Capture answers the verb capture with pcapng (draft-ietf-opsawg-pcapng): an interface for each of ours, a comment at each packet.
func (p *packets) Capture(ctx context.Context, w control.Watch, ready func() error, out io.Writer) error {
	o, err := watchOf(w)
	if err != nil {
		return err
	}
	if w.Snap == 0 {
		w.Snap = dataplane.SnapMax
	}
	c := capture{out: out, ready: ready, snap: w.Snap, interfaces: map[string]int{}}
	if err := c.begin(p.Stats().Ports); err != nil {
		return err
	}
	lost, err := p.Engine.Capture(ctx, o, w.Snap, c.put)
	if err != nil {
		return err
	}
	return c.end(lost)
}

// capture writes one pcapng file.
type capture struct {
	out        io.Writer
	ready      func() error
	snap       int
	file       *pcapgo.NgWriter
	interfaces map[string]int
}

func (c *capture) begin(ports []dataplane.PortStats) error {
	if err := c.ready(); err != nil {
		return err
	}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "sallyportd " + version.String()}}
	for i, port := range ports {
		side := roleName(port.Role)
		if port.TUN {
			side = "kernel"
		}
		face := pcapgo.NgInterface{Name: port.Name, Description: side, LinkType: layers.LinkTypeEthernet, SnapLength: uint32(c.snap), TimestampResolution: 9}
		id, err := 0, error(nil)
		if i == 0 {
			c.file, err = pcapgo.NewNgWriterInterface(c.out, face, options)
		} else {
			id, err = c.file.AddInterface(face)
		}
		if err != nil {
			return err
		}
		c.interfaces[port.Name] = id
	}
	if c.file == nil {
		return fmt.Errorf("no interface to capture on")
	}
	return c.file.Flush()
}

func (c *capture) put(v *dataplane.Capture) error {
	id, ok := c.interfaces[v.Port]
	if !ok {
		return nil // IKE's way between workers and server: what it carries passes an interface too
	}
	info := gopacket.CaptureInfo{Timestamp: v.Time, CaptureLength: len(v.Data), Length: v.Len, InterfaceIndex: id}
	options := pcapgo.NgPacketOptions{}
	if text := comment(v); text != "" {
		options.Comments = []string{text}
	}
	flags := pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	if v.Sent {
		flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	options.Flags = &flags
	if err := c.file.WritePacketWithOptions(info, v.Data, options); err != nil || time.Since(v.Time) > behind {
		return err
	}
	return c.file.Flush()
}

// behind is how old packets are while more of them wait than are worth a write each.
const behind = 100 * time.Millisecond

// comment says what the gateway did with a packet, or why it made it.
func comment(v *dataplane.Capture) string {
	p := &v.Packet
	text := ""
	if v.Association != "" {
		text = v.Association
		if p.Seq != 0 {
			text += fmt.Sprintf(", SPI 0x%08x, sequence %d", p.SPI, p.Seq)
		}
	}
	switch {
	case p.Reason != packet.DropNone && text != "":
		return text + ", dropped: " + p.Reason.String()
	case p.Reason != packet.DropNone:
		return "dropped: " + p.Reason.String()
	}
	return text
}

// end tells in the file what it lacks.
func (c *capture) end(lost uint64) error {
	for _, id := range c.interfaces {
		stats := pcapgo.NgInterfaceStatistics{PacketsReceived: pcapgo.NgNoValue64, PacketsDropped: pcapgo.NgNoValue64}
		if id == 0 {
			stats.PacketsDropped = lost
		}
		if err := c.file.WriteInterfaceStats(id, stats); err != nil {
			return err
		}
	}
	return c.file.Flush()
}
