package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"sallyport/tools/rig"
)

// rekeyed is the outcome of renewing the keys of one tunnel under traffic.
type rekeyed struct {
	Tunnel  string  `json:"tunnel"`
	Rekeys  int     `json:"rekeys"`  // of children and IKE SAs, by both gateways
	Sent    uint64  `json:"sent"`    // datagrams, each to be echoed
	Lost    uint64  `json:"lost"`    // that did not come back
	Seconds float64 `json:"seconds"` // of traffic
}

const (
	rekeyPause = 300 * time.Millisecond // before, between and after the rekeys
	rekeyGap   = time.Millisecond       // between two datagrams
)

// rekeys renews the keys of each tunnel four times while datagrams go back and forth through it: the child and the
// IKE SA, each by both gateways. No datagram may be lost.
func rekeys(r *result, n *rig.Network, p *rig.Pair) error {
	for i, f := range families {
		name := p.Tunnels[i].Name
		say("fresh keys for tunnel %s, while datagrams go back and forth", name)
		before, err := spis(p.A, name)
		if err != nil {
			return err
		}
		s, err := echoes(n, f)
		if err != nil {
			return err
		}
		out := rekeyed{Tunnel: name}
		for _, what := range []string{name + "/net", name} {
			for _, g := range p.Both() {
				time.Sleep(rekeyPause)
				text, rekeyErr := g.Ask("rekey", what)
				if rekeyErr != nil {
					err = errors.Join(err, rekeyErr)
					continue
				}
				out.Rekeys++
				fmt.Printf("  %s: %s", g.Name, text)
			}
		}
		time.Sleep(rekeyPause)
		out.Sent, out.Lost, out.Seconds = s.stop()
		r.Rekeyed = append(r.Rekeyed, out)
		if err != nil {
			return err
		}
		after, err := spis(p.A, name)
		if err != nil {
			return err
		}
		fmt.Printf("  IKE SA %s is now %s, its child %s is now %s\n", before[0], after[0], before[1], after[1])
		fmt.Printf("  %d datagrams in %.1f s, %d lost\n", out.Sent, out.Seconds, out.Lost)
		if before[0] == after[0] || before[1] == after[1] {
			return fmt.Errorf("the keys of tunnel %s are still the old ones", name)
		}
		if out.Lost > 0 {
			return fmt.Errorf("%d of %d datagrams were lost while the keys of tunnel %s were renewed", out.Lost, out.Sent, name)
		}
	}
	return nil
}

// spis returns the initiator's SPI of a connection's IKE SA and the inbound SPI of its child.
func spis(g *rig.Gateway, name string) (s [2]string, err error) {
	text, err := g.Ask("sas", "--json", "--name", name)
	if err != nil {
		return s, err
	}
	var sas struct {
		IKE []struct {
			State        string `json:"state"`
			InitiatorSPI string `json:"initiator_spi"`
			Children     []struct {
				In struct {
					SPI string `json:"spi"`
				} `json:"in"`
			} `json:"children"`
		} `json:"ike_sas"`
	}
	if err := json.Unmarshal(text, &sas); err != nil {
		return s, err
	}
	for _, x := range sas.IKE {
		if x.State == "established" && len(x.Children) == 1 {
			return [2]string{x.InitiatorSPI, x.Children[0].In.SPI}, nil
		}
	}
	return s, fmt.Errorf("%s has not one established IKE SA with one child for %s: %s", g.Name, name, text)
}

// stream is datagrams that are echoed, one a millisecond.
type stream struct {
	near, far net.PacketConn
	began     time.Time
	end, done chan struct{}
	sent      uint64 // owned by the sender until done
	returned  atomic.Uint64
}

// echoes starts a stream through a tunnel whose first packet is behind it.
func echoes(n *rig.Network, f family) (*stream, error) {
	far, err := rig.ListenPacket(n.HostB, f.udp, f.port(f.far, 11))
	if err != nil {
		return nil, err
	}
	near, err := rig.ListenPacket(n.HostA, f.udp, f.port(f.near, 11))
	if err != nil {
		far.Close()
		return nil, err
	}
	to, err := net.ResolveUDPAddr(f.udp, f.port(f.far, 11))
	if err != nil {
		return nil, errors.Join(err, far.Close(), near.Close())
	}
	s := &stream{near: near, far: far, began: time.Now(), end: make(chan struct{}), done: make(chan struct{})}
	go echo(far)
	go func() {
		b := make([]byte, 2048)
		seen := map[uint64]bool{}
		for {
			k, _, err := near.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && k >= 8 {
				if number := binary.BigEndian.Uint64(b); !seen[number] {
					seen[number] = true
					s.returned.Add(1)
				}
			}
		}
	}()
	go func() {
		defer close(s.done)
		tick := time.NewTicker(rekeyGap)
		defer tick.Stop()
		b := append(make([]byte, 8), n.Mark...)
		for {
			select {
			case <-s.end:
				return
			case <-tick.C:
				binary.BigEndian.PutUint64(b, s.sent)
				if _, err := near.WriteTo(b, to); err == nil {
					s.sent++
				}
			}
		}
	}()
	return s, nil
}

// stop ends the stream and waits up to two seconds for what is under way.
func (s *stream) stop() (sent, lost uint64, seconds float64) {
	close(s.end)
	<-s.done
	seconds = time.Since(s.began).Seconds()
	for range 200 {
		if s.returned.Load() == s.sent {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.near.Close()
	s.far.Close()
	return s.sent, s.sent - s.returned.Load(), seconds
}
