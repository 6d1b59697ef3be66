package ike

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"sallyport/dataplane/threads"
	"sallyport/tools/rig"
)

// overload is what became of the key exchange while a tunnel was offered twice what it carries.
type overload struct {
	capacity, offered, delivered float64 // packets a second
	liveness                     uint64  // checks of the peer that were answered ...
	livenessRate                 float64 // ... a second, of which there should be one
	tried, failed                int     // rekeys of the child, of the IKE SA, and handshakes, a third each
	latencies                    []time.Duration
	troubles                     []error
}

// The inner packets go to an address behind gw-b that is nobody's: its neighbour entry is made by hand, so that the host
// throws them away at once.
const (
	nowhere      = "198.51.100.200"
	nowhereMAC   = "02:00:00:00:00:c8"
	overloadSize = 1400 // bytes of the inner packet: the longer, the more a packet costs the gateways, and hardly more its sender
)

// slowSuite costs the gateways much and their sender nothing, so that it can offer twice what they carry.
const slowSuite = "aes256-sha512-esn-noesn"

// overloadLevels are the loads of which the one that most arrives at is the capacity, packets a second.
var overloadLevels = []int{30_000, 60_000, 120_000, 240_000}

// probeTime is how long each of these is offered, livenessTime how long there is nothing but checks of the peer, at least.
const probeTime, livenessTime = time.Second, 2500 * time.Millisecond

// overloaded finds the tunnel's capacity, then offers it twice that for so long and has the gateways rekey and shake hands
// meanwhile, an operation every pause.
func overloaded(ctx context.Context, bin string, duration, pause time.Duration) (o overload, err error) {
	// Both gateways' workers share one CPU and the sender has another, or it would take from them what they need to have a capacity at all.
	cpus, err := threads.Allowed()
	if err != nil {
		return o, err
	}
	s := setting{connections: clientConnections(1, "none", sameAddress), suite: slowSuite}
	if len(cpus) > 1 {
		s.workers = fmt.Sprintf("count: 1, cores: %d", cpus[len(cpus)-1])
	}
	d, err := newDaemons(bin, s)
	if err != nil {
		return o, err
	}
	defer d.close()
	if err := d.start(); err != nil {
		return o, err
	}
	b, err := newBlaster(d)
	if err != nil {
		return o, err
	}
	defer b.close()
	if len(cpus) > 1 {
		b.place = cpus[:1]
	}
	for _, rate := range overloadLevels {
		_, got, err := crossing(ctx, d, b, rate, min(probeTime, duration/10))
		if err != nil {
			return o, d.explained(err)
		}
		o.capacity = max(o.capacity, got)
	}
	if o.capacity == 0 {
		return o, d.explained(errors.New("nothing crossed the tunnel"))
	}
	before, err := statusOf(d.a)
	if err != nil {
		return o, d.explained(err)
	}
	load, stop := context.WithTimeout(ctx, duration)
	defer stop()
	done := make(chan error, 1)
	go func() {
		var err error
		o.offered, o.delivered, err = crossing(load, d, b, int(2*o.capacity), duration)
		done <- err
	}()
	operations := []struct {
		what string
		do   func() error
	}{
		{"rekey of the child", func() error { _, err := d.a.Ask("rekey", siteChild); return err }},
		{"rekey of the IKE SA", func() error { _, err := d.b.Ask("rekey", site); return err }},
		{"new handshake", func() error {
			_, err := d.a.Ask("up", clientName(0)+"/"+childName)
			return err
		}},
	}
	// First nothing but liveness checks: nothing comes back through the tunnel, so gw-a asks every second.
	alone := max(livenessTime, duration/6)
	select {
	case <-ctx.Done():
	case <-time.After(alone):
	}
	quiet, err := statusOf(d.a)
	if err != nil {
		return o, d.explained(errors.Join(err, <-done))
	}
	o.liveness = quiet.informational() - before.informational()
	o.livenessRate = float64(o.liveness) / alone.Seconds()
	for i := 0; load.Err() == nil; i++ {
		op := operations[i%len(operations)]
		began := time.Now()
		o.tried++
		if err := op.do(); err != nil {
			o.failed++
			o.troubles = append(o.troubles, fmt.Errorf("%s: %w", op.what, err))
		} else {
			o.latencies = append(o.latencies, time.Since(began))
			if op.what == "new handshake" {
				if _, err := d.a.Ask("down", clientName(0)); err != nil {
					o.troubles = append(o.troubles, err)
				}
			}
		}
		select {
		case <-load.Done():
		case <-time.After(pause):
		}
	}
	if err := <-done; err != nil {
		return o, d.explained(err)
	}
	slices.Sort(o.latencies)
	after, err := statusOf(d.a)
	if err != nil {
		return o, d.explained(err)
	}
	switch {
	case after.IKE.Panics > 0:
		err = fmt.Errorf("%d panics", after.IKE.Panics)
	case after.Associations < 2:
		err = errors.New("the tunnel is gone")
	}
	if err != nil {
		return o, d.explained(err)
	}
	return o, nil
}

// informational is how many exchanges of that kind were completed.
func (s status) informational() (n uint64) {
	for _, x := range s.IKE.Exchanges {
		if x.Name == "INFORMATIONAL" {
			n += x.Done
		}
	}
	return n
}

// newBlaster is a sender of host-a into the tunnel.
func newBlaster(d *daemons) (*blast, error) {
	mac, err := d.network.GwA.MAC("lan")
	if err != nil {
		return nil, err
	}
	index, err := d.network.GwB.Index("lan")
	if err != nil {
		return nil, err
	}
	none, err := net.ParseMAC(nowhereMAC)
	if err != nil {
		return nil, err
	}
	err = d.network.GwB.Netlink().NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(nowhere), HardwareAddr: none})
	if err != nil {
		return nil, fmt.Errorf("neighbour %s: %w", nowhere, err)
	}
	from, to := netip.MustParseAddrPort(rig.HostA4+":9"), netip.MustParseAddrPort(nowhere+":9")
	return newBlast(d.network.HostA, "eth0", mac, datagram(from, to, make([]byte, overloadSize-28)))
}

// crossing offers the tunnel a load for so long; offered and got are packets a second.
func crossing(ctx context.Context, d *daemons, b *blast, rate int, duration time.Duration) (offered, got float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	before, err := statusOf(d.b)
	if err != nil {
		return 0, 0, err
	}
	sent, took := b.run(ctx, rate)
	time.Sleep(100 * time.Millisecond) // what is in the rings
	after, err := statusOf(d.b)
	return float64(sent) / took.Seconds(), float64(after.opened()-before.opened()) / took.Seconds(), err
}
