package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/tun"
	"sallyport/dataplane/worker"
)

// Start attaches the engine to its interfaces and starts its workers. Apply comes first: when the
// program begins to steer, the policies are already in its maps. On an error nothing
// runs, and what was attached stays fail-closed.
func (e *Engine) Start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.start(); err != nil {
		e.closePorts()
		return err
	}
	for i, w := range e.group.Workers {
		core := -1
		if len(e.cfg.Cores) > 0 {
			core = e.cfg.Cores[i]
		}
		e.workers.Add(1)
		go func() {
			defer e.workers.Done()
			if err := w.Run(core, e.cfg.Spin); err != nil {
				// A worker that does not run would keep its packets and every call that waits for it.
				e.log.Error().Err(err).Int("worker", i).Int("core", core).Msg("the worker cannot be pinned to its core; it runs on any")
				w.Run(-1, e.cfg.Spin)
			}
		}()
	}
	e.running = true
	if e.watcher != nil {
		e.watcher.Start()
	}
	if e.device != nil {
		e.pump = tun.Start(e.device.File, e.tunQueue, e.tunMTU)
		for _, v := range e.virtual {
			if v.device != nil {
				e.pump.Add(v.number, v.device.File, packet.LenMax)
			}
		}
	}
	e.others.Add(3)
	go e.compile()
	go e.tend()
	go e.listen()
	return nil
}

// Manual opens an engine whose ports are all in memory and returns its workers for the caller
// to step: the whole path on one goroutine, for benchmarks and tests.
func (e *Engine) Manual() ([]*worker.Worker, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		if p.config.Queues == nil {
			return nil, fmt.Errorf("port %s is not in memory", p.config.Name)
		}
	}
	return e.group.Workers, e.start()
}

func (e *Engine) start() error {
	real := e.keeper != nil && e.cfg.FIB == nil
	if real {
		if err := e.prepare(); err != nil {
			return err
		}
	}
	for _, p := range e.ports {
		if err := e.open(p); err != nil {
			return err
		}
	}
	if e.ike != nil {
		e.ike.start()
	}
	if !real {
		return nil
	}
	if err := e.steer(); err != nil {
		return err
	}
	for _, p := range e.ports {
		if err := e.attach(p); err != nil {
			return fmt.Errorf("interface %s: %w", p.config.Name, err)
		}
	}
	return nil
}

// prepare gets what the ports need of the kernel: the program with its maps, the way
// to bind, TUN, and the kernel's routes.
func (e *Engine) prepare() (err error) {
	if e.steering, err = e.keeper.LoadSteering(); err != nil {
		return err
	}
	e.steered.load(e.steering)
	if err := e.probe(); err != nil {
		return err
	}
	if e.cfg.TUN != "" {
		if err := e.openTUN(); err != nil {
			return err
		}
	}
	if err := e.openInterfaces(); err != nil {
		return err
	}
	var watched []fib.Port
	for _, p := range e.ports {
		if p.config.Queues != nil {
			continue
		}
		watched = append(watched, fib.Port{Name: p.config.Name, Number: p.number})
	}
	e.watcher, err = fib.NewWatcher(fib.Config{
		Ports: watched, TUN: e.cfg.TUN, Virtual: e.watched(), Resolve: e.keeper.ResolveNeighbour, Changed: e.kernelChanged,
	})
	if err != nil {
		return err
	}
	// The program must know the gateway's addresses before it is attached: until then it would take what is
	// for the gateway itself for traffic of tunnels, and for good if this process died.
	e.tables.FIB, e.tables.Own = e.watcher.Table(), slices.Clone(e.watcher.Own())
	e.sources()
	e.showInterfaces()
	e.publishTables()
	return nil
}

// tunRing is the size of the rings between worker 0 and the kernel.
const tunRing = 1024

// openTUN opens the way to the kernel and makes it the port behind the interfaces, served
// by worker 0.
func (e *Engine) openTUN() error {
	mtu := 1500
	for _, p := range e.ports {
		mtu = max(mtu, p.mtu)
	}
	device, err := e.keeper.OpenTUN(e.cfg.TUN, mtu)
	if err != nil {
		return err
	}
	queue, err := memio.NewQueue(e.umem.Mem(), tunRing)
	if err != nil {
		device.File.Close()
		return err
	}
	e.device, e.tunQueue, e.tunMTU = device, queue, mtu
	p := &port{
		config: PortConfig{Name: device.Name, Role: worker.Protected, Queues: []worker.Queue{queue}},
		number: uint16(len(e.ports)), reason: "the way to the kernel", mtu: mtu,
	}
	e.ports = append(e.ports, p)
	e.tables.Ports = append(e.tables.Ports, worker.Port{Name: device.Name, Role: worker.Protected})
	e.tables.TUN = p.number
	return nil
}

