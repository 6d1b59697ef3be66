package pipeline

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sallyport/dataplane/sad"
)

// ChurnSpare is how many associations a churn has installed at once at most, in each direction.
const ChurnSpare = 4096

// ChurnRate is how many associations a churn installs, and removes, in a second at most.
const ChurnRate = 120_000

// Churn installs and removes associations while packets flow.
type Churn struct {
	stop atomic.Bool
	done chan struct{}
	made Changes
	err  error
}

// Changes are what a churn did.
type Changes struct {
	Count   int // associations installed, and as many removed
	Elapsed time.Duration
}

// PerSecond returns the associations that were installed and removed in a second.
func (c Changes) PerSecond() float64 { return float64(c.Count) / c.Elapsed.Seconds() }

// StartChurn starts a goroutine that installs and removes associations, the oldest first, at [ChurnRate] or as
// fast as it can, with as many installed as half of [ChurnSpare]. The rig needs that much Options.Spare.
func (r *Rig) StartChurn() *Churn {
	c := &Churn{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		began := time.Now()
		c.err = c.run(r)
		c.made.Elapsed = time.Since(began)
	}()
	return c
}

// Stop ends the churn, which removes what it installed.
func (c *Churn) Stop() (Changes, error) {
	c.stop.Store(true)
	<-c.done
	return c.made, c.err
}

func (c *Churn) run(r *Rig) (err error) {
	local, remote := r.o.networks(0)
	p := r.params("churn", local, remote, rand.NewChaCha8([32]byte{1}))
	var installed [ChurnSpare / 2]sad.Handle
	defer func() {
		for _, h := range installed {
			if h != 0 {
				err = errors.Join(err, r.engine.Remove(h))
			}
		}
	}()
	began := time.Now()
	for i := 0; !c.stop.Load(); i++ {
		if ahead := time.Duration(i)*time.Second/ChurnRate - time.Since(began); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		h := &installed[i%len(installed)]
		if *h != 0 {
			if err := r.engine.Remove(*h); err != nil {
				return err
			}
			*h = 0
		}
		p.Keymat[0], p.Keymat[1], p.Keymat[2] = byte(i), byte(i>>8), byte(i>>16)
		p.Inbound = i%2 == 0
		p.SPI = 0
		if !p.Inbound {
			p.SPI = 1<<30 | uint32(i)
		}
		// A slot is free again when every worker has passed a batch boundary.
		for {
			if *h, err = r.engine.Install(p); !errors.Is(err, sad.ErrFull) || c.stop.Load() {
				break
			}
		}
		if err != nil {
			if errors.Is(err, sad.ErrFull) {
				return nil
			}
			return err
		}
		c.made.Count++
	}
	return nil
}
