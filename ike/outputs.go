package ike

import (
	"context"
	"io"
	"sync"
	"time"

	"sallyport/ike/ikesa"
)

// perform does what an IKE SA wants done, strictly in order: above all, an association is installed before the message
// that lets the peer use it is sent.
func (sh *shard) perform(e *entry) {
	s := sh.server
	for i := 0; i < len(sh.out.Actions); i++ {
		switch a := sh.out.Actions[i].(type) {
		case ikesa.Send:
			s.send(a.Datagram)
		case ikesa.Keepalive:
			if err := s.transport.Keepalive(a.Local, a.Remote); err != nil {
				s.stats.drop(DropSend)
			}
		case ikesa.InstallInbound:
			sh.keepChild(e, a.SPIIn)
			sh.installed(e, a.ChildSA, "inbound", s.kernel.InstallInbound(a.ChildSA))
			clear(a.KeyIn)
		case ikesa.InstallOutbound:
			sh.keepChildOut(e, a.SPIIn, a.SPIOut)
			sh.installed(e, a.ChildSA, "outbound", s.kernel.InstallOutbound(a.ChildSA))
			clear(a.KeyOut)
		case ikesa.UpdateChild:
			if err := s.kernel.UpdateChild(a.ChildSA); err != nil {
				s.log.installFailed(a.ChildSA, "endpoints", err)
			}
		case ikesa.PathMTU:
			s.kernel.PathMTU(a.SPIIn, a.MTU, a.Until)
		case ikesa.PathFound:
			s.pathFound(e.sa, a)
		case ikesa.RemoveChild:
			sh.forgetChild(a.SPIIn)
			s.kernel.RemoveChild(a.SPIIn, a.SPIOut, a.Reason.String())
		case ikesa.Verify:
			sh.verify(e, a)
		case ikesa.NewSA:
			sh.adopt(a.SA)
		case ikesa.Touched:
			if other := sh.sas[a.SA.LocalSPI()]; other != nil && other != e {
				sh.later = append(sh.later, func() { sh.settle(other) })
			}
		case ikesa.InitialContact:
			s.manager.initialContact(a.SA.LocalSPI())
		case ikesa.Assigned:
			s.kernel.Assigned(a.SA.Connection(), a.Leases)
		case ikesa.Unassigned:
			s.kernel.Unassigned(a.SA.Connection(), a.Addrs)
		case ikesa.KeyLog:
			s.writeKeys(a)
		case ikesa.Report:
			sh.report(a.Event)
		case ikesa.Ended:
			s.stats.ended.Add(1)
			s.stats.reason(a.Reason)
			s.log.ended(a.SA, a.Reason)
			s.manager.ended(a.SA.LocalSPI(), a.Reason)
			if other := sh.sas[a.SA.LocalSPI()]; other != nil && other != e {
				sh.later = append(sh.later, func() { sh.settle(other) })
			}
		}
	}
	clear(sh.out.Actions) // an idle shard keeps nothing of an IKE SA
	sh.out.Actions = sh.out.Actions[:0]
}

// adopt takes over an IKE SA that another one made: successor of a rekey, or its reauthentication.
func (sh *shard) adopt(sa *ikesa.SA) {
	e := &entry{sa: sa, counted: true}
	sh.server.total.Add(1)
	sh.register(e)
	sh.later = append(sh.later, func() { sh.settle(e) })
}

func (sh *shard) keepChild(e *entry, spiIn uint32) {
	sh.children[spiIn] = e
	e.children, e.spiOut = append(e.children, spiIn), append(e.spiOut, 0)
	sh.server.homes.set(spiIn, sh.index)
}

func (sh *shard) keepChildOut(e *entry, spiIn, spiOut uint32) {
	holder := sh.children[spiIn]
	if holder == nil {
		return
	}
	for i, spi := range holder.children {
		if spi == spiIn {
			holder.spiOut[i] = spiOut
		}
	}
}

func (sh *shard) forgetChild(spiIn uint32) {
	holder := sh.children[spiIn]
	delete(sh.children, spiIn)
	sh.server.homes.forget(spiIn)
	if holder == nil {
		return
	}
	for i, spi := range holder.children {
		if last := len(holder.children) - 1; spi == spiIn {
			holder.children[i], holder.spiOut[i] = holder.children[last], holder.spiOut[last]
			holder.children, holder.spiOut = holder.children[:last], holder.spiOut[:last]
			return
		}
	}
}

// installed deals with the data plane's answer. A child that it does not take is deleted again, after what is under way.
func (sh *shard) installed(e *entry, c *ikesa.ChildSA, direction string, err error) {
	if err == nil {
		return
	}
	sh.server.log.installFailed(c, direction, err)
	spi := c.SPIIn
	sh.later = append(sh.later, func() {
		sh.commandChild(spi, ikesa.DeleteChild{SPI: spi, Reason: ikesa.ReasonInternal})
	})
}

const verifyTime = 30 * time.Second

// verify asks for revocation off the shard and brings the answer back. Too many at a time wait their turn.
func (sh *shard) verify(e *entry, a ikesa.Verify) {
	s, spi := sh.server, e.spi
	s.running.Go(func() {
		err := s.checkRevocation(a)
		sh.call(func() {
			if e := sh.sas[spi]; e != nil {
				now := time.Now()
				sh.step(e, now, func() { e.sa.Verified(now, a.ID, err, &sh.out) })
			}
		})
	})
}

func (s *Server) checkRevocation(a ikesa.Verify) error {
	if s.options.Revocation == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.context, verifyTime)
	defer cancel()
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.options.Revocation(ctx, a.Chain, a.Remote)
}

// keyLog is where keys are written. All shards do.
type keyLog struct {
	sync.Mutex
	to io.Writer
}

// writeKeys appends the keys of an IKE SA to the key log.
func (s *Server) writeKeys(k ikesa.KeyLog) {
	log := s.keyLog.Load()
	if log == nil {
		return
	}
	line := k.Keys.AppendKeyLog(nil, k.SPIi, k.SPIr)
	defer clear(line)
	log.Lock()
	defer log.Unlock()
	if _, err := log.to.Write(line); err != nil {
		s.log.keyLogFailed(err)
	}
}

// report counts and logs what an IKE SA tells, and passes on what the manager must know.
func (sh *shard) report(e ikesa.Event) {
	s := sh.server
	s.stats.event(e)
	s.log.event(e)
	switch e.Kind {
	case ikesa.EventEstablished, ikesa.EventRekeyed, ikesa.EventChildUp, ikesa.EventChildRekeyed, ikesa.EventChildDown,
		ikesa.EventChildFailed, ikesa.EventEnding:
		s.manager.event(sh, e)
	}
}
