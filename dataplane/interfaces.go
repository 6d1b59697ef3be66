package dataplane

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"sallyport/dataplane/keeper"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/worker"
)

// Interface is a virtual interface: a TUN device that routes lead packets into, which then go into associations of the policies that name it,
// and by which what these associations receive arrives. It outlives the process: what routes lead there is dropped by the kernel meanwhile.
type Interface struct {
	Name string
	// MTU in bytes; 0: keeper.DefaultInterfaceMTU, or what somebody has set.
	MTU int
	// Addresses are given to it, with their prefixes; others stay.
	Addresses []netip.Prefix
}

// virtual is an interface with its number, which is that of its name as long as the engine lives, and its device.
type virtual struct {
	Interface
	number uint16
	device *keeper.TUN // nil in memory, and before Start
	gone   bool        // no longer configured
	failed bool        // it could not be made again, which the log says already
}

// interfacesMax bounds the names that an engine ever gave numbers to.
const interfacesMax = math.MaxUint16

// separate builds the table of policies for everything, and one for each interface that some are for.
func separate(all []spd.Policy) (main *spd.Table, of map[string]*spd.Table, err error) {
	first := slices.IndexFunc(all, func(p spd.Policy) bool { return p.Interface != "" })
	if first < 0 {
		main, err = spd.Build(all)
		return main, nil, err
	}
	rest := slices.Clone(all[:first])
	lists := map[string][]spd.Policy{}
	for _, p := range all[first:] {
		if p.Interface == "" {
			rest = append(rest, p)
			continue
		}
		if p.Action != spd.Protect {
			return nil, nil, fmt.Errorf("policy %q: what goes by interface %s is protected", p.Name, p.Interface)
		}
		lists[p.Interface] = append(lists[p.Interface], p)
	}
	if main, err = spd.Build(rest); err != nil {
		return nil, nil, err
	}
	of = make(map[string]*spd.Table, len(lists))
	for name, list := range lists {
		if of[name], err = spd.Build(list); err != nil {
			return nil, nil, fmt.Errorf("interface %s: %w", name, err)
		}
	}
	return main, of, nil
}

// obeyTables makes the tables those of new policies. The caller holds e.mu.
func (e *Engine) obeyTables(main *spd.Table, of map[string]*spd.Table) {
	e.tables.SPD, e.tablesOf = main, of
	e.showInterfaces()
}

// showInterfaces makes the workers' list of interfaces anew. The caller holds e.mu.
func (e *Engine) showInterfaces() {
	e.tables.Interfaces = nil
	live := false
	list := make([]worker.Interface, len(e.virtual)+1)
	for name, v := range e.virtual {
		if v.gone {
			continue
		}
		live = true
		n := worker.Interface{Name: name, SPD: e.tablesOf[name]}
		if n.SPD == nil {
			n.SPD = e.nothing
		}
		if v.device != nil {
			n.Source4, n.Source6 = sourcesOf(v.device.Ifindex)
		}
		list[v.number] = n
	}
	if live {
		e.tables.Interfaces = list
	}
}

// sourcesOf returns the addresses of an interface that ICMP errors may come from; invalid without one.
func sourcesOf(ifindex int) (source4, source6 netip.Addr) {
	link, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return source4, source6
	}
	addrs, err := link.Addrs()
	if err != nil {
		return source4, source6
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch addr := prefix.Addr(); {
		case addr.Is4() && !source4.IsValid():
			source4 = addr
		case addr.Is6() && !addr.IsLinkLocalUnicast() && !source6.IsValid():
			source6 = addr
		}
	}
	return source4, source6
}

// numberOf returns the number of an interface, which may be configured later: associations come before policies.
func (e *Engine) numberOf(name string) (uint16, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.numbered(name)
	if err != nil {
		return 0, err
	}
	return v.number, nil
}

// numbered returns the entry of an interface, which is made if there is none. The caller holds e.mu.
func (e *Engine) numbered(name string) (*virtual, error) {
	v := e.virtual[name]
	if v == nil {
		if len(e.virtual) == interfacesMax {
			return nil, fmt.Errorf("interface %s: there were %d others already", name, interfacesMax)
		}
		v = &virtual{Interface: Interface{Name: name}, number: uint16(len(e.virtual) + 1), gone: true}
		e.virtual[name] = v
	}
	return v, nil
}

// applyInterfaces makes the interfaces those of list: it opens the new ones, and returns those that are to go once no policy names them. On an error nothing
// has changed but addresses and MTUs. The caller holds e.mu.
func (e *Engine) applyInterfaces(list []Interface) (ended []*virtual, err error) {
	var opened []*virtual
	wanted := map[string]bool{}
	for _, i := range list {
		wanted[i.Name] = true
		v, err := e.numbered(i.Name)
		if err != nil {
			return nil, err
		}
		before := v.Interface
		if v.Interface = i; v.gone {
			before = Interface{}
			opened = append(opened, v)
		}
		if e.watcher == nil {
			v.gone = false
			continue
		}
		if err := e.openInterface(v, before); err != nil {
			for _, v := range opened {
				if v.device != nil {
					e.closeInterface(v)
				}
			}
			return nil, err
		}
		v.gone = false
	}
	for name, v := range e.virtual {
		if !v.gone && !wanted[name] {
			ended = append(ended, v)
		}
	}
	return ended, nil
}

