package ike

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/ike"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// flood is what became of honest handshakes while spoofed requests arrived.
type flood struct {
	offered   float64 // spoofed requests a second
	tried     int
	failed    int
	latencies []time.Duration // of those that succeeded, sorted
}

func (f flood) success() float64 { return float64(f.tried-f.failed) / float64(f.tried) }

// percentile returns the latency that this share of the handshakes does not exceed.
func (f flood) percentile(share float64) time.Duration {
	if len(f.latencies) == 0 {
		return 0
	}
	return f.latencies[min(len(f.latencies)-1, int(share*float64(len(f.latencies))))]
}

// milliseconds is a percentile in this unit.
func (f flood) milliseconds(share float64) float64 {
	return float64(f.percentile(share)) / float64(time.Millisecond)
}

// spoofed is a complete IKE_SA_INIT request, with a proposal that the server accepts and a value that costs it a whole
// key exchange if it is taken in by it.
func spoofed(s scenario) ([]byte, error) {
	proposal, err := suite.ParseIKE(s.ike)
	if err != nil {
		return nil, err
	}
	kex, err := suite.Initiate(proposal.KE[0], rand.Reader)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	m := message.Message{
		Header: message.Header{InitiatorSPI: 1, Exchange: message.IKESAInit, Flags: message.Initiator},
		Payloads: []message.Payload{
			&message.SA{Proposals: suite.Offer([]suite.Proposal{proposal}, nil)},
			&message.KE{Method: kex.Method(), Data: kex.Public()},
			&message.Nonce{Data: nonce},
		},
	}
	return m.Append(nil), nil
}

// spoof offers the server rate requests a second, each with an SPI and from an address of its own, until the context
// ends. It returns how many it offered.
func spoof(ctx context.Context, server *ike.Server, template []byte, rate int) uint64 {
	packet := slices.Clone(template)
	start := time.Now()
	n := uint64(0)
	for ctx.Err() == nil {
		for due := uint64(time.Since(start).Seconds() * float64(rate)); n < due; n++ {
			binary.BigEndian.PutUint64(packet, n+1)
			a := netip.AddrFrom4([4]byte{198, byte(18 + n>>16&1), byte(n >> 8), byte(n)})
			server.Receive(ikesa.Datagram{Local: netip.AddrPortFrom(serverAddr, ikePort), Remote: netip.AddrPortFrom(a, ikePort), Data: packet})
		}
		time.Sleep(500 * time.Microsecond)
	}
	return n
}

// honestBeside has n honest clients, honest at a time, do their handshakes, each by up, once an attack has stood for a while. The attack lasts
// until its context ends, and returns how many requests a second it offered.
func honestBeside(ctx context.Context, n, honest int, lead time.Duration, attack func(context.Context) float64, up func(i int) error) (flood, error) {
	until, stop := context.WithCancel(ctx)
	defer stop()
	offered := make(chan float64, 1)
	go func() { offered <- attack(until) }()
	// The flood stands before the first honest client comes.
	time.Sleep(lead)
	var failed atomic.Int64
	latencies := make([]time.Duration, n)
	err := parallel(n, honest, func(i int) error {
		began := time.Now()
		if err := up(i); err != nil {
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
	f := flood{offered: <-offered, tried: n, failed: int(failed.Load())}
	f.latencies = slices.DeleteFunc(latencies, func(d time.Duration) bool { return d < 0 })
	slices.Sort(f.latencies)
	return f, err
}

// underFlood sets up n tunnels, honest at a time, while spoofed requests arrive.
func underFlood(ctx context.Context, p *pair, s scenario, rate, n, honest int) (flood, error) {
	template, err := spoofed(s)
	if err != nil {
		return flood{}, err
	}
	if err := p.configure(s, n); err != nil {
		return flood{}, err
	}
	f, err := honestBeside(ctx, n, honest, time.Second, func(attack context.Context) float64 {
		start := time.Now()
		n := spoof(attack, p.server, template, rate)
		return float64(n) / time.Since(start).Seconds()
	}, func(i int) error {
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return p.clients.Up(one, clientName(i), "")
	})
	if err == nil && f.offered < 0.9*float64(rate) {
		err = fmt.Errorf("only %.0f spoofed requests a second could be offered", f.offered)
	}
	if len(f.latencies) == 0 {
		err = errors.Join(err, errors.New("no honest handshake succeeded"))
	}
	return f, err
}
