package ikesa

import "time"

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
