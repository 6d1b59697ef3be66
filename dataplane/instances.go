package dataplane

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// Instance is a protect policy that negotiation made of a configured one: narrowed selectors, or those of
// a peer whose address was not known before.
type Instance struct {
	Name string
	// Of names the configured policy (spd.Policy.Name) before which the instance stands: so it
	// wins over that one, and loses against those before it. Without such a policy it stands before all.
	Of string
	// Priority orders instances of one policy, the lower first; equal ones the newest first.
	Priority  int
	Selectors []spd.Selector
	Transport bool
	// Interface names the virtual interface whose packets the policy is for, "" for none.
	Interface string
}

// InstanceTunnelMin is the first tunnel number that AddPolicy gives out. Configured tunnels have lower ones.
const InstanceTunnelMin = 1 << 20

// instances are the negotiated policies.
type instances struct {
	mu     sync.Mutex
	live   map[uint32]*instance // by tunnel
	serial uint64
	next   uint32       // tunnel numbers from here on were never given out
	ended  []uint32     // numbers that the published table may still name
	free   []freeTunnel // those that it does not, oldest first
	wake   chan struct{}
}

type instance struct {
	Instance
	tunnel uint32
	serial uint64
}

// freeTunnel is a number with the time from which on no worker can hold a table that names it.
type freeTunnel struct {
	tunnel uint32
	from   time.Time
}

// quiet is how long a tunnel number rests once no table names it: a worker's batch is far shorter.
const quiet = 2 * time.Second

func newInstances() *instances {
	return &instances{live: map[uint32]*instance{}, next: InstanceTunnelMin, wake: make(chan struct{}, 1)}
}

// number returns a tunnel number that nothing refers to. The caller holds mu.
func (s *instances) number(now time.Time) (uint32, error) {
	if len(s.free) > 0 && !now.Before(s.free[0].from) {
		n := s.free[0].tunnel
		s.free = s.free[1:]
		return n, nil
	}
	if s.next == sad.TunnelsMax {
		return 0, fmt.Errorf("no tunnel number is left of %d", sad.TunnelsMax-InstanceTunnelMin)
	}
	s.next++
	return s.next - 1, nil
}

func (s *instances) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// AddPolicy adds a protect policy and returns its tunnel number, to be bound to an outbound association. Packets
// follow the policy a little later: changes are collected and compiled together, within some
// milliseconds while there are few policies and half a second with 10,000. What comes in needs no policy: the inbound
// association has its own selectors. Instances survive Apply.
func (e *Engine) AddPolicy(i Instance) (tunnel uint32, err error) {
	if _, err := spd.CompileSelectors(i.Selectors); err != nil {
		return 0, fmt.Errorf("policy %q: %w", i.Name, err)
	}
	s := e.instances
	s.mu.Lock()
	defer s.mu.Unlock()
	if tunnel, err = s.number(time.Now()); err != nil {
		return 0, fmt.Errorf("policy %q: %w", i.Name, err)
	}
	i.Selectors = slices.Clone(i.Selectors)
	s.serial++
	s.live[tunnel] = &instance{Instance: i, tunnel: tunnel, serial: s.serial}
	s.changed()
	return tunnel, nil
}

// RemovePolicy removes the instance with a tunnel number, whose binding it takes away at once. An unknown number is no error.
func (e *Engine) RemovePolicy(tunnel uint32) {
	s := e.instances
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[tunnel] == nil {
		return
	}
	delete(s.live, tunnel)
	e.sad.Bind(tunnel, 0) // it was in range when it was given out
	s.ended = append(s.ended, tunnel)
	s.changed()
}

// among returns the configured policies with the instances in their places, and the numbers that these no longer name.
func (s *instances) among(configured []spd.Policy) (all []spd.Policy, ended []uint32) {
	s.mu.Lock()
	ended, s.ended = s.ended, nil
	s.mu.Unlock()
	return s.placed(configured), ended
}

// placed returns the configured policies with the instances in their places.
func (s *instances) placed(configured []spd.Policy) (all []spd.Policy) {
	s.mu.Lock()
	list := make([]*instance, 0, len(s.live))
	for _, i := range s.live {
		list = append(list, i)
	}
	s.mu.Unlock()
	if len(list) == 0 {
		return configured
	}
	place := map[string]int{}
	for i := range configured {
		if _, ok := place[configured[i].Name]; !ok {
			place[configured[i].Name] = i
		}
	}
	at := func(i *instance) int {
		if k, ok := place[i.Of]; ok {
			return k
		}
		return -1
	}
	slices.SortFunc(list, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.serial, a.serial))
	})
	all = make([]spd.Policy, 0, len(list)+len(configured))
	add := func(before int) {
		for len(list) > 0 && at(list[0]) <= before {
			all = append(all, spd.Policy{
				Name: list[0].Name, Action: spd.Protect, Selectors: list[0].Selectors, Tunnel: list[0].tunnel,
				Transport: list[0].Transport, Interface: list[0].Interface, Negotiated: true,
			})
			list = list[1:]
		}
	}
	add(-1)
	for i := range configured {
		add(i)
		all = append(all, configured[i])
	}
	return all
}

// Policies lists the policies in the order in which they match, negotiated ones in their places. The caller must not change them.
func (e *Engine) Policies() []spd.Policy {
	e.mu.Lock()
	configured := e.policies.SPD
	e.mu.Unlock()
	return e.instances.placed(configured)
}

// rest notes that no published table names these numbers from now on.
func (s *instances) rest(ended []uint32, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range ended {
		s.free = append(s.free, freeTunnel{n, now.Add(quiet)})
	}
}

// again takes back numbers of a table that was not published.
func (s *instances) again(ended []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, ended...)
}

// Pace of compiling: the first change waits a little for others, and what a compilation took is waited four times, so that it
// never takes more than a fifth of one core.
const (
	compileWait   = 2 * time.Millisecond
	compileFactor = 4
)

// compile makes packets follow instances that come and go, until Stop.
func (e *Engine) compile() {
	defer e.others.Done()
	pause := compileWait
	for {
		select {
		case <-e.done:
			return
		case <-e.instances.wake:
		}
		select {
		case <-e.done:
			return
		case <-time.After(pause):
		}
		began := time.Now()
		if err := e.recompile(); err != nil {
			e.log.Error().Err(err).Msg("negotiated policies are not in effect")
		}
		pause = max(compileWait, compileFactor*time.Since(began))
	}
}

// recompile compiles the policies and publishes them.
func (e *Engine) recompile() error {
	e.policing.Lock()
	defer e.policing.Unlock()
	e.mu.Lock()
	configured := e.policies.SPD
	e.mu.Unlock()
	all, ended := e.instances.among(configured)
	main, of, err := separate(all)
	if err != nil {
		e.instances.again(ended)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.steerable(main, nil); err != nil {
		e.instances.again(ended)
		return err
	}
	e.obeyTables(main, of)
	e.publishTables()
	e.instances.rest(ended, time.Now())
	e.steer() // what fails is tried again
	return nil
}
