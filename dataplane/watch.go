package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// Trace is the way of one packet through one worker.
type Trace struct {
	Worker int
	Steps  []TraceStep
}

// TraceStep is one moment of it with the names of what its numbers stand for.
type TraceStep struct {
	*worker.Moment
	Time        time.Time
	Port        string // by which the packet came; at the stage send, by which it leaves
	Association string
}

// Capture is a copy of a packet.
type Capture struct {
	*worker.Captured
	Time        time.Time
	Port        string
	Association string
	Data        []byte // the frame, or the beginning of it; good until the callback returns
}

// Watch says which packets a trace or a capture is of.
type Watch struct {
	Filter worker.Filter
	// Name, if set, chooses packets by the names of their associations.
	Name func(string) bool
	// Packets ends it after so many; for a capture 0 is no bound.
	Packets int
}

// Bounds of Watch.
const (
	TraceMax = 10000 // packets
	SnapMax  = packet.LenMax
	// watchEvery is how often what the workers found is collected.
	watchEvery = 20 * time.Millisecond
	// namesEvery is how often the associations that a name stands for are looked up.
	namesEvery = time.Second
)

// ErrWatched is returned while another trace or capture of the same kind runs.
var ErrWatched = errors.New("another one is running")

// watches are the trace and the capture that run; at most one each.
type watches struct{ tracing, capturing atomic.Bool }

// Trace follows up to o.Packets packets and calls f with the way of each, until that many are traced or ctx ends. The
// workers do nothing for it before and after.
func (e *Engine) Trace(ctx context.Context, o *Watch, f func(*Trace) error) error {
	if o.Packets < 1 || o.Packets > TraceMax {
		return fmt.Errorf("a trace of %d packets: 1 to %d are possible", o.Packets, TraceMax)
	}
	if !e.watches.tracing.CompareAndSwap(false, true) {
		return fmt.Errorf("trace: %w", ErrWatched)
	}
	defer e.watches.tracing.Store(false)
	var left atomic.Int64
	left.Store(int64(o.Packets))
	tracers := make([]*worker.Tracer, len(e.group.Workers))
	for i := range tracers {
		tracers[i] = worker.NewTracer(&o.Filter, &left)
	}
	found := 0
	return e.watch(ctx, o, func(w *worker.Worker, on bool) {
		if on {
			w.Trace(tracers[w.ID])
		} else {
			w.Trace(nil)
		}
	}, func() (more bool, err error) {
		for _, t := range tracers {
			t.Each(func(v *worker.Traced) {
				if found++; err == nil {
					err = f(e.trace(v))
				}
			})
		}
		return found < o.Packets, err
	})
}

// trace names what the numbers of v stand for.
func (e *Engine) trace(v *worker.Traced) *Trace {
	t := &Trace{Worker: v.Worker}
	for i := range v.Moments[:v.N] {
		m := &v.Moments[i]
		t.Steps = append(t.Steps, TraceStep{m, worker.Time(m.At), e.portName(m.Packet.Port), e.sad.NameOf(&m.Packet)})
	}
	return t
}

// Capture copies the first snap bytes of packets, as they arrive and as they leave, until ctx ends or o.Packets are copied.
// It returns how many more were chosen but came faster than f took them.
func (e *Engine) Capture(ctx context.Context, o *Watch, snap int, f func(*Capture) error) (lost uint64, err error) {
	if snap < 1 || snap > SnapMax {
		return 0, fmt.Errorf("capture of %d bytes a packet: 1 to %d are possible", snap, SnapMax)
	}
	if !e.watches.capturing.CompareAndSwap(false, true) {
		return 0, fmt.Errorf("capture: %w", ErrWatched)
	}
	defer e.watches.capturing.Store(false)
	capturers := make([]*worker.Capturer, len(e.group.Workers))
	for i := range capturers {
		capturers[i] = worker.NewCapturer(&o.Filter, snap)
	}
	found := 0
	err = e.watch(ctx, o, func(w *worker.Worker, on bool) {
		if on {
			w.Capture(capturers[w.ID])
		} else {
			w.Capture(nil)
		}
	}, func() (more bool, err error) {
		for _, c := range capturers {
			c.Each(func(v *worker.Captured, data []byte) {
				if err != nil || o.Packets > 0 && found == o.Packets {
					return
				}
				found++
				err = f(&Capture{v, worker.Time(v.At), e.portName(v.Port), e.sad.NameOf(&v.Packet), data})
			})
		}
		return o.Packets == 0 || found < o.Packets, err
	})
	for _, c := range capturers {
		lost += c.Lost.Load()
	}
	return lost, err
}

// watch attaches something to every worker, collects what it finds until collect says that there is no more to come,
// fails, or ctx ends, and detaches it.
func (e *Engine) watch(ctx context.Context, o *Watch, attach func(w *worker.Worker, on bool), collect func() (more bool, err error)) error {
	each := func(on bool) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.stopping {
			return errors.New("the gateway stops")
		}
		for _, w := range e.group.Workers {
			e.on(w, func() { attach(w, on) })
		}
		return nil
	}
	e.choose(o)
	if err := each(true); err != nil {
		return err
	}
	defer each(false)
	tick, names := time.NewTicker(watchEvery), time.NewTicker(namesEvery)
	defer tick.Stop()
	defer names.Stop()
	for {
		select {
		case <-ctx.Done():
			_, err := collect()
			return err
		case <-e.done:
			return nil
		case <-names.C:
			e.choose(o)
		case <-tick.C:
		}
		if more, err := collect(); err != nil || !more {
			return err
		}
	}
}

// choose looks up the associations that o.Name stands for.
func (e *Engine) choose(o *Watch) {
	if o.Name == nil {
		return
	}
	of := worker.Associations{SPIs: map[uint32]struct{}{}, Outbound: map[uint32]struct{}{}}
	e.Associations(func(i *sad.Info) bool {
		if o.Name(i.Params.Name) {
			of.SPIs[i.Params.SPI] = struct{}{}
			if !i.Handle.Inbound() {
				of.Outbound[i.Handle.Value()] = struct{}{}
			}
		}
		return true
	})
	o.Filter.Of.Store(&of)
}

// portName returns the name of a port by its number.
func (e *Engine) portName(number uint16) string {
	t := e.group.Tables()
	switch {
	case number == t.IKE:
		return "ike"
	case int(number) < len(t.Ports):
		return t.Ports[number].Name
	}
	return ""
}
