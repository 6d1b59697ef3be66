package ike

import (
	"math/rand/v2"
	"sync"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// paths are the ways to peers whose MTU is to be known. However many IKE SAs have one, it is searched by one of them at a time, and what that
// finds out all of them use. So ten thousand tunnels between two gateways cost as many probes as one, and as many peers are not all
// probed at once while they come up.
type paths struct {
	mu     sync.Mutex
	all    map[ikesa.Path]*searched
	begins bucket
}

// searched is one of them.
type searched struct {
	members int         // IKE SAs
	by      message.SPI // our SPI of the one that searches; 0 if none does
	until   time.Time   // it is waited for
	found   ikesa.PathFound
}

const (
	// searchMax is how long a search is waited for that tells nothing: less than a step of one takes.
	searchMax = time.Minute
	// searchAsk is how long an IKE SA waits at least, and at most twice that, before it asks again whether another one still searches.
	searchAsk = 3 * time.Second
)

func (p *paths) join(w ikesa.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[w]
	if s == nil {
		s = new(searched)
		p.all[w] = s
	}
	s.members++
}

// leave forgets an IKE SA of a path, and what is known with the last one. What it was searching, another one may.
func (p *paths) leave(w ikesa.Path, spi message.SPI) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[w]
	if s.by == spi {
		s.by = 0
	}
	if s.members--; s.members == 0 {
		delete(p.all, w)
	}
}

func (p *paths) known(w ikesa.Path, now time.Time) (f ikesa.PathFound, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.all[w]; s != nil && now.Before(s.found.Until) {
		return s.found, true
	}
	return f, false
}

// turn is ikesa.Env's PathTurn.
func (p *paths) turn(w ikesa.Path, spi message.SPI, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[w]
	if s != nil && s.by != 0 && s.by != spi && now.Before(s.until) {
		return searchAsk + rand.N(searchAsk)
	}
	if wait := p.begins.wait(now); wait > 0 {
		return wait + rand.N(time.Second)
	}
	if s != nil {
		s.by, s.until = spi, now.Add(searchMax)
	}
	return 0
}

// take notes what an IKE SA has found out. News says that others want to know, first that the result is another one than before.
func (p *paths) take(f ikesa.PathFound, spi message.SPI, now time.Time) (news, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[f.Path]
	if s == nil {
		return false, false // the path is not this IKE SA's any more
	}
	over := !f.Next.IsZero()
	first = f.MTU != s.found.MTU
	s.found = f
	switch {
	case s.by != spi:
	case over:
		s.by = 0
	default:
		s.until = now.Add(searchMax)
	}
	return s.members > 1 && (over || first), first
}

// settlePath keeps the shard's list of the IKE SAs of each path.
func (sh *shard) settlePath(e *entry) {
	var way ikesa.Path
	if e.sa != nil {
		way, _ = e.sa.Path()
	}
	if way == e.path {
		return
	}
	if way != (ikesa.Path{}) {
		sh.server.paths.join(way) // before the old one is left: the successor of an IKE SA comes to where that one was
	}
	sh.leavePath(e)
	if way != (ikesa.Path{}) {
		e.path, e.pathAt = way, len(sh.paths[way])
		sh.paths[way] = append(sh.paths[way], e)
	}
}

func (sh *shard) leavePath(e *entry) {
	if e.path == (ikesa.Path{}) {
		return
	}
	list := sh.paths[e.path]
	last := len(list) - 1
	list[e.pathAt], list[last].pathAt = list[last], e.pathAt
	list[last] = nil
	if last == 0 {
		delete(sh.paths, e.path)
	} else {
		sh.paths[e.path] = list[:last]
	}
	sh.server.paths.leave(e.path, e.spi)
	e.path = ikesa.Path{}
}

// pathFound notes what an IKE SA has found out about its path, and lets the others of all shards know.
func (s *Server) pathFound(sa *ikesa.SA, f ikesa.PathFound) {
	by := sa.LocalSPI()
	news, first := s.paths.take(f, by, time.Now())
	if first && f.MTU != 0 {
		s.log.pathFound(f)
	}
	if !news {
		return
	}
	for _, sh := range s.shards {
		sh.call(func() {
			var others []message.SPI
			for _, e := range sh.paths[f.Path] {
				if e.spi != by {
					others = append(others, e.spi)
				}
			}
			sh.tellFound(others, f)
		})
	}
}

// tellFound tells IKE SAs what was found out, a few before everything else gets its turn.
func (sh *shard) tellFound(to []message.SPI, f ikesa.PathFound) {
	n := min(len(to), shardTurn)
	for _, spi := range to[:n] {
		sh.command(spi, f)
	}
	if to = to[n:]; len(to) > 0 {
		sh.call(func() { sh.tellFound(to, f) })
	}
}
