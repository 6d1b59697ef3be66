package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// SetEndpoints makes endpoints the whole set of our outer tunnel addresses.
// Additions come before removals.
func (s *Steering) SetEndpoints(endpoints []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = slices.Clone(endpoints)
	return s.syncAddresses()
}

// SetOwn makes own the whole set of addresses that the kernel answers for; what goes
// to them is never taken for tunnel traffic. The endpoints need not be repeated.
func (s *Steering) SetOwn(own []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = slices.Clone(own)
	return s.syncAddresses()
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
	for a, flags := range want {
		if s.addresses[a] == flags {
			continue
		}
		if !a.IsValid() {
			return fmt.Errorf("an address of the gateway is not valid")
		}
		m, key := s.addressKey(a)
		if err := m.Put(key, flags); err != nil {
			return fmt.Errorf("adding address %v to the steering program: %w", a, err)
		}
		s.addresses[a] = flags
	}
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

func (s *Steering) addressKey(a netip.Addr) (*ebpf.Map, any) {
	if a.Is4() {
		return s.objs.Addresses4, a.As4()
	}
	return s.objs.Addresses6, a.As16()
}
