package ike

import (
	"context"
	"fmt"
	"os"
	"time"

	"sallyport/tools/rig"
)

// trafficRate is how many datagrams cross the established tunnel a second, each way, while others are set up.
const trafficRate = 1000

// mass is what became of many tunnels that were set up between two daemons while one carried traffic.
type mass struct {
	first, all float64 // seconds from the reload to the last look without a new association, to all of them
	sent, lost uint64  // datagrams over the established tunnel
	rate       float64 // of them, a second and each way
	residentKB float64 // of both daemons, for each tunnel
}

// massive has gw-a bring up n tunnels by a reload that brings their connections.
func massive(ctx context.Context, bin string, n int) (m mass, err error) {
	limits := "half_open_max: 200000, half_open_per_address: 200000, cookie_threshold: 100000" // one host is many peers, and none of them attacks
	d, err := newDaemons(bin, setting{ikeA: limits, ikeB: limits})
	if err != nil {
		return m, err
	}
	defer d.close()
	if err := d.start(); err != nil {
		return m, err
	}
	x, err := rig.StartStream(d.network.HostA, rig.HostA4, d.network.HostB, rig.HostB4, trafficRate, d.network.Mark)
	if err != nil {
		return m, err
	}
	running, began := true, time.Now()
	end := func() {
		if running {
			running = false
			took := time.Since(began)
			for _, f := range x.End() {
				m.sent, m.lost = m.sent+f.Sent, m.lost+f.Lost
			}
			m.rate = float64(m.sent) / 2 / took.Seconds()
		}
	}
	defer end()
	time.Sleep(time.Second)
	before := resident(d.a) + resident(d.b)
	if err := os.WriteFile(d.a.Config, []byte(d.configuration(d.a, true, setting{connections: clientConnections(n, "start", sameAddress), ikeA: limits})), 0o600); err != nil {
		return m, err
	}
	start := time.Now()
	reloaded := make(chan error, 1)
	go func() {
		_, err := d.a.Ask("reload")
		reloaded <- err
	}()
	for m.all == 0 {
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case err := <-reloaded:
			if err != nil {
				return m, d.explained(err)
			}
		case <-time.After(100 * time.Millisecond):
		}
		s, err := statusOf(d.b)
		if err != nil {
			return m, d.explained(err)
		}
		took := time.Since(start)
		if s.Associations <= 2 {
			m.first = took.Seconds()
		}
		if s.Associations < 2*(n+1) {
			if took > patience {
				return m, d.explained(fmt.Errorf("%d of %d associations after %v", s.Associations, 2*(n+1), patience))
			}
			continue
		}
		if s, err = statusOf(d.a); err != nil {
			return m, d.explained(err)
		}
		if s.Associations >= 2*(n+1) {
			m.all = time.Since(start).Seconds()
		}
	}
	m.residentKB = (resident(d.a) + resident(d.b) - before) / float64(n)
	time.Sleep(time.Second) // the traffic goes on a little
	end()
	return m, nil
}

// resident is the memory of a daemon in KiB.
func resident(g *rig.Gateway) float64 {
	return residentBytes(g.PID()) / 1024
}
