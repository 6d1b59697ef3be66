package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// SetEndpoints makes endpoints the whole set of our outer tunnel addresses.
// Additions come before removals. If there is no room for as many, the error wraps [ErrNoRoom] and nothing has changed.
func (s *Steering) SetEndpoints(endpoints []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setAddresses(&s.endpoints, endpoints)
}

// SetOwn makes own the whole set of addresses that the kernel answers for; what goes
// to them is never taken for tunnel traffic. The endpoints need not be repeated. Its errors are those of SetEndpoints.
func (s *Steering) SetOwn(own []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setAddresses(&s.own, own)
}

// setAddresses makes one of the two lists of addresses another one.
func (s *Steering) setAddresses(list *[]netip.Addr, to []netip.Addr) error {
	before := *list
	*list = slices.Clone(to)
	err := s.syncAddresses()
	if errors.Is(err, ErrNoRoom) {
		*list = before
	}
	return err
}

// CheckEndpoints says whether SetEndpoints has room for these.
func (s *Steering) CheckEndpoints(endpoints []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := make(map[netip.Addr]struct{}, len(endpoints)+len(s.own))
	for _, a := range slices.Concat(endpoints, s.own) {
		set[a.Unmap().WithZone("")] = struct{}{}
	}
	var v4, v6 int
	for a := range set {
		count(a, &v4, &v6)
	}
	return s.addressRoom(v4, v6)
}

func (s *Steering) addressRoom(v4, v6 int) error {
	return room("addresses of the gateway", v4, v6, s.objs.Addresses4, s.objs.Addresses6)
}

// syncAddresses brings the address maps to the wanted union. s.addresses
// follows every single map operation, so that a failed call can be repeated.
func (s *Steering) syncAddresses() (err error) {
	defer func() { err = errors.Join(err, s.changed()) }()
	want := make(map[netip.Addr]steerAddressFlag, len(s.endpoints)+len(s.own))
	for _, a := range s.endpoints {
		want[a.Unmap().WithZone("")] |= steerAddressFlagADDRESS_ENDPOINT
	}
	for _, a := range s.own {
		want[a.Unmap().WithZone("")] |= steerAddressFlagADDRESS_OWN
	}
	var v4, v6 int
	for a := range want {
		if !a.IsValid() {
			return fmt.Errorf("an address of the gateway is not valid")
		}
		count(a, &v4, &v6)
	}
	if err := s.addressRoom(v4, v6); err != nil {
		return err
	}
	for a := range s.addresses {
		if want[a] == 0 {
			count(a, &v4, &v6)
		}
	}
	if s.addressRoom(v4, v6) != nil { // not for both sets at once
		if err := s.removeAddresses(want); err != nil {
			return err
		}
	}
	for a, flags := range want {
		if s.addresses[a] == flags {
			continue
		}
		m, key := s.addressKey(a)
		if err := m.Put(key, flags); err != nil {
			return fmt.Errorf("adding address %v to the steering program: %w", a, err)
		}
		s.addresses[a] = flags
	}
	return s.removeAddresses(want)
}

// removeAddresses removes what is not wanted.
func (s *Steering) removeAddresses(want map[netip.Addr]steerAddressFlag) error {
	for a := range s.addresses {
		if want[a] != 0 {
			continue
		}
		m, key := s.addressKey(a)
		if err := ignoreMissing(m.Delete(key)); err != nil {
			return fmt.Errorf("removing address %v from the steering program: %w", a, err)
		}
		delete(s.addresses, a)
	}
	return nil
}

func count(a netip.Addr, v4, v6 *int) {
	if a.Is4() {
		*v4++
	} else {
		*v6++
	}
}

// room says whether two maps hold so many entries.
func room(what string, v4, v6 int, m4, m6 *ebpf.Map) error {
	for _, c := range []struct {
		family string
		wanted int
		m      *ebpf.Map
	}{{"IPv4", v4, m4}, {"IPv6", v6, m6}} {
		if most := int(c.m.MaxEntries()); c.wanted > most {
			return fmt.Errorf("%d %s %s: %w for more than %d", c.wanted, c.family, what, ErrNoRoom, most)
		}
	}
	return nil
}

func (s *Steering) addressKey(a netip.Addr) (*ebpf.Map, any) {
	if a.Is4() {
		return s.objs.Addresses4, a.As4()
	}
	return s.objs.Addresses6, a.As16()
}
