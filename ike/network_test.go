package ike

import (
	"fmt"
	"testing"
	"time"

	"sallyport/ike/ikesa"
)

// TestTunnelsSurviveABadNetwork: 40 tunnels through loss, duplication and reordering, rekeyed dozens of times each: they
// all come up, and whenever the network rests both sides hold the same. C7, C17, C21, C23.
func TestTunnelsSurviveABadNetwork(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			simulate(t, seed, Options{Workers: 3}, func(t *testing.T, p *pair) {
				p.net.loss, p.net.dup, p.net.jitter = 0.15, 0.1, 300*time.Millisecond
				const n = 40
				p.configure(t, n, func(side string, c *ikesa.Connection) {
					c.Retransmit.Tries = 12
					c.RekeyTime, c.OverTime, c.RandTime = 20*time.Minute, 10*time.Minute, 5*time.Minute
					child := c.Children[0]
					child.RekeyTime, child.LifeTime, child.RandTime = 7*time.Minute, 12*time.Minute, 2*time.Minute
					child.StartAction = ikesa.ActionStart // both sides: collisions from the first message on
					child.CloseAction, child.DPDAction = ikesa.ActionStart, ikesa.ActionStart
					c.Unique = ikesa.UniqueReplace
				})
				for round := range 6 {
					time.Sleep(20 * time.Minute)
					// The network gets well; what is under way ends.
					loss := p.net.loss
					p.net.set(0)
					time.Sleep(3 * time.Minute)
					if got := paired(t, p.a, p.b); got < n {
						t.Fatalf("round %d: %d children of %d", round, got, n)
					}
					p.net.set(loss)
				}
				for _, nd := range []*node{p.a, p.b} {
					s := nd.server.Load().Stats()
					if s.Panics != 0 {
						t.Errorf("%d panics", s.Panics)
					}
					if s.ChildRekeyed < n || s.Rekeyed < n {
						t.Errorf("%s: only %d child rekeys and %d rekeys", nd.name, s.ChildRekeyed, s.Rekeyed)
					}
				}
				p.net.set(0)
			})
		})
	}
}

func (n *network) set(loss float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = loss
	if loss == 0 {
		n.dup = 0
	} else {
		n.dup = 0.1
	}
}

// TestNothingIsLeftAfterClose: associations, reserved SPIs, counts.
func TestNothingIsLeftAfterClose(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 20, nil)
		time.Sleep(time.Second)
		p.close(t)
		if n := paired(t, p.a, p.b); n != 0 {
			t.Errorf("%d children", n)
		}
		for _, nd := range []*node{p.a, p.b} {
			if s := nd.server.Load().Stats(); s.SAs != 0 || s.HalfOpen != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestDeadPeerIsNoticedAndComesBack: liveness, the dead-peer action, and back-off while nobody answers.
func TestDeadPeerIsNoticedAndComesBack(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 5, func(side string, c *ikesa.Connection) {
			if side == "a" {
				c.Children[0].DPDAction = ikesa.ActionStart
			}
		})
		time.Sleep(time.Second)
		p.b.deaf.Store(true)
		time.Sleep(5 * time.Minute)
		if in, _, _ := p.a.counts(); in != 0 {
			t.Fatalf("%d children with a dead peer", in)
		}
		if s := p.a.server.Load().Stats(); s.Reasons[ikesa.ReasonPeerDead] == 0 {
			t.Error("nobody says that the peer is dead")
		}
		before := p.net.count()
		time.Sleep(10 * time.Minute)
		if sent := p.net.count() - before; sent > 5*10*10 {
			t.Errorf("%d datagrams in ten minutes to somebody who is not there", sent)
		}
		p.b.deaf.Store(false)
		time.Sleep(3 * time.Minute)
		if n := paired(t, p.a, p.b); n != 5 {
			t.Errorf("%d children", n)
		}
	})
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// TestTriesEnd: KeyingTries attempts, then silence until somebody asks.
func TestTriesEnd(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.b.deaf.Store(true)
		p.configure(t, 1, func(side string, c *ikesa.Connection) { c.KeyingTries = 3 })
		time.Sleep(time.Hour)
		if got := p.a.server.Load().Stats().Reasons[ikesa.ReasonTimeout]; got != 3 {
			t.Errorf("%d tries", got)
		}
		before := p.net.count()
		time.Sleep(time.Hour)
		if p.net.count() != before {
			t.Error("it goes on")
		}
		p.b.deaf.Store(false)
		p.a.server.Load().Acquire("a-b-0", "net")
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
	})
}

func TestCloseActionBringsItUpAgain(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 2, func(side string, c *ikesa.Connection) {
			if c.Name == "a-b-1" {
				c.Children[0].CloseAction = ikesa.ActionStart
			}
		})
		time.Sleep(time.Second)
		b := p.b.server.Load()
		for _, name := range []string{"b-a-0", "b-a-1"} {
			if err := b.Down(t.Context(), name, "net"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
		if err := b.Down(t.Context(), "b-a-1", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
	})
}

