package dataplane

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// Flight is what the flight recorder holds of one association.
type Flight struct {
	sad.Flown
	// Burst says that it was copied at the beginning of a burst of errors, at the time At, and why the last packet was dropped.
	Burst  packet.Drop
	At     time.Time
	Exists bool // the association is still there
}

// Limits of the flight recorders' reader.
const (
	FlightsMax = 1000 // associations in one answer
	burstsMax  = 64   // copies that are kept
)

// flights are the copies that bursts of errors left.
type flights struct {
	mu     sync.Mutex
	bursts []Flight // oldest first
}

// Flights returns the recorders of the associations for which match is true, at most [FlightsMax]: first what bursts of errors left,
// then what is recorded now.
func (e *Engine) Flights(match func(name string, spi uint32) bool) []Flight {
	e.flights.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(e.flights.bursts), func(f Flight) bool { return !match(f.Name, f.SPI) })
	e.flights.mu.Unlock()
	for i := range list {
		list[i].Exists = e.sad.Has(list[i].Handle)
	}
	var handles []sad.Handle
	e.sad.Range(func(i *sad.Info) bool {
		if match(i.Params.Name, i.Params.SPI) {
			handles = append(handles, i.Handle)
		}
		return len(handles)+len(list) < FlightsMax
	})
	now := time.Now()
	found := e.fly(handles)
	for _, h := range handles {
		if f, ok := found[h]; ok {
			list = append(list, Flight{Flown: f, At: now, Exists: true})
		}
	}
	return list
}

// fly copies the recorders of associations, each on its owner's thread.
func (e *Engine) fly(handles []sad.Handle) map[sad.Handle]sad.Flown {
	found := make(map[sad.Handle]sad.Flown, len(handles))
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return found
	}
	for range 2 { // one that moves meanwhile is with its next owner
		for _, w := range e.group.Workers {
			e.on(w, func() {
				for _, h := range handles {
					if _, ok := found[h]; ok {
						continue
					}
					if f, ok := e.sad.Flight(h, w.ID); ok {
						found[h] = f
					}
				}
			})
		}
	}
	return found
}

// burst keeps what an association recorded when many of its packets were dropped, and says so.
func (e *Engine) burst(h sad.Handle, reason packet.Drop) {
	f, ok := e.fly([]sad.Handle{h})[h]
	if !ok {
		return
	}
	kept := Flight{Flown: f, Burst: reason, At: time.Now()}
	e.flights.mu.Lock()
	if n := len(e.flights.bursts); n == burstsMax {
		e.flights.bursts = slices.Delete(e.flights.bursts, 0, 1)
	}
	e.flights.bursts = append(e.flights.bursts, kept)
	e.flights.mu.Unlock()
	spi := fmt.Sprintf("0x%08x", f.SPI)
	e.log.Warn().Str("association", f.Name).Str("spi", spi).Bool("inbound", h.Inbound()).Stringer("last", reason).
		Msg("many packets of an association are dropped; its last ones are kept: sallyport recorder " + spi)
}

// RecordTime returns the time of a record.
func RecordTime(r *sad.Record) time.Time { return worker.Time(r.At) }