// openInterface opens an interface's device, if it has none yet, and gives it its addresses. The caller holds e.mu.
func (e *Engine) openInterface(v *virtual, before Interface) (err error) {
	if e.device == nil {
		return fmt.Errorf("interface %s: there is no TUN device for the gateway", v.Name)
	}
	if v.device == nil || before.MTU != v.MTU {
		if v.device != nil {
			e.pumpRemove(v)
		}
		if v.device, err = e.keeper.OpenInterface(v.Name, e.cfg.Instance, v.MTU); err != nil {
			return err
		}
		if e.pump != nil {
			e.pump.Add(v.number, v.device.File, packet.LenMax)
		}
	}
	for _, p := range v.Addresses {
		err = errors.Join(err, e.keeper.AddAddress(v.Name, p))
	}
	for _, p := range before.Addresses {
		if !slices.Contains(v.Addresses, p) {
			err = errors.Join(err, e.keeper.DeleteAddress(v.Name, p))
		}
	}
	return err
}

// pumpRemove takes an interface's device from the pump and closes it. The caller holds e.mu.
func (e *Engine) pumpRemove(v *virtual) {
	if e.pump != nil {
		e.pump.Remove(v.number)
	}
	v.device.File.Close()
	v.device = nil
}

// closeInterface closes an interface that is configured no more, and deletes its device. The caller holds e.mu.
func (e *Engine) closeInterface(v *virtual) {
	v.gone = true
	if v.device == nil {
		return
	}
	e.pumpRemove(v)
	if err := e.keeper.DeleteInterface(v.Name, e.cfg.Instance); err != nil {
		e.log.Error().Err(err).Msg("an interface that is configured no more is still there")
	}
}

// openInterfaces opens the devices of all configured interfaces when the engine starts, and deletes those that an earlier process left and
// that are configured no more. The caller holds e.mu.
func (e *Engine) openInterfaces() error {
	for _, v := range e.virtual {
		if v.gone {
			continue
		}
		if err := e.openInterface(v, Interface{}); err != nil {
			return err
		}
	}
	there, err := e.keeper.Interfaces(e.cfg.Instance)
	if err != nil {
		return err
	}
	for _, name := range there {
		if v := e.virtual[name]; v == nil || v.gone {
			if err := e.keeper.DeleteInterface(name, e.cfg.Instance); err != nil {
				return err
			}
		}
	}
	return nil
}

// remake makes TUN devices anew that somebody has deleted, with their addresses. Routes into them went with them: those of the gateway itself come
// back, others are for whoever set them.
func (e *Engine) remake() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || e.watcher == nil {
		return
	}
	made := e.remakeTUN()
	for _, v := range e.virtual {
		if v.gone || v.device != nil && !v.device.Deleted() {
			continue
		}
		log := e.log.With().Str("interface", v.Name).Logger()
		if v.device != nil {
			log.Warn().Msg("somebody deleted the interface; it is made again")
			e.pumpRemove(v)
		}
		if err := e.openInterface(v, Interface{}); err != nil {
			if v.device != nil {
				log.Error().Err(err).Msg("the interface lacks addresses")
			} else if !v.failed {
				log.Error().Err(err).Msg("the interface cannot be made again; it is tried every second")
			}
			v.failed = true
		} else {
			v.failed = false
			log.Info().Int("ifindex", v.device.Ifindex).Msg("the interface is back. Routes into it went with it: set them again where no routing daemon does")
		}
		made = made || v.device != nil
	}
	if made {
		e.showInterfaces()
		e.publishTables()
	}
}

// remakeTUN does the same for the gateway's own device. The caller holds e.mu.
func (e *Engine) remakeTUN() bool {
	if e.device == nil || e.pump == nil || !e.device.Deleted() {
		return false
	}
	log := e.log.With().Str("interface", e.cfg.TUN).Logger()
	device, err := e.keeper.OpenTUN(e.cfg.TUN, e.tunMTU)
	if err != nil {
		log.Error().Err(err).Msg("somebody deleted the TUN device, and it cannot be made again: nothing reaches the kernel")
		return false
	}
	e.pump.Remove(0)
	e.device.File.Close()
	e.device = device
	e.pump.Add(0, device.File, e.tunMTU)
	log.Warn().Msg("somebody deleted the TUN device; it was made again")
	if e.cfg.OwnChanged != nil {
		e.cfg.OwnChanged(e.tables.Own) // sets the routes into it
	}
	return true
}

// watched returns the numbers of the interfaces for the watcher of routes. The caller holds e.mu.
func (e *Engine) watched() map[string]uint16 {
	numbers := map[string]uint16{}
	for name, v := range e.virtual {
		if !v.gone {
			numbers[name] = v.number
		}
	}
	return numbers
}
