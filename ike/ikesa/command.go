package ikesa

import (
	"net/netip"
	"time"
)

// Command is something that the operator, the server or the data plane wants of
// an SA. A command that cannot be done now waits until it can, and one that is
// moot by then is forgotten.
type Command interface{ command() }

type (
	// Initiate starts an SA made by NewInitiator.
	Initiate struct{}
	// AddChild creates a child. On an SA that is not established yet it waits.
	AddChild struct{ Child *Child }
	// RekeyIKE rekeys the IKE SA, Reauth makes it anew and then deletes this one.
	RekeyIKE struct{}
	Reauth   struct{}
	// RekeyChild and DeleteChild name the child by its inbound SPI.
	RekeyChild  struct{ SPI uint32 }
	DeleteChild struct {
		SPI    uint32
		Reason Reason
	}
	// DeleteIKE says goodbye to the peer and ends the SA.
	DeleteIKE struct{ Reason Reason }
	// Abandon ends the SA without a word to the peer, which does not know it any more.
	Abandon struct{ Reason Reason }
	// Moved says that our address has changed: MOBIKE tells the peer, and without
	// MOBIKE the SA is made anew. Remote is the peer's address to use from now on,
	// the present one if not valid.
	Moved struct {
		Local  netip.AddrPort
		Remote netip.AddrPort
	}
	// PeerMoved says that an authenticated newest ESP packet of the child came from
	// another address (RFC 7296, 2.23).
	PeerMoved struct {
		SPI  uint32
		From netip.AddrPort
	}
	// ChildExpired says that the data plane counted to the soft limit of a child, or
	// to the hard one.
	ChildExpired struct {
		SPI  uint32
		Hard bool
	}
	// Accompanied says that another IKE SA with the same peer has come up: one that is still to authenticate itself no longer
	// claims to be the only one (RFC 7296, 2.4).
	Accompanied struct{}
	// Reconfigured gives an established SA another description of the same peer, which counts from now on: for times, for
	// children to come, for the next authentication. What of its children it makes obsolete, others delete or rekey.
	Reconfigured struct{ Connection *Connection }
	// Liveness asks the peer for a sign of life, if none came just now.
	Liveness struct{}
	// PathDoubted says that somebody who is not authenticated claims that less arrives at the peer than was found out.
	PathDoubted struct{}
)

func (Initiate) command()     {}
func (AddChild) command()     {}
func (RekeyIKE) command()     {}
func (Reauth) command()       {}
func (RekeyChild) command()   {}
func (DeleteChild) command()  {}
func (DeleteIKE) command()    {}
func (Abandon) command()      {}
func (Moved) command()        {}
func (PeerMoved) command()    {}
func (ChildExpired) command() {}
func (Accompanied) command()  {}
func (Reconfigured) command() {}
func (Liveness) command()     {}
func (PathDoubted) command()  {}
func (PathFound) command()    {}

// Command does what the operator, the server or the data plane wants.
func (s *SA) Command(now time.Time, cmd Command, out *Outputs) {
	if s.state == StateEnded {
		return
	}
	switch c := cmd.(type) {
	case Initiate:
		s.initiate(now, out)
	case AddChild:
		s.addChild(now, c.Child)
	case RekeyIKE:
		if s.state == StateEstablished && !s.ikeRekeying() {
			s.add(&ikeRekey{}, now)
		}
	case Reauth:
		s.reauthenticate(now, out)
	case RekeyChild:
		s.rekeyChild(now, c.SPI)
	case DeleteChild:
		if s.childBySPIIn(c.SPI) != nil {
			s.add(&childDelete{spi: c.SPI, reason: orDeleted(c.Reason)}, now)
		}
	case DeleteIKE:
		s.deleteIKE(now, orDeleted(c.Reason), out)
	case Abandon:
		s.end(now, orDeleted(c.Reason), out)
	case Moved:
		s.moved(now, c, out)
	case PeerMoved:
		if s.state == StateEstablished && !s.mobikeOn && s.natThere && !s.natHere && s.childBySPIIn(c.SPI) != nil && c.From != s.remote {
			s.moveTo(s.local, c.From, out)
		}
	case ChildExpired:
		if child := s.childBySPIIn(c.SPI); child != nil && c.Hard {
			s.expireChild(now, child)
		} else if child != nil {
			s.rekeyChild(now, c.SPI)
		}
	case Accompanied:
		if s.handshake != nil {
			s.handshake.initialContact = false
		}
	case Reconfigured:
		s.reconfigure(now, c.Connection)
	case PathDoubted:
		s.recheckPath(now)
	case PathFound:
		s.takePath(now, c, out)
	case Liveness:
		if s.state == StateEstablished {
			s.add(&liveness{}, now)
		}
	}
	s.run(now, out)
}

func orDeleted(r Reason) Reason {
	if r == ReasonNone {
		return ReasonDeletedHere
	}
	return r
}

// reconfigure goes on by another description of the same peer.
func (s *SA) reconfigure(now time.Time, c *Connection) {
	if s.state < StateEstablished {
		return // it is told again then
	}
	old := s.conn
	s.conn = c
	for _, child := range s.children {
		if conf := c.Child(child.conf.Name); conf != nil {
			child.conf = conf
		}
	}
	for _, q := range s.queue {
		if t, ok := q.task.(*childExchange); ok {
			if conf := c.Child(t.conf.Name); conf != nil {
				t.conf = conf
			}
		}
	}
	if s.state != StateEstablished {
		return
	}
	if old.PathTime != c.PathTime {
		s.schedulePath(now)
	}
	times := func(c *Connection) [6]time.Duration {
		return [6]time.Duration{c.RekeyTime, c.ReauthTime, c.OverTime, c.RandTime, c.DPDDelay, c.Keepalive}
	}
	if times(old) != times(c) {
		if old.ReauthTime != c.ReauthTime {
			s.scheduleReauth(now)
		}
		confirmed := s.livenessAt
		s.schedule(now)
		if !s.confirmed {
			s.livenessAt = confirmed
		}
	}
}

// addChild makes a child now, or as soon as the SA is established.
func (s *SA) addChild(now time.Time, c *Child) {
	if h := s.handshake; h != nil && s.initiator {
		if h.first != c {
			h.more = append(h.more, c)
		}
		return
	}
	if s.state <= StateEstablished {
		s.add(&childExchange{conf: c}, now)
	}
}

// rekeyChild rekeys a child, unless that is under way.
func (s *SA) rekeyChild(now time.Time, spi uint32) {
	if c := s.childBySPIIn(spi); c != nil && c.state == childUp && !c.redundant {
		s.add(&childExchange{conf: c.conf, old: c}, now)
	}
}
