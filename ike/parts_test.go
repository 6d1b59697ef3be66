package ike

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// TestTimersFireInOrder compares the heap with a sorted list.
func TestTimersFireInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	start := time.Now()
	var heap timers
	naive := map[*entry]time.Time{}
	all := make([]*entry, 40)
	for i := range all {
		all[i] = new(entry)
	}
	for range 5000 {
		e := all[random.IntN(len(all))]
		if at := random.IntN(100); at < 20 {
			heap.set(e, time.Time{})
			delete(naive, e)
		} else {
			heap.set(e, start.Add(time.Duration(at)))
			naive[e] = start.Add(time.Duration(at))
		}
		if len(heap) != len(naive) {
			t.Fatal(len(heap), len(naive))
		}
		if first := heap.next(); first != nil {
			for _, at := range naive {
				if at.Before(first.deadline) {
					t.Fatal("an earlier one waits")
				}
			}
			if !naive[first].Equal(first.deadline) {
				t.Fatal("deadline")
			}
		}
		for i, e := range heap {
			if e.place != i+1 {
				t.Fatal("an entry does not know its place")
			}
		}
	}
}

func TestMailboxRefusesOffersAndNeverOrders(t *testing.T) {
	m := newMailbox()
	for i := range mailboxOffers + 10 {
		if got := m.offer(func() {}); got != (i < mailboxOffers) {
			t.Fatal(i, got)
		}
	}
	if !m.post(func() {}) {
		t.Fatal("an order was refused")
	}
	do := func(f func()) { f() }
	if m.work(do) {
		t.Fatal("the end of a mailbox that is open")
	}
	if !m.offer(func() {}) {
		t.Fatal("offers are not counted down")
	}
	m.close()
	if !m.work(do) || m.offers != 0 {
		t.Fatal("the last orders are not the end of a mailbox that is closed")
	}
	if m.post(func() {}) || m.offer(func() {}) {
		t.Fatal("closed")
	}
}

func identity(name string) auth.Identity {
	return auth.Identity{Type: message.IDFQDN, Data: name}
}

func TestPoolGivesEachAddressOnceAndTheFormerOneAgain(t *testing.T) {
	s := newPoolSet()
	s.configure([]Pool{{Name: "p", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/29"), netip.MustParsePrefix("2001:db8::/64")},
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}}})
	names, any4 := []string{"none", "p"}, netip.IPv4Unspecified()
	given := map[netip.Addr]string{}
	ids := []string{"a", "b", "c", "d", "e", "f"}
	for _, id := range ids {
		l, err := s.assign(names, identity(id), any4)
		if err != nil {
			t.Fatal(err)
		}
		if given[l.Addr] != "" {
			t.Fatalf("%v twice", l.Addr)
		}
		given[l.Addr] = id
		if len(l.DNS) != 1 || !l.DNS[0].Is4() {
			t.Errorf("DNS %v", l.DNS)
		}
	}
	for _, never := range []string{"198.18.0.0", "198.18.0.7"} {
		if given[netip.MustParseAddr(never)] != "" {
			t.Errorf("%s is given out", never)
		}
	}
	if _, err := s.assign(names, identity("g"), any4); err == nil {
		t.Fatal("a seventh of six")
	}
	for a, id := range given {
		s.release(names, identity("somebody"), a) // not its own
		s.release(names, identity(id), a)
	}
	for _, id := range []string{"c", "a", "f"} {
		l, err := s.assign(names, identity(id), any4)
		if err != nil || given[l.Addr] != id {
			t.Errorf("%s gets %v, which was %s's: %v", id, l.Addr, given[l.Addr], err)
		}
	}
	// A new one takes the place of somebody who is gone.
	l, err := s.assign(names, identity("g"), any4)
	if err != nil || slices.Contains([]string{"a", "c", "f"}, given[l.Addr]) {
		t.Error(l, err)
	}
	// What is asked for is given if it is free.
	six, err := s.assign(names, identity("a"), netip.MustParseAddr("2001:db8::1234"))
	if err != nil || six.Addr != netip.MustParseAddr("2001:db8::1234") {
		t.Error(six, err)
	}
	six, err = s.assign(names, identity("b"), netip.MustParseAddr("2001:db8::1234"))
	if err != nil || six.Addr == netip.MustParseAddr("2001:db8::1234") {
		t.Error(six, err)
	}
	if _, err := s.assign([]string{"none"}, identity("a"), any4); err == nil {
		t.Error("an unknown pool")
	}
}

func TestReloadedPoolKeepsItsLeases(t *testing.T) {
	s := newPoolSet()
	one := Pool{Name: "p", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/30")}}
	s.configure([]Pool{one})
	a, err := s.assign([]string{"p"}, identity("a"), netip.IPv4Unspecified())
	if err != nil {
		t.Fatal(err)
	}
	one.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/29")}
	s.configure([]Pool{one})
	for range 5 {
		l, err := s.assign([]string{"p"}, identity("other"), netip.IPv4Unspecified())
		if err != nil || l.Addr == a.Addr {
			t.Fatal(l, err)
		}
	}
}

// TestServersCloseWhateverTheyDo: an order and the end may reach a goroutine with one ring of its mailbox.
func TestServersCloseWhateverTheyDo(t *testing.T) {
	for range 1000 {
		s := NewServer(Options{Workers: 2}, quiet{make(chan ikesa.Datagram, 1)}, nil)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close(t.Context())
		}()
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("a server without IKE SAs does not close")
		}
	}
}
