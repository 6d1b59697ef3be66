package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/bench/result"
)

// percentiles of the latency rows; the last is the maximum.
var percentiles = []float64{50, 90, 99, 99.9, 99.99, 100}

// behind is how many packets must lie beyond a percentile for it to say more than when the machine last stopped.
const behind = 10

// supported says that so many packets tell a percentile. The maximum is what it is.
func supported(percent float64, packets int64) bool {
	return percent == 100 || float64(packets)*(100-percent)/100 >= behind
}

// idle is the rate of "0 %": packets so far apart that the gateway has nothing else to do.
const idle = 2000

// shares of PDR at which latency is measured, and the one that has rows of its own, of these percentiles.
var shares = []int{0, 10, 50, 90}

const shareShown = 50

var percentilesShown = []float64{50, 99}

// latencyRuns is how many rigs the latency of a scene is measured on.
func (f *finder) latencyRuns() int { return min(5, f.Runs) }

// latencyTime is about how long the latencies of all scenes take, 0 for an unbounded run.
func (f *finder) latencyTime() time.Duration {
	if f.Within == 0 || f.LatencySeconds == 0 {
		return 0
	}
	scenes := len(f.Directions) * len(f.Sizes) * len(f.Tunnels)
	const start = 1.2 // seconds until a gateway carries
	return time.Duration(float64(scenes*f.latencyRuns()) * (start + float64(len(shares))*f.LatencySeconds) * float64(time.Second))
}

// latencies measures how long packets are on their way at shares of a rate, from when each was due.
func (f *finder) latencies(ctx context.Context, s *scene, pdr float64) error {
	name := "wire/latency/" + s.String()
	f.say(s.String() + ", latency")
	at := make([]result.Latency, len(shares))
	samples := make([][][]float64, len(shares)) // by share and percentile, of those rigs that support it
	for i, share := range shares {
		at[i] = result.Latency{Load: fmt.Sprintf("%d %% of PDR", share), Offered: max(idle, pdr*float64(share)/100) / 1e6}
		samples[i] = make([][]float64, len(percentiles))
	}
	for run := range f.latencyRuns() {
		if f.late(0) {
			if run == 0 {
				f.hole(name, fmt.Errorf("no time was left of %v", f.Within))
				return nil
			}
			break
		}
		err := f.latency(ctx, s, at, samples)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			f.hole(name, err)
			return nil
		}
	}
	for i := range at {
		text := ""
		for k, p := range percentiles {
			if len(samples[i][k]) == 0 {
				continue
			}
			point := result.Percentile{
				Percent: p, Microseconds: result.Median(samples[i][k]), Low: slices.Min(samples[i][k]), High: slices.Max(samples[i][k]),
			}
			at[i].Percentiles = append(at[i].Percentiles, point)
			text += fmt.Sprintf("  %v %%: %.1f (%.1f to %.1f)", p, point.Microseconds, point.Low, point.High)
		}
		if f.Log != nil {
			f.Log(fmt.Sprintf("%s, latency in µs at %s:%s", s, at[i].Load, text))
		}
	}
	for _, percent := range percentilesShown {
		shown := samples[slices.Index(shares, shareShown)][slices.Index(percentiles, percent)]
		if len(shown) == 0 {
			f.hole(fmt.Sprintf("%s/%d/p%v", name, shareShown, percent), fmt.Errorf("trials of %v s have too few packets for it", f.LatencySeconds))
			continue
		}
		r := result.NewRow(fmt.Sprintf("%s/%d/p%v", name, shareShown, percent), "µs", f.Command, shown).With(s.parameters("latency"))
		if percent == percentilesShown[0] {
			r.Latency = at
		}
		f.rows = append(f.rows, r)
	}
	return nil
}

// latency takes one sample at each load, on one rig.
func (f *finder) latency(ctx context.Context, s *scene, at []result.Latency, samples [][][]float64) (err error) {
	a, err := f.prepare(s, ours, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	for i := range at {
		if err := ctx.Err(); err != nil {
			return err
		}
		rate := at[i].Offered * 1e6
		for try := 0; ; try++ {
			if err := a.sink.forget(); err != nil {
				return err
			}
			// The sink has room for so many records.
			_, disturbed, err := a.watched(rate, min(f.LatencySeconds, records/rate))
			if err != nil {
				return err
			}
			if try == latencyRepeats || !disturbed {
				break
			}
		}
		h, err := a.sink.stamps(s.direction == Encrypt, a.tunnels)
		if err != nil {
			return err
		}
		at[i].Count += h.TotalCount()
		for k, p := range percentiles {
			if supported(p, h.TotalCount()) {
				samples[i][k] = append(samples[i][k], float64(h.ValueAtPercentile(p))/1e3)
			}
		}
	}
	return nil
}

// latencyRepeats is how often a disturbed trial of latency is taken again.
const latencyRepeats = 2
