package ike

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	f, err = honestBeside(ctx, n, honest, 2*time.Second, func(attack context.Context) float64 {
		attack, stop := context.WithTimeout(attack, patience)
		defer stop()
		n, took := b.run(attack, rate)
		return float64(n) / took.Seconds()
	}, func(i int) error {
		_, err := d.a.Ask("up", clientName(i)+"/"+childName, "--timeout", honestWait.String())
		return err
	})
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