// TestRestartedPeerIsTakenBack: C18's good case. B loses everything; A notices by INITIAL_CONTACT or by asking.
func TestRestartedPeerIsTakenBack(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		edit := func(side string, c *ikesa.Connection) { c.Children[0].StartAction = ikesa.ActionTrap }
		p.configure(t, 1, edit)
		p.a.server.Load().Acquire("a-b-0", "net")
		time.Sleep(time.Minute)
		paired(t, p.a, p.b)

		old := p.b.server.Load()
		fresh := p.net.node("b", "192.0.2.2") // takes the address
		fresh.start(Options{})
		p.b.deaf.Store(true)
		dead := p.b
		p.b = fresh
		config := Config{Store: testStore(), Connections: []*ikesa.Connection{connection(0, "b", "a", false, "192.0.2.1")}}
		if err := fresh.server.Load().Apply(&config); err != nil {
			t.Fatal(err)
		}
		fresh.server.Load().Acquire("b-a-0", "net")
		time.Sleep(time.Second)
		if n := paired(t, p.a, fresh); n != 1 {
			t.Errorf("%d children", n)
		}
		if s := p.a.server.Load().Stats(); s.SAs != 1 || s.Reasons[ikesa.ReasonInitialContact] == 0 {
			t.Errorf("%d IKE SAs, %d ended by INITIAL_CONTACT", s.SAs, s.Reasons[ikesa.ReasonInitialContact])
		}
		_ = dead
		old.cancelForTest()
	})
}

// cancelForTest stops a server without a word, as a crash does.
func (s *Server) cancelForTest() {
	s.closed.Store(true)
	s.manager.call(s.manager.shutDown)
	s.cancel()
	for _, sh := range s.shards {
		sh.stop()
	}
	s.manager.stop()
	s.running.Wait()
}

// TestUniqueness: what happens to a second IKE SA with the same identities, by policy.
func TestUniqueness(t *testing.T) {
	for _, c := range []struct {
		policy ikesa.Unique
		want   int
		first  bool // survives
	}{{ikesa.UniqueNo, 2, true}, {ikesa.UniqueNever, 2, true}, {ikesa.UniqueKeep, 1, true}, {ikesa.UniqueReplace, 1, false}} {
		t.Run(fmt.Sprint("policy ", c.policy), func(t *testing.T) {
			simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
				var as, bs Config
				as.Store, bs.Store = testStore(), testStore()
				// A has two connections with the same identities, for B's one.
				for i := range 2 {
					conn := connection(0, "a", "b", true, "192.0.2.2")
					conn.Name = fmt.Sprint("a", i)
					conn.Children[0].StartAction = ikesa.ActionNone
					as.Connections = append(as.Connections, conn)
				}
				conn := connection(0, "b", "a", false, "192.0.2.1")
				conn.Unique = c.policy
				bs.Connections = append(bs.Connections, conn)
				if err := p.b.server.Load().Apply(&bs); err != nil {
					t.Fatal(err)
				}
				a := p.a.server.Load()
				if err := a.Apply(&as); err != nil {
					t.Fatal(err)
				}
				// INITIAL_CONTACT would decide it before: it comes with the first IKE SA of a connection.
				p.a.server.Load().manager.call(func() {
					for _, l := range a.manager.links {
						l.peers = append(l.peers, &peer{link: l, shard: a.shards[0], ending: true})
					}
				})
				if err := a.Up(t.Context(), "a0", "net"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if err := a.Up(t.Context(), "a1", "net"); err != nil && c.policy != ikesa.UniqueKeep {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				var left []string
				a.List(func(i *Info) bool { left = append(left, i.Connection.Name); return true })
				if len(left) != c.want || c.want == 1 && (left[0] == "a0") != c.first {
					t.Errorf("left: %v", left)
				}
				if n := paired(t, p.a, p.b); n != c.want {
					t.Errorf("%d children", n)
				}
			})
		})
	}
}

