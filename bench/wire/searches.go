package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sallyport/bench/result"
	"sallyport/bench/search"
)

// Goals of the searches; the second is the one that is compared.
const (
	goalNDR = iota
	goalPDR
	goals
)

var goalNames = [goals]string{"ndr", "pdr"}

// lossPDR is the loss at PDR.
const lossPDR = 0.005

func (f *finder) searchGoals() []search.Goal {
	g := search.Goal{Exceed: 0.5, Initial: f.Trial / 4, Final: f.Trial, Sum: f.Sum, Width: f.Width}
	ndr, pdr := g, g
	ndr.Name, pdr.Name, pdr.LossRatio = "NDR", "PDR", lossPDR
	return []search.Goal{ndr, pdr}
}

// found is what one search found.
type found struct {
	bounds    []search.Bounds // by goal
	loads     []search.Load
	packets   uint64
	veth      uint64        // of these, lost in the rig's rings
	drops     []result.Drop // what the gateway says that it dropped
	disturbed int           // trials that other work disturbed, repeated ones too
}

// search searches once by every contender. What cannot carry is a hole.
func (f *finder) search(ctx context.Context, s *scene, turn string) error {
	for _, who := range f.contenders() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !s.carries(who) {
			if who == strongSwan && slices.Max(s.traffic().sizes) > libipsecMax {
				f.hole("wire/"+s.String()+"/"+who.String(), fmt.Errorf("its TUN device takes packets of at most %d bytes", libipsecMax))
			}
			continue
		}
		if len(s.found[who][goalPDR]) >= f.searches(who) && who.byStack() {
			continue
		}
		if f.out[who] != "" || s.broken[who] || f.late(f.latencyTime()) {
			f.done++
			continue
		}
		f.say(fmt.Sprintf("%s, run %s, %s", s, turn, who))
		got, err := f.one(ctx, s, who)
		if err == nil && got.disturbed > repeatsMax && !f.late(f.latencyTime()) && ctx.Err() == nil {
			got, err = f.one(ctx, s, who) // once more: what was found says more of the others than of the gateway
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && who == ours:
			s.broken[who] = true
			f.hole("wire/"+s.String(), err)
			return nil
		case err != nil && !f.worked[who]:
			f.drop(who, err)
			continue
		case err != nil:
			s.broken[who] = true
			f.hole("wire/"+s.String()+"/"+who.String(), err)
			continue
		}
		f.worked[who] = true
		for g, b := range got.bounds {
			s.found[who][g] = append(s.found[who][g], b.Throughput/1e6)
		}
		if who == ours {
			s.last = got
			if got.disturbed > repeatsMax {
				s.shaken++
			}
		}
		if f.Log != nil {
			f.Log(fmt.Sprintf("%s, %s: %s; %s; %d trials of %v in all, %d disturbed; %d packets lost in veth's rings%s", s, who,
				describe("NDR", got.bounds[goalNDR]), describe("PDR", got.bounds[goalPDR]), got.bounds[0].Trials, round(got.bounds[0].Seconds), got.disturbed, got.veth, words(got.drops)))
		}
	}
	return nil
}

func words(drops []result.Drop) (text string) {
	for _, d := range drops {
		text += fmt.Sprintf(", %d %s", d.Packets, d.Name)
	}
	return text
}

// result returns the rows of a scene's searches.
func (f *finder) result(s *scene) (rows []result.Row) {
	for g, goal := range goalNames {
		name := "wire/" + goal + "/" + s.String()
		mine := s.found[ours][g]
		if len(mine) == 0 {
			continue
		}
		row := func(suffix string) result.Row {
			r := result.NewRow(name+suffix, "Mpps", f.Command, mine).With(s.parameters(goal))
			r.Bounds = f.bounds(g, s.last)
			for _, l := range s.last.loads {
				r.Loss = append(r.Loss, result.LossPoint{Offered: l.Load / 1e6, Loss: l.Loss, Trials: l.Trials, Seconds: l.Seconds})
			}
			r.Drops, r.Disturbed = s.last.drops, s.shaken
			return r
		}
		before := len(rows)
		for _, who := range f.contenders()[1:] {
			if theirs := s.found[who][g]; len(theirs) > 0 {
				rows = append(rows, row(who.suffix()).Against(who.String(), theirs))
			}
		}
		if len(rows) == before {
			rows = append(rows, row(""))
		}
	}
	if len(rows) == 0 && !s.broken[ours] {
		f.hole("wire/"+s.String(), fmt.Errorf("no time was left of %v", f.Within))
	}
	return rows
}

// parameters describe the rows of a scene.
func (s *scene) parameters(measure string) result.Parameters {
	sizes := s.traffic().sizes
	sum := 0
	for _, n := range sizes {
		sum += n
	}
	return result.Parameters{
		Measure: measure, Direction: s.direction, Size: s.size, Bytes: float64(sum) / float64(len(sizes)),
		Tunnels: s.tunnels, Workers: 1, Suite: "aes128gcm16",
	}
}

// bounds are those of a search, as a row has them: an upper one of 0 says that the sender's most was carried.
func (f *finder) bounds(g int, last found) *result.Bounds {
	b := last.bounds[g]
	upper := b.Upper
	if math.IsInf(upper, 1) {
		upper = 0
	}
	goal := f.searchGoals()[g]
	return &result.Bounds{
		Lower: b.Lower / 1e6, Upper: upper / 1e6, Trials: b.Trials, Disturbed: last.disturbed, Packets: last.packets,
		Goal: fmt.Sprintf("at most %v %% lost in trials of %v s, %v s together at one load, of which %.0f %% may lose more",
			100*goal.LossRatio, goal.Final, goal.Sum, 100*goal.Exceed),
	}
}

func describe(name string, b search.Bounds) string {
	upper := fmt.Sprintf("%.3f", b.Upper/1e6)
	if math.IsInf(b.Upper, 1) {
		upper = "the sender's most"
	}
	word := ""
	if !b.Regular {
		word = ", not as close as wanted"
	}
	return fmt.Sprintf("%s %.3f Mpps (%.3f to %s, %d trials at the lower%s)", name, b.Throughput/1e6, b.Lower/1e6, upper, b.AtLower, word)
}

func round(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond)
}

// repeatsMax is how many disturbed trials of one search are taken again.
const repeatsMax = 12

// one is one search on one rig.
func (f *finder) one(ctx context.Context, s *scene, who contender) (got found, err error) {
	a, err := f.prepare(s, who, false)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	// The sender keeps its schedule up to a little below its most.
	most := 0.95 * s.top
	look, err := search.New(most/200, most, f.searchGoals()...)
	if err != nil {
		return got, err
	}
	for t, more := look.Next(); more; t, more = look.Next() {
		for {
			if err := ctx.Err(); err != nil {
				return got, err
			}
			o, disturbed, err := a.watched(t.Load, t.Seconds)
			if err != nil {
				return got, err
			}
			got.veth += o.byVeth
			got.packets += o.sent
			if disturbed {
				// Taken again whatever it lost, or only bad luck would get a second chance.
				if got.disturbed++; got.disturbed <= repeatsMax {
					continue
				}
			}
			look.Add(t, o.loss(a.vethIsTheirs))
			break
		}
	}
	for g := range goals {
		got.bounds = append(got.bounds, look.Bounds(g))
	}
	got.loads = look.Loads()
	if who == ours {
		if got.drops, err = a.drops(&f.Options); err != nil {
			f.hole("wire/drops", err)
		} else if err = a.tellInterfaces(&f.Options); err != nil {
			f.hole("wire/interfaces", err)
		}
	}
	return got, nil
}
