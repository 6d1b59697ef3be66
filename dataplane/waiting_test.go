package dataplane

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// waitingRig returns a gateway that negotiates, whose tunnel 0 has an association that it does not send by yet.
func waitingRig(t testing.TB, o options) (a, b *gateway, out sad.Handle) {
	o.ike = true
	a, b = newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	b.tunnel(sideB, sideA, o, 0x2001, 0x1001)
	o.noBind = true
	a.tunnel(sideA, sideB, o, 0x1001, 0x2001)
	a.Associations(func(i *sad.Info) bool {
		if !i.Params.Inbound {
			out = i.Handle
		}
		return true
	})
	a.run()
	return a, b, out
}

// TestFirstPacketsWaitForTheirAssociation: what asked for an association is sent when it is there, in order, and comes out
// at the other end as any other packet does.
func TestFirstPacketsWaitForTheirAssociation(t *testing.T) {
	for _, workers := range []int{1, 2} {
		a, b, out := waitingRig(t, options{workers: workers, queues: workers})
		var sizes []int
		for i := range 5 {
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100+i, 64))
			sizes = append(sizes, 14+100+i)
		}
		a.inject(inside, udp6("2001:db8:a::5", "2001:db8:b::5", 200, 64))
		sizes = append(sizes, 14+200)
		if left := a.drain(outside); len(left) != 0 || len(a.dropped()) != 0 {
			t.Fatalf("%d packets left without an association; dropped %v", len(left), a.dropped())
		}
		if events := a.heard(); len(events) != 1 || events[0].Kind != EventAcquire {
			t.Errorf("%+v", events)
		}
		if err := a.Bind(0, out); err != nil {
			t.Fatal(err)
		}
		a.run()
		cross(t, a, b)
		var got []int
		for _, f := range b.drain(inside) {
			got = append(got, len(f))
			if f[14]>>4 == 4 && f[14+8] != 62 {
				t.Errorf("TTL %d", f[14+8])
			}
		}
		if !reflect.DeepEqual(got, sizes) {
			t.Errorf("arrived: %v, want %v; dropped %v, %v", got, sizes, a.dropped(), b.dropped())
		}
		if s := a.Stats().Total; s.Waited != 6 {
			t.Errorf("%d waited", s.Waited)
		}
		a.settled()
		b.settled()
	}
}

// TestWaitingPacketsAreBounded by number for a tunnel and in all, and by time; what is too much is dropped as before.
func TestWaitingPacketsAreBounded(t *testing.T) {
	a, _, _ := waitingRig(t, options{ring: 2048})
	var policies []spd.Policy
	for i := range 300 {
		s := selector(sideA, sideB)
		s.Remote = []spd.Range{spd.RangeOf(netip.PrefixFrom(host(i), 32))}
		policies = append(policies, spd.Policy{Name: fmt.Sprint(i), Action: spd.Protect, Selectors: []spd.Selector{s}, Tunnel: uint32(i + 1)})
	}
	if err := a.Apply(Policies{SPD: policies, Endpoints: []netip.Addr{sideA.outer4}}); err != nil {
		t.Fatal(err)
	}
	a.inject(inside, repeat(udp4("198.51.100.5", host(0).String(), 100, 64), 100)...)
	if n := a.dropped()["no-outbound"]; n != 100-16 {
		t.Errorf("%d of 100 packets of one tunnel dropped", n)
	}
	a.inject(inside, udp4("198.51.100.5", host(1).String(), 100, 64)) // is not made to suffer for it
	if n := a.dropped()["no-outbound"]; n != 100-16 {
		t.Error("a packet of another tunnel is dropped")
	}
	for i := range 300 {
		a.inject(inside, udp4("198.51.100.5", host(i).String(), 100, 64))
	}
	if s := a.Stats().Total; s.Waited != 256 || s.Dropped != 401-256 {
		t.Errorf("%d wait, %d dropped", s.Waited, s.Dropped)
	}
	a.now += 11e9
	a.run()
	if want := map[string]uint64{"no-outbound": 401}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("after their time: %v", a.dropped())
	}
	a.inject(inside, udp4("198.51.100.5", host(7).String(), 100, 64))
	if n := a.dropped()["no-outbound"]; n != 401 {
		t.Error("there is no room although nothing waits")
	}
	a.group.Drain()
	if n := a.dropped()["stopped"]; n != 1 {
		t.Errorf("at the end: %v", a.dropped())
	}
	a.settled()
}

