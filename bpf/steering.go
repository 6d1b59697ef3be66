// Package bpf loads, fills and attaches the XDP program that steers packets
// into the gateway's AF_XDP sockets.
//
// The way of a frame through the program (steer.c, classify):
//
//	Ethernet, ≤ 2 tags → IP header → neighbour discovery, MLD → multicast, link-local
//	   │ not IP: PASS       │ cut short: DROP      │ PASS            │ PASS unless a policy names them
//	   → to an endpoint: ESP, AH, ESP in UDP, IKE, fragments, ICMP errors about these → sockets
//	   → to the gateway itself: PASS
//	   → source and destination under a policy → sockets, else DROP
//	   → PASS
//
// What the tables say of an interface and two addresses each CPU remembers, 2,048 times, until they change (steer.c, ask).
//
// It fails closed: what policy protects, and ESP and AH to our endpoints, is
// dropped while no socket is there to take it, be the process dead, stopped or
// not yet started. An interface missing in the ports map counts as having both
// roles and no sockets.
//
// Not handled: protocol and port selectors (the worker's), frames of more than
// one buffer (the program does not declare them, so the kernel refuses to attach
// it where the MTU needs them), source routes (IPv4 options and routing headers
// are stepped over, the kernel's own defaults refuse to follow them), and a
// subnet's directed broadcast address, which the caller may pass to SetOwn.
package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
)

// Role says which side of the gateway an interface is on. A port may have both.
type Role uint32

const (
	// Protected is the side of the hosts whose traffic goes into tunnels.
	Protected = Role(steerRoleROLE_PROTECTED)
	// Outside is the side of the peers.
	Outside = Role(steerRoleROLE_OUTSIDE)
)

// Limits of the socket maps (types.h).
const (
	PortsMax  = 64 // ports of one program
	QueuesMax = 64 // receive queues of one port
)

// ErrNoRoom says that the program's maps hold fewer addresses or prefixes than there are (maps.h).
var ErrNoRoom = errors.New("the steering program has no room")

// Steering is one loaded program with its maps. Its methods may be called from
// any goroutine. Maps may be filled before and after [Steering.Attach]; filling
// them before leaves no moment in which the program judges by empty tables.
type Steering struct {
	mu        sync.Mutex
	objs      steerObjects
	endpoints []netip.Addr
	own       []netip.Addr
	addresses map[netip.Addr]steerAddressFlag
	prefixes  map[netip.Prefix]steerPrefixFlag // in the maps
	policies  map[netip.Prefix]steerPrefixFlag // wanted by policies
	routed    map[netip.Prefix]steerPrefixFlag // and by routes
	changes   uint32                           // of ports, addresses and prefixes
}

// Load loads the program and makes its maps. It needs CAP_BPF and CAP_NET_ADMIN. The caller
// closes it; a pinned link keeps program and maps alive after that.
func Load() (*Steering, error) { return loadSized(nil) }

// loadSized has maps of other sizes, by name.
func loadSized(sizes map[string]uint32) (*Steering, error) {
	spec, err := loadSteer()
	if err != nil {
		return nil, fmt.Errorf("reading the steering program: %w", err)
	}
	for name, size := range sizes {
		spec.Maps[name].MaxEntries = size
	}
	s := &Steering{
		addresses: make(map[netip.Addr]steerAddressFlag),
		prefixes:  make(map[netip.Prefix]steerPrefixFlag),
	}
	if err := spec.LoadAndAssign(&s.objs, nil); err != nil {
		return nil, fmt.Errorf("loading the steering program: %w", err)
	}
	return s, nil
}

// Close gives up this process's hold on program and maps.
func (s *Steering) Close() error { return s.objs.Close() }

// changed has the program forget what it remembers of ports, addresses and prefixes. Whatever became of a change of these,
// it comes last; until then packets of an interface between addresses that it remembers are judged as before.
func (s *Steering) changed() error {
	s.changes++
	if err := s.objs.Generation.Put(uint32(0), s.changes); err != nil {
		return fmt.Errorf("having the steering program look at its tables again: %w", err)
	}
	return nil
}

// Program returns the loaded program, owned by s.
func (s *Steering) Program() *ebpf.Program { return s.objs.SallyportSteer }

// SetPort registers interface ifindex as port number index with its roles, or
// changes them. index < [PortsMax] selects the sockets, see [Steering.SetSocket].
func (s *Steering) SetPort(ifindex int, index uint16, roles Role) error {
	if index >= PortsMax {
		return fmt.Errorf("port %d: the steering program has %d ports", index, PortsMax)
	}
	if roles&^(Protected|Outside) != 0 {
		return fmt.Errorf("port %d: unknown role bits %#x", index, uint32(roles))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value := steerPort{Index: uint32(index), Roles: steerRole(roles)}
	if err := s.objs.Ports.Put(uint32(ifindex), value); err != nil {
		return fmt.Errorf("registering interface %d as port %d: %w", ifindex, index, err)
	}
	return s.changed()
}

// RemovePort forgets interface ifindex. A program still attached there fails closed. An
// unknown ifindex is no error.
func (s *Steering) RemovePort(ifindex int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ignoreMissing(s.objs.Ports.Delete(uint32(ifindex))); err != nil {
		return fmt.Errorf("forgetting interface %d: %w", ifindex, err)
	}
	return s.changed()
}

// SocketKind selects one of the two sockets of a queue.
type SocketKind uint8

const (
	Data SocketKind = iota // ESP, AH, policy traffic, fragments, ICMP errors
	IKE                    // IKE messages
)

func (s *Steering) slot(port uint16, queue uint32, kind SocketKind) (*ebpf.Map, uint32, error) {
	if port >= PortsMax || queue >= QueuesMax {
		return nil, 0, fmt.Errorf("port %d queue %d: the steering program has %d ports of %d queues", port, queue, PortsMax, QueuesMax)
	}
	m := s.objs.Xsks
	if kind == IKE {
		m = s.objs.XsksIke
	}
	return m, uint32(port)*QueuesMax + queue, nil
}

// SetSocket puts the AF_XDP socket fd into the slot of (port, queue). The kernel
// empties the slot when the socket is closed.
func (s *Steering) SetSocket(port uint16, queue uint32, kind SocketKind, fd int) error {
	m, slot, err := s.slot(port, queue, kind)
	if err != nil {
		return err
	}
	if err := m.Put(slot, uint32(fd)); err != nil {
		return fmt.Errorf("putting the socket of port %d queue %d into its slot: %w", port, queue, err)
	}
	return nil
}

// ClearSocket empties the slot of (port, queue): its traffic gets the fallback
// actions. An empty slot is no error.
func (s *Steering) ClearSocket(port uint16, queue uint32, kind SocketKind) error {
	m, slot, err := s.slot(port, queue, kind)
	if err != nil {
		return err
	}
	if err := ignoreMissing(m.Delete(slot)); err != nil {
		return fmt.Errorf("emptying the slot of port %d queue %d: %w", port, queue, err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
