package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/worker"
)

// watched is a gateway that runs by itself, and a hand that lets frames arrive until something has seen enough.
type watched struct {
	*gateway
	t *testing.T
}

func newWatched(t *testing.T, workers int) *watched {
	return newWatchedBy(t, options{workers: workers, queues: workers})
}

func newWatchedBy(t *testing.T, o options) *watched {
	o.live = true
	g := newGateway(t, sideB, sideA, o)
	g.tunnel(sideB, sideA, o, 0x2001, 0x1001)
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	return &watched{g, t}
}

// during lets the frames arrive at a port again and again while f runs, and takes away what leaves.
func (g *watched) during(port int, frames [][]byte, f func()) (left [][]byte) {
	stop := make(chan struct{})
	var hand sync.WaitGroup
	hand.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
			g.queues[port][i%len(g.queues[port])].Inject(frames[i%len(frames)])
			for _, queues := range g.queues {
				for _, q := range queues {
					q.Drain(func(f []byte) { left = append(left, bytes.Clone(f)) })
				}
			}
		}
	})
	f()
	close(stop)
	hand.Wait()
	return left
}

// way writes a trace in short.
func way(t *Trace) string {
	var out []string
	for _, s := range t.Steps {
		text := s.Stage.String()
		if s.Packet.Reason != packet.DropNone {
			text += " " + s.Packet.Reason.String()
		}
		if s.Handed {
			text += fmt.Sprintf(" to %d", s.Owner)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// trace returns the ways of n packets.
func (g *watched) trace(port, n int, frames [][]byte, change func(*Watch)) (ways []string, traces []*Trace) {
	g.t.Helper()
	w := &Watch{Packets: n}
	if change != nil {
		change(w)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g.during(port, frames, func() {
		err := g.Trace(ctx, w, func(t *Trace) error {
			// A trace is good during the call only.
			kept := &Trace{Worker: t.Worker}
			for _, s := range t.Steps {
				m := *s.Moment
				s.Moment = &m
				kept.Steps = append(kept.Steps, s)
			}
			ways, traces = append(ways, way(kept)), append(traces, kept)
			return nil
		})
		if err != nil || len(ways) != n {
			g.t.Fatalf("%d packets traced, want %d: %v", len(ways), n, err)
		}
	})
	return ways, traces
}

func TestTraceFollowsAPacketThroughTheStages(t *testing.T) {
	a, _ := newRig(t, options{})
	// More than can arrive before the trace has begun: each passes once.
	var fresh [][]byte
	for range 3000 {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		fresh = append(fresh, a.drain(outside)...)
	}
	b := newWatched(t, 1)

	// Out: the record changes its addresses where it is sealed.
	ways, traces := b.trace(inside, 2, [][]byte{udp4("198.51.100.200", "198.51.100.5", 100, 64)}, nil)
	if ways[0] != "take, classify, admit, seal, send" {
		t.Errorf("an outbound packet goes %s", ways[0])
	}
	first, last := traces[0].Steps, traces[1].Steps
	for i, want := range []struct{ port, association, src string }{
		{"in", "", "invalid"}, {"in", "rig", "198.51.100.200"}, {"in", "rig", "198.51.100.200"}, {"in", "rig", "192.0.2.2"}, {"out", "rig", "192.0.2.2"},
	} {
		s := first[i]
		src := "invalid"
		if s.Flow.Version != 0 {
			src = s.Flow.SrcAddr().String()
		}
		if s.Port != want.port || s.Association != want.association || src != want.src {
			t.Errorf("%s: port %q, association %q, source %s; want %v", s.Stage, s.Port, s.Association, src, want)
		}
		if i > 0 && s.At < first[i-1].At {
			t.Errorf("%s is before %s", s.Stage, first[i-1].Stage)
		}
	}
	if last[4].Packet.Seq != first[4].Packet.Seq+1 {
		t.Errorf("sequences %d and %d", first[4].Packet.Seq, last[4].Packet.Seq)
	}

	// In: a new one passes, another copy is a replay.
	fromA := func(w *Watch) { w.Filter.Src = netip.MustParsePrefix("192.0.2.1/32") }
	ways, traces = b.trace(outside, 1, fresh, fromA)
	if ways[0] != "take, classify, open, route, forward, send" {
		t.Errorf("an inbound packet goes %v", ways)
	}
	if s := traces[0].Steps[2]; s.Association != "rig" || s.Packet.Seq == 0 || s.Flow.SrcAddr() != netip.MustParseAddr("198.51.100.5") {
		t.Errorf("opened: %+v %+v", s, s.Moment)
	}
	ways, traces = b.trace(outside, 5, fresh[:1], fromA)
	if s := traces[4].Steps[2]; ways[4] != "take, classify, open replayed" || s.Window == 0 || s.Highest < 1 || s.Association != "rig" {
		t.Errorf("replayed: %v, %+v %+v", ways, s, s.Moment)
	}

	// Answered by ICMP: the packet ends by name, its answer is another packet.
	ways, _ = b.trace(inside, 1, [][]byte{udp4("198.51.100.200", "198.51.100.5", 100, 1)}, func(w *Watch) { w.Filter.Dropped, w.Filter.Reason = true, packet.DropTTLExpired })
	if ways[0] != "take, classify, admit ttl-expired" {
		t.Errorf("a packet without TTL goes %v", ways)
	}
	b.Stop()
	b.settled()
}

func TestTraceFiltersByWhatIsInside(t *testing.T) {
	b := newWatched(t, 1)
	frames := [][]byte{udp4("198.51.100.200", "198.51.100.5", 100, 64), udp4("198.51.100.201", "198.51.100.6", 100, 64), udp6("2001:db8:b::9", "2001:db8:a::1", 100, 64), {1, 2, 3}}
	for name, c := range map[string]struct {
		change func(*Watch)
		want   func(*packet.Flow) bool
	}{
		"source": {func(w *Watch) { w.Filter.Src = netip.MustParsePrefix("198.51.100.201/32") }, func(f *packet.Flow) bool { return f.SrcAddr().String() == "198.51.100.201" }},
		"host":   {func(w *Watch) { w.Filter.Host = netip.MustParsePrefix("2001:db8:a::/48") }, func(f *packet.Flow) bool { return f.Version == 6 }},
		"dest":   {func(w *Watch) { w.Filter.Dst = netip.MustParsePrefix("198.51.100.5/32") }, func(f *packet.Flow) bool { return f.DstAddr().String() == "198.51.100.5" }},
		"name":   {func(w *Watch) { w.Name = func(n string) bool { return n == "rig" } }, func(f *packet.Flow) bool { return f.Version != 0 }},
		"port":   {func(w *Watch) { w.Filter.Port = 5000 }, func(f *packet.Flow) bool { return f.DstPort == 5000 }},
	} {
		_, traces := b.trace(inside, 5, frames, c.change)
		for _, tr := range traces {
			if len(tr.Steps) < 2 || !c.want(&tr.Steps[1].Flow) {
				t.Errorf("%s: traced %s", name, way(tr))
			}
		}
	}
	if ways, _ := b.trace(inside, 2, frames, func(w *Watch) { w.Filter.Reason = packet.DropRunt }); ways[0] != "take, classify runt" {
		t.Errorf("by reason: %v", ways)
	}
	// What fits nothing is not traced, and the trace ends with its context.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	b.during(inside, frames, func() {
		err := b.Trace(ctx, &Watch{Packets: 1, Name: func(string) bool { return false }}, func(tr *Trace) error {
			t.Errorf("traced %s", way(tr))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	b.Stop()
	b.settled()
}

// TestTraceShowsHandOver sends the packets of one association to two workers: one of them has to give them away.
func TestTraceShowsHandOver(t *testing.T) {
	b := newWatched(t, 2)
	frames := [][]byte{udp4("198.51.100.200", "198.51.100.5", 100, 64)}
	ways, traces := b.trace(inside, 40, frames, nil)
	given, taken := 0, 0
	for i, w := range ways {
		switch w {
		case "take, classify, admit to 0", "take, classify, admit to 1":
			given++
			if last := traces[i].Steps[2]; last.Owner == traces[i].Worker {
				t.Error("handed to itself")
			}
		case "take, admit, seal, send":
			taken++
		case "take, classify, admit, seal, send":
		default:
			t.Errorf("a packet goes %s", w)
		}
	}
	if given == 0 || taken == 0 {
		t.Errorf("%d given, %d taken up: %v", given, taken, ways)
	}
	b.Stop()
	b.settled()
}

func TestOneTraceAtATime(t *testing.T) {
	b := newWatched(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.Trace(ctx, &Watch{Packets: TraceMax + 1}, nil); err == nil {
		t.Error("more than the bound")
	}
	if _, err := b.Capture(ctx, &Watch{}, SnapMax+1, nil); err == nil {
		t.Error("more bytes than there are")
	}
	var both sync.WaitGroup
	both.Go(func() {
		if err := b.Trace(ctx, &Watch{Packets: 1}, func(*Trace) error { return nil }); err != nil {
			t.Error(err)
		}
	})
	both.Go(func() {
		if _, err := b.Capture(ctx, &Watch{}, 64, func(*Capture) error { return nil }); err != nil {
			t.Error(err)
		}
	})
	for !b.watches.tracing.Load() || !b.watches.capturing.Load() {
		time.Sleep(time.Millisecond)
	}
	if err := b.Trace(ctx, &Watch{Packets: 1}, nil); !errors.Is(err, ErrWatched) {
		t.Errorf("a second trace: %v", err)
	}
	if _, err := b.Capture(ctx, &Watch{}, 64, nil); !errors.Is(err, ErrWatched) {
		t.Errorf("a second capture: %v", err)
	}
	cancel()
	both.Wait()
	// The end of the gateway ends them too, and afterwards there is nothing to watch.
	both.Go(func() { b.Trace(context.Background(), &Watch{Packets: 1}, func(*Trace) error { return nil }) })
	for !b.watches.tracing.Load() {
		time.Sleep(time.Millisecond)
	}
	b.Stop()
	both.Wait()
	if err := b.Trace(context.Background(), &Watch{Packets: 1}, nil); err == nil {
		t.Error("a trace of a gateway that has stopped")
	}
	b.settled()
}

func TestCaptureSeesBothSidesOfTheTunnel(t *testing.T) {
	b := newWatched(t, 1)
	plain := udp4("198.51.100.200", "198.51.100.5", 700, 64)
	type copied struct {
		worker.Captured
		port, association string
		data              []byte
	}
	var got []copied
	left := b.during(inside, [][]byte{plain, {1, 2, 3}}, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		lost, err := b.Capture(ctx, &Watch{Packets: 60}, SnapMax, func(c *Capture) error {
			got = append(got, copied{*c.Captured, c.Port, c.Association, bytes.Clone(c.Data)})
			return nil
		})
		if err != nil || lost != 0 || len(got) != 60 {
			t.Fatalf("%d captured, %d lost: %v", len(got), lost, err)
		}
	})
	sent := map[string]bool{}
	for _, f := range left {
		sent[string(f)] = true
	}
	in, out, runts := 0, 0, 0
	for _, c := range got {
		switch {
		case c.Packet.Reason == packet.DropRunt:
			runts++
			if c.Sent || !bytes.Equal(c.data, []byte{1, 2, 3}) || c.association != "" {
				t.Errorf("a runt: %+v", c)
			}
		case c.Sent:
			out++
			if c.port != "out" || c.association != "rig" || !sent[string(c.data)] {
				t.Errorf("sent by %s, association %q, and not what left: %x", c.port, c.association, c.data)
			}
		default:
			in++
			if c.port != "in" || !bytes.Equal(c.data, plain) || c.Packet.Seq == 0 {
				t.Errorf("received by %s, sequence %d: %x", c.port, c.Packet.Seq, c.data)
			}
		}
	}
	if in == 0 || runts == 0 || out < in-1 || out > in {
		t.Errorf("%d in, %d out, %d runts", in, out, runts)
	}

	// A filter chooses, and a short snap length keeps the length on the wire.
	b.during(inside, [][]byte{plain, {1, 2, 3}}, func() {
		w := &Watch{Packets: 4}
		w.Filter.Proto = packet.ProtoUDP
		if _, err := b.Capture(context.Background(), w, 20, func(c *Capture) error {
			if len(c.Data) != 20 || c.Len < len(plain) {
				t.Errorf("%d bytes of %d", len(c.Data), c.Len)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	b.Stop()
	b.settled()
}

// TestCaptureKnowsWhatBecameOfPacketsHandedOver: of two workers one hands the packets of a tunnel to the other, which drops them; each is copied once, with the reason.
func TestCaptureKnowsWhatBecameOfPacketsHandedOver(t *testing.T) {
	b := newWatched(t, 2)
	expired := udp4("198.51.100.200", "198.51.100.5", 100, 1)
	handed, kept := 0, 0
	b.during(inside, [][]byte{expired}, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for ctx.Err() == nil && (handed == 0 || kept == 0) {
			_, err := b.Capture(ctx, &Watch{Packets: 200}, SnapMax, func(c *Capture) error {
				switch {
				case c.Sent: // the answer
				case c.Packet.Reason != packet.DropTTLExpired || c.Port != "in" || !bytes.Equal(c.Data, expired):
					t.Errorf("received by %s and ended by %q: %x", c.Port, c.Packet.Reason, c.Data)
				case c.Packet.Handovers > 0:
					handed++
				default:
					kept++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	if handed == 0 || kept == 0 {
		t.Errorf("%d packets were handed over, %d not: the test shows nothing", handed, kept)
	}
	b.Stop()
	b.settled()
}