// TestWaitingPacketsAreJudgedAgain by the policies that are in force when they are tried: those of a narrower
// negotiated policy, of one that discards, of none.
func TestWaitingPacketsAreJudgedAgain(t *testing.T) {
	t.Run("negotiated", func(t *testing.T) {
		a, b, out := waitingRig(t, options{})
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64), udp4("198.51.100.5", "198.51.100.201", 100, 64))
		narrow := selector(sideA, sideB)
		narrow.Remote = []spd.Range{spd.RangeOf(netip.MustParsePrefix("198.51.100.200/32"))}
		tunnel, err := a.AddPolicy(Instance{Name: "narrow", Of: "rig", Selectors: []spd.Selector{narrow}})
		if err == nil {
			err = a.Bind(tunnel, out)
		}
		if err == nil {
			err = a.recompile()
		}
		if err != nil {
			t.Fatal(err)
		}
		a.run()
		cross(t, a, b)
		if got := b.drain(inside); len(got) != 1 || len(a.dropped()) != 0 {
			t.Errorf("%d packets arrived; dropped %v", len(got), a.dropped())
		}
		a.now += 11e9 // nothing came for the other one
		a.run()
		a.settled()
		b.settled()
	})
	for _, c := range []struct {
		action spd.Action
		want   map[string]uint64
		sent   uint64
	}{{spd.Discard, map[string]uint64{"policy-discard": 1}, 0}, {spd.Bypass, map[string]uint64{"no-route": 1}, 1}} {
		t.Run(c.action.String(), func(t *testing.T) {
			a, _, _ := waitingRig(t, options{})
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
			if err := a.Apply(Policies{SPD: []spd.Policy{{Name: "new", Action: c.action, Selectors: []spd.Selector{selector(sideA, sideB)}}}, Endpoints: []netip.Addr{sideA.outer4}}); err != nil {
				t.Fatal(err)
			}
			a.run()
			if !reflect.DeepEqual(a.dropped(), c.want) || a.Stats().Total.Sent != c.sent {
				t.Errorf("dropped %v, %d sent", a.dropped(), a.Stats().Total.Sent)
			}
			a.settled()
		})
	}
}

// TestDecapsulatedPacketsWaitToo: what came from one site for another waits for that one's tunnel, and never leaves in
// the clear by the outside when the policy goes.
func TestDecapsulatedPacketsWaitToo(t *testing.T) {
	for _, gone := range []bool{false, true} {
		a, b, _ := waitingRig(t, options{})
		// A's peer is allowed to send to a third site, 203.0.113.0/24, whose tunnel 5 does not stand yet.
		s := selector(sideA, sideB)
		s.Local, s.Remote = s.Remote, []spd.Range{spd.RangeOf(netip.MustParsePrefix("203.0.113.0/24"))}
		suite := options{}.withDefaults().suite
		third := sad.Params{Name: "third", Suite: suite, SPI: 0x3001, Keymat: keymat(suite, 3), Local: sideB.outer4, Remote: sideA.outer4, Selectors: []spd.Selector{s}}
		out, err := b.Install(third)
		if err == nil {
			err = b.Bind(0, out)
		}
		if err == nil {
			err = b.Apply(Policies{SPD: []spd.Policy{{Name: "third", Action: spd.Protect, Selectors: []spd.Selector{s}}}, Endpoints: []netip.Addr{sideB.outer4}})
		}
		back := s
		back.Local, back.Remote = s.Remote, s.Local
		third.Inbound, third.Local, third.Remote, third.Selectors = true, sideA.outer4, sideB.outer4, []spd.Selector{back}
		if err == nil {
			_, err = a.Install(third)
		}
		if err == nil {
			err = a.Apply(Policies{SPD: []spd.Policy{{Name: "third", Action: spd.Protect, Selectors: []spd.Selector{s}, Tunnel: 5}}, Endpoints: []netip.Addr{sideA.outer4}})
		}
		if err != nil {
			t.Fatal(err)
		}
		b.run()
		b.inject(inside, udp4("198.51.100.200", "203.0.113.9", 100, 64))
		cross(t, b, a)
		if s := a.Stats().Total; s.Waited != 1 || s.Sent != 0 {
			t.Fatalf("%d wait, %d sent, dropped %v; %v", s.Waited, s.Sent, a.dropped(), b.dropped())
		}
		if gone {
			if err := a.Apply(Policies{Endpoints: []netip.Addr{sideA.outer4}}); err != nil {
				t.Fatal(err)
			}
			a.run()
			if want := map[string]uint64{"exposed": 1}; !reflect.DeepEqual(a.dropped(), want) || len(a.drain(outside)) != 0 {
				t.Errorf("dropped %v", a.dropped())
			}
		} else {
			third.Inbound, third.SPI, third.Keymat, third.Selectors = false, 0x3002, keymat(suite, 4), []spd.Selector{s}
			h, err := a.Install(third)
			if err == nil {
				err = a.Bind(5, h)
			}
			if err != nil {
				t.Fatal(err)
			}
			a.run()
			if left := a.drain(outside); len(left) != 1 || left[0][14+9] != packet.ProtoESP {
				t.Errorf("%d packets left; dropped %v", len(left), a.dropped())
			}
		}
		a.settled()
	}
}

// TestPacketsDoNotWaitForManualKeys: nobody would bring an association.
func TestPacketsDoNotWaitForManualKeys(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	a.tunnel(sideA, sideB, options{noBind: true}, 0x1001, 0x2001)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if want := map[string]uint64{"no-outbound": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}
