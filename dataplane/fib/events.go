package fib

import "net/netip"

// LinkChange says what happened to a port's interface.
type LinkChange uint8

const (
	// LinkAppeared: there is an interface with the port's name (at start, or created again).
	LinkAppeared LinkChange = iota
	// LinkGone: the interface with this index was deleted or renamed.
	LinkGone
	// LinkUp and LinkDown: the administrative state changed.
	LinkUp
	LinkDown
	// LinkChanged: MTU or link address changed.
	LinkChanged
)

// String returns the change's name.
func (c LinkChange) String() string {
	return [...]string{"appeared", "gone", "up", "down", "changed"}[c]
}

// LinkEvent reports a change of an interface that is one of our ports. An interface that was
// deleted and created again is a LinkGone with the old index and then a LinkAppeared with the new.
type LinkEvent struct {
	Change  LinkChange
	Name    string
	Port    uint16
	Ifindex int
	MTU     int // bytes
	MAC     [6]byte
	Up      bool
}

// Update is what a watcher reports. Slices are not changed afterwards.
type Update struct {
	// Table is the current snapshot; it may be the one reported before.
	Table *Table
	// Links are the changes since the last report, in order.
	Links []LinkEvent
	// Own are the gateway's addresses, sorted; OwnChanged says whether they differ from the last report.
	Own        []netip.Addr
	OwnChanged bool
}

// linkEvents compares two listings for the ports' interfaces.
func linkEvents(old, now map[string]link, ports map[string]uint16) []LinkEvent {
	var out []LinkEvent
	for name, was := range old {
		is, ok := now[name]
		if !ok || is.index != was.index {
			out = append(out, LinkEvent{LinkGone, name, ports[name], was.index, was.mtu, was.mac, false})
		}
	}
	for name, is := range now {
		e := LinkEvent{LinkAppeared, name, ports[name], is.index, is.mtu, is.mac, is.up}
		was, ok := old[name]
		if ok && was.index == is.index {
			if was.mtu != is.mtu || was.mac != is.mac {
				e.Change = LinkChanged
				out = append(out, e)
			}
			if was.up == is.up {
				continue
			}
			e.Change = LinkDown
			if is.up {
				e.Change = LinkUp
			}
		}
		out = append(out, e)
	}
	return out
}