// kernelChanged follows routes, neighbours, addresses and links. It runs on the watcher's goroutine.
func (e *Engine) kernelChanged(u fib.Update) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.stopping {
		return
	}
	e.tables.FIB = u.Table
	for _, ev := range u.Links {
		e.linkChanged(ev)
	}
	if u.OwnChanged || len(u.Links) > 0 {
		if u.OwnChanged {
			e.tables.Own = slices.Clone(u.Own)
			e.forgetEndpoints()
			if e.steered.maps != nil {
				e.steerAddresses() // before anybody acts on them; what fails is tried again below
			}
			if e.cfg.OwnChanged != nil {
				e.cfg.OwnChanged(e.tables.Own)
			}
		}
		e.sources()
		e.showInterfaces()
	}
	e.publishTables()
	e.steer()
}

// tend looks after the workers once a second until Stop.
func (e *Engine) tend() {
	defer e.others.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	workers := load{at: time.Now()}
	for {
		select {
		case <-e.done:
			return
		case now := <-tick.C:
			share := workers.look(e, now)
			e.busy.Store(&share)
			e.rebalance(share)
			e.revive()
			e.reopen()
			e.remake()
			e.steerAgain()
			e.expire(now)
			e.sad.Reclaim()
			e.paths.forgotten.Add(uint64(e.sad.AgePaths(now)))
		}
	}
}

// expire ends the associations whose grace is over.
func (e *Engine) expire(now time.Time) {
	for _, h := range e.retired.due(now) {
		if err := e.Remove(h); err != nil {
			e.log.Debug().Err(err).Msg("an association on its way out was gone already")
		}
	}
}

// reopen serves the interfaces that are there and could not be served before.
func (e *Engine) reopen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		if !e.stopping && e.steering != nil && p.ifindex != 0 && p.up && len(p.sockets) == 0 && p.config.Queues == nil {
			e.serve(p)
			e.publishTables()
		}
	}
}

// revive has the workers try those queues again that failed while their interface is up. An interface that goes
// down and up within a moment gives no event: both states lie between two looks at the kernel.
func (e *Engine) revive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return
	}
	for _, w := range e.group.Workers {
		e.on(w, func() {
			for _, p := range e.ports {
				for _, s := range p.sockets {
					if p.up && p.ifindex != 0 && s.worker == w.ID {
						w.Revive(s.queue)
					}
				}
			}
		})
	}
}

// Stop ends the workers and closes the sockets. The program stays attached without sockets, so what
// policy protects is dropped until the next start. It returns when all has ended; an engine
// that does not run is left as it is.
func (e *Engine) Stop() error {
	e.mu.Lock()
	if !e.running || e.stopping {
		e.mu.Unlock()
		return nil
	}
	e.stopping = true
	close(e.done)
	e.mu.Unlock()
	// Nothing from outside may ask something of the workers once they have ended.
	if e.watcher != nil {
		e.watcher.Close()
	}
	if e.pump != nil {
		e.pump.Close()
	}
	if e.ike != nil {
		e.ike.stop()
	}
	e.group.Interrupt()
	e.others.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.group.Workers {
		w.Stop()
	}
	e.workers.Wait()
	e.running = false
	e.group.Drain()
	e.closePorts()
	return nil
}

// closePorts closes every socket. The workers do not run; the caller holds e.mu.
func (e *Engine) closePorts() {
	if e.ike != nil {
		e.ike.stop()
	}
	for _, p := range e.ports {
		e.close(p)
	}
	if e.device != nil {
		e.device.File.Close()
	}
	for _, v := range e.virtual {
		if v.device != nil {
			v.device.File.Close()
			v.device = nil
		}
	}
	if e.watcher != nil {
		e.watcher.Close()
	}
	if e.steering != nil {
		e.steering.Close()
		e.steering = nil
		e.steered.load(nil)
	}
}

// Close gives back the engine's memory, after Stop. Keys are zeroed.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.release()
}

func (e *Engine) release() {
	if e.group != nil {
		e.group.Close()
	}
	if e.sad != nil {
		e.sad.Close()
	}
	if e.umem != nil {
		e.umem.Close()
	}
}

// Frames returns how many frames the workers hold idle, of how many in all. The rest is in
// rings or in flight; after Stop there is no rest.
func (e *Engine) Frames() (idle, all int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.group.Workers {
		e.on(w, func() { idle += w.FreeFrames() })
	}
	return idle, e.group.Frames()
}

// SetOwn names the gateway's addresses, for engines in memory; with interfaces they
// come from the kernel.
func (e *Engine) SetOwn(own []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tables.Own = slices.Clone(own)
	e.publishTables()
}
