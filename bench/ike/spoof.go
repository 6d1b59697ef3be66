package ike

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/tools/rig"
)

var gwB = netip.MustParseAddr(rig.GwB4)

// Each honest client has an address of its own: one address may not have many half-open IKE SAs.
const clientAddrs = 200

func ownAddress(i int) string { return fmt.Sprintf("192.0.2.%d", 10+i) }

// honestWait is how long an honest handshake may take before it has failed: with charon, which may answer none.
const honestWait = 20 * time.Second

// spoofing measures n honest handshakes of gw-a with gw-b, some at a time, while spoofed requests arrive there. Where gw-b is
// charon, that is its path.
func spoofing(ctx context.Context, bin, charon string, rate, n, honest int) (f flood, err error) {
	if n > clientAddrs {
		return f, fmt.Errorf("%d honest clients: there are addresses for %d", n, clientAddrs)
	}
	d, err := newDaemons(bin, setting{connections: clientConnections(n, "none", ownAddress)})
	if err != nil {
		return f, err
	}
	defer d.close()
	for i := range n {
		if err := d.network.GwA.Address("wan", ownAddress(i)+"/24"); err != nil {
			return f, err
		}
	}
	if charon == "" {
		if err := d.start(); err != nil {
			return f, err
		}
	} else {
		p, err := newResponder(ctx, charon, d)
		if err != nil {
			return f, err
		}
		defer p.close()
		if err := d.a.Launch(); err != nil {
			return f, err
		}
		if err := eventually(startMax, func() error { _, err := d.a.Ask("status", "--json"); return err }); err != nil {
			return f, d.explained(err)
		}
	}
	b, err := newSpoofer(d, handshakes[0].scenario)
	if err != nil {
		return f, err
	}
	defer b.close()
	attack, stop := context.WithTimeout(ctx, patience)
	defer stop()
	offered := make(chan float64, 1)
	go func() {
		n, took := b.run(attack, rate)
		offered <- float64(n) / took.Seconds()
	}()
	// The flood stands before the first honest client comes.
	time.Sleep(2 * time.Second)
	var failed atomic.Int64
	latencies := make([]time.Duration, n)
	err = parallel(n, honest, func(i int) error {
		began := time.Now()
		if _, err := d.a.Ask("up", clientName(i)+"/"+childName, "--timeout", honestWait.String()); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed.Add(1)
			latencies[i] = -1
			return nil
		}
		latencies[i] = time.Since(began)
		return nil
	})
	stop()
	f = flood{offered: <-offered, tried: n, failed: int(failed.Load())}
	f.latencies = slices.DeleteFunc(latencies, func(d time.Duration) bool { return d < 0 })
	slices.Sort(f.latencies)
	if charon == "" {
		s, e := statusOf(d.b)
		switch {
		case e != nil:
			err = errors.Join(err, d.explained(e))
		case s.IKE.Received < uint64(rate):
			err = errors.Join(err, fmt.Errorf("gw-b has seen no flood, but %d datagrams", s.IKE.Received))
		case s.IKE.Panics > 0:
			err = errors.Join(err, fmt.Errorf("gw-b counts %d panics", s.IKE.Panics))
		}
	}
	return f, err
}
