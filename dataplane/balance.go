package dataplane

import (
	"time"

	"sallyport/dataplane/sad"
)

// load follows how busy the workers are.
type load struct {
	at   time.Time
	busy []uint64 // nanoseconds, at the last look
}

// look returns the share of the time since the last look, or since the workers' start, that each
// worker spent on packets.
func (l *load) look(e *Engine, now time.Time) []float64 {
	passed := now.Sub(l.at).Nanoseconds()
	l.at = now
	if l.busy == nil {
		l.busy = make([]uint64, len(e.group.Workers))
	}
	share := make([]float64, len(l.busy))
	for i, w := range e.group.Workers {
		busy := w.Counters.Busy.Load()
		if passed > 0 {
			share[i] = min(float64(busy-l.busy[i])/float64(passed), 1)
		}
		l.busy[i] = busy
	}
	return share
}

// balancer moves associations between workers, so that a few cores do not carry what many could.
// It only looks at what was counted; the owners themselves give associations up.
type balancer struct {
	packets map[sad.Handle]uint64 // packets of each association, at the last look
}

// Thresholds of the balancer, as shares of one core over one second.
const (
	balanceBusy = 0.5 // a worker below this is never relieved
	balanceGap  = 0.3 // least difference between the busiest and the idlest
)

// balanceMax bounds the associations looked at: beyond it, arrival queues spread them well enough.
const balanceMax = 16384

// rebalance looks at the workers' busy shares of the last second and asks for at most one move. It
// moves the association whose share of the busiest worker's packets comes closest to half the
// difference, so that one elephant is not thrown to and fro.
func (e *Engine) rebalance(share []float64) {
	if len(share) < 2 {
		return
	}
	b := &e.balance
	from, to := 0, 0
	for i := range share {
		if share[i] > share[from] {
			from = i
		}
		if share[i] < share[to] {
			to = i
		}
	}
	gap := share[from] - share[to]
	hot := share[from] >= balanceBusy && gap >= balanceGap
	if in, out := e.sad.Len(); in+out > balanceMax {
		return
	}
	var sum uint64
	type candidate struct {
		info  sad.Info
		delta uint64
	}
	var candidates []candidate
	seen := make(map[sad.Handle]uint64, len(b.packets))
	e.sad.Range(func(info *sad.Info) bool {
		if info.Follows {
			return true // it moves with the other half of its bundle
		}
		seen[info.Handle] = info.Packets
		delta := info.Packets - min(b.packets[info.Handle], info.Packets)
		if info.Owner == from && delta > 0 {
			sum += delta
			candidates = append(candidates, candidate{*info, delta})
		}
		return true
	})
	b.packets = seen
	if !hot || len(candidates) < 2 {
		return
	}
	want := float64(sum) * gap / 2 / share[from]
	best := -1
	for i, c := range candidates {
		if float64(c.delta) <= 2*want && (best < 0 || near(c.delta, want) < near(candidates[best].delta, want)) {
			best = i
		}
	}
	if best < 0 {
		return
	}
	c := candidates[best].info
	if e.sad.RequestMove(c.Handle, to) != nil {
		return // it is gone
	}
	e.log.Debug().Str("association", c.Params.Name).Int("from", from).Int("to", to).Msg("an association moves to another worker")
}

func near(a uint64, want float64) float64 {
	d := float64(a) - want
	if d < 0 {
		return -d
	}
	return d
}