// TestDataPlaneEventsReachTheirIKESA: limits of bytes and packets, also after the IKE SA has a successor.
func TestDataPlaneEventsReachTheirIKESA(t *testing.T) {
	simulate(t, 1, Options{Workers: 3}, func(t *testing.T, p *pair) {
		p.configure(t, 5, nil)
		time.Sleep(time.Second)
		a := p.a.server.Load()
		for round := range 3 {
			var spis []uint32
			p.a.mu.Lock()
			for spi := range p.a.in {
				spis = append(spis, spi)
			}
			p.a.mu.Unlock()
			for _, spi := range spis {
				a.Expired(spi, false)
			}
			time.Sleep(30 * time.Second)
			if n := paired(t, p.a, p.b); n != 5 {
				t.Fatalf("%d children", n)
			}
			if got := a.Stats().ChildRekeyed; got != uint64(5*(round+1)) {
				t.Errorf("round %d: %d rekeyed", round, got)
			}
			for i := range 5 {
				if err := a.Rekey(t.Context(), fmt.Sprintf("a-b-%d", i), ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		lost := a.Stats().Drops[DropEvent]
		a.Expired(12345, true)
		a.PeerMoved(12345, thereAt)
		if a.Stats().Drops[DropEvent] != lost+2 {
			t.Error("events of unknown children are not counted")
		}
		var hard uint32
		p.a.mu.Lock()
		for spi := range p.a.in {
			hard = spi
		}
		p.a.mu.Unlock()
		a.Expired(hard, true)
		time.Sleep(30 * time.Second)
		if n := paired(t, p.a, p.b); n != 5 {
			t.Errorf("%d children after a hard limit: it should have come up again", n)
		}
		p.a.mu.Lock()
		defer p.a.mu.Unlock()
		if p.a.in[hard] != nil {
			t.Error("a child lives on behind its hard limit")
		}
	})
}

// TestNothingIsRememberedOfWhatEnded: after rekeys of all kinds, shards and manager are as empty as at first.
func TestNothingIsRememberedOfWhatEnded(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 10, nil)
		a, b := p.a.server.Load(), p.b.server.Load()
		for range 5 {
			time.Sleep(time.Minute)
			for i := range 10 {
				name := fmt.Sprintf("a-b-%d", i)
				for _, child := range []string{"", "net"} {
					if err := a.Rekey(t.Context(), name, child); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i := range 10 {
			if err := a.Down(t.Context(), fmt.Sprintf("a-b-%d", i), ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		for _, s := range []*Server{a, b} {
			for _, sh := range s.shards {
				done := make(chan string)
				sh.call(func() {
					done <- fmt.Sprint(len(sh.sas), len(sh.initial), len(sh.children), len(sh.timers), len(sh.later))
				})
				if got := <-done; got != "0 0 0 0 0" {
					t.Errorf("a shard still has %s", got)
				}
			}
			s.manager.call(func() {
				m := s.manager
				if len(m.peers)+len(m.byIDs)+len(m.contact)+m.connecting+len(m.queue) != 0 {
					t.Errorf("the manager still has %d %d %d %d %d", len(m.peers), len(m.byIDs), len(m.contact), m.connecting, len(m.queue))
				}
				for _, l := range m.links {
					if len(l.peers) != 0 || len(l.waiters) != 0 || l.attempt {
						t.Errorf("%s still has %d peers, %d waiters", l.conn.Name, len(l.peers), len(l.waiters))
					}
				}
			})
			for i := range s.homes.stripes {
				if len(s.homes.stripes[i].shard) != 0 {
					t.Error("a child has a home and does not live")
				}
			}
			if n := s.total.Load(); n != 0 {
				t.Errorf("%d counted", n)
			}
		}
	})
}

// TestCrossingInitiationsLeaveOneIKESA: both sides begin at about the same moment, in every order of the messages that a network gives. Of
// two IKE SAs the same one stays on both sides, soon, and with it a child.
func TestCrossingInitiationsLeaveOneIKESA(t *testing.T) {
	for _, policy := range []ikesa.Unique{ikesa.UniqueNo, ikesa.UniqueKeep, ikesa.UniqueReplace} {
		for apart := time.Duration(0); apart <= 24*time.Millisecond; apart += time.Millisecond {
			t.Run(fmt.Sprint("policy ", policy, ", ", apart, " apart"), func(t *testing.T) {
				simulate(t, uint64(apart)+1, Options{Workers: 2}, func(t *testing.T, p *pair) {
					p.net.jitter = 3 * time.Millisecond
					p.configure(t, 1, func(side string, c *ikesa.Connection) {
						c.Unique = policy
						c.DPDDelay = 0 // nothing but the exchanges themselves may mend it
						c.Children[0].StartAction, c.Children[0].CloseAction, c.Children[0].DPDAction = ikesa.ActionNone, ikesa.ActionNone, ikesa.ActionNone
					})
					go p.a.server.Load().Up(t.Context(), "a-b-0", "net")
					time.Sleep(apart)
					go p.b.server.Load().Up(t.Context(), "b-a-0", "net")
					for _, after := range []time.Duration{2 * time.Second, 20 * time.Second} {
						time.Sleep(after)
						n, wrong := differences(p.a, p.b)
						if len(wrong) > 0 || n == 0 {
							t.Errorf("after %v: %d children, %v", after, n, wrong)
						}
						for _, nd := range []*node{p.a, p.b} {
							want := 1
							if policy == ikesa.UniqueNo {
								want = n
							}
							if s := nd.server.Load().Stats(); int(s.SAs) != want || n != want {
								t.Errorf("after %v: %d IKE SAs at %s, %d children", after, s.SAs, nd.name, n)
							}
						}
					}
				})
			})
		}
	}
}
