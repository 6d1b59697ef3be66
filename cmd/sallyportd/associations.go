package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/cmd/internal/config"
	"sallyport/dataplane"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/ike"
	"sallyport/ike/ikesa"
)

// plane is what the adapter asks of the data plane; *dataplane.Engine is one.
type plane interface {
	NewSPI() (uint32, error)
	ReleaseSPI(spi uint32)
	Install(p sad.Params) (sad.Handle, error)
	Retire(h sad.Handle, grace time.Duration) error
	Bind(tunnel uint32, h sad.Handle) error
	UpdateEndpoints(h sad.Handle, local, remote netip.AddrPort, encap bool) error
	Usage(h sad.Handle) (dataplane.Usage, bool)
	AddPolicy(i dataplane.Instance) (tunnel uint32, err error)
	RemovePolicy(tunnel uint32)
	RouteSource(remote netip.Addr) (netip.Addr, error)
	SetPathMTU(h sad.Handle, mtu int, until time.Time) error
	LinkMTU(remote netip.Addr) int
}

// associations is the data plane as the IKE server sees it, an ike.Kernel. Each negotiated child sends by a tunnel of
// the data plane: the configured one, if it carries exactly what is configured; else that of a
// policy which is made for it. Several children may share a tunnel, while one replaces another or where two
// connections lead to one site: then the one of the lowest priority value sends, and of equal ones the newest; but one that
// the peer has begun beside another sends only when the other has gone, or after a while (takeOver).
type associations struct {
	plane plane
	// virtual learns which virtual addresses peers gave us or took back, and follow what may be sent from them:
	// the policies of all children for virtual addresses of ours, and of those in transport mode whose peer was not known before.
	virtual func(add, remove []netip.Addr)
	follow  func(policies []config.Policy)

	mu         sync.Mutex
	configured map[string]route         // by CONNECTION/CHILD
	children   map[uint32]*installed    // by inbound SPI
	outbound   map[sad.Handle]uint32    // inbound SPI of the child that an outbound association belongs to
	paths      map[string]*path         // by what they carry, see pathKey
	owner      map[uint32]config.Member // whom a packet for a tunnel without association asks for
	counter    uint64
	after      func(time.Duration, func()) // time.AfterFunc
}

// takeOver is how long the peer that begins an IKE SA beside another, to reauthenticate, may take to receive by its child.
// Until then, what it gets by the old one arrives for certain; usually it deletes that much earlier.
const takeOver = time.Second

// route is what the configuration says about a child's traffic.
type route struct {
	policy    string // name of the policy, "" if there is none before the negotiation
	tunnel    uint32
	selectors string // as text, to compare
}

// path is a tunnel that negotiated children send by.
type path struct {
	key    string
	tunnel uint32
	made   bool           // its policy was made for it, and ends with its last child
	ours   []spd.Selector // from an address of ours, of which the configuration says nothing; nil for all others
	host   bool           // in transport mode
	users  []*installed
}

// installed is a child SA in the data plane.
type installed struct {
	number   uint64 // in the order of installation
	name     string
	priority int
	iface    string     // virtual interface, "" for none
	in, out  sad.Handle // 0: not installed
	path     *path      // nil without outbound association
	early    bool       // the peer may not receive by it yet: others of the same priority go before it
}

func newAssociations(p plane) *associations {
	return &associations{
		plane: p, virtual: func(add, remove []netip.Addr) {}, follow: func([]config.Policy) {},
		configured: map[string]route{}, children: map[uint32]*installed{}, outbound: map[sad.Handle]uint32{}, paths: map[string]*path{},
		owner: map[uint32]config.Member{}, after: func(d time.Duration, f func()) { time.AfterFunc(d, f) },
	}
}

// configure takes over the policies of a configuration with their tunnel numbers.
func (a *associations) configure(c *config.Config, tunnels map[string]uint32) {
	byTunnel := map[string]*config.Policy{}
	for i := range c.Policies {
		if p := &c.Policies[i]; p.Action == spd.Protect {
			byTunnel[p.Tunnel] = p
		}
	}
	configured, owner := map[string]route{}, map[uint32]config.Member{}
	for _, m := range c.Members() {
		name := m.String()
		p := byTunnel[c.Tunnels[name]]
		if p == nil {
			continue
		}
		configured[name] = route{policy: p.Name, tunnel: tunnels[p.Tunnel], selectors: fmt.Sprint(p.Selectors)}
		if first, taken := owner[tunnels[p.Tunnel]]; !taken || m.Priority < first.Priority {
			owner[tunnels[p.Tunnel]] = m
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.configured, a.owner = configured, owner
}

// wanted says which child a tunnel without outbound association needs.
func (a *associations) wanted(tunnel uint32) (m config.Member, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok = a.owner[tunnel]
	return m, ok
}

// child returns the inbound SPI of the child that an association belongs to.
func (a *associations) child(h sad.Handle) (spiIn uint32, ok bool) {
	if h.Inbound() {
		return h.Value(), true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	spiIn, ok = a.outbound[h]
	return spiIn, ok
}

func (a *associations) NewChildSPI() (uint32, error) { return a.plane.NewSPI() }
func (a *associations) ReleaseSPI(spi uint32)        { a.plane.ReleaseSPI(spi) }

func (a *associations) RouteSource(remote netip.Addr) (netip.Addr, error) {
	return a.plane.RouteSource(remote)
}

// params describes one direction of a child to the data plane.
func params(c *ikesa.ChildSA, inbound bool) (sad.Params, []spd.Selector, error) {
	data, ok := c.Child.Data.(*config.DataPath)
	if !ok {
		return sad.Params{}, nil, fmt.Errorf("child %s has no data path", c.Child.Name)
	}
	s, err := transform.Parse(c.Choice.Cipher())
	if err != nil {
		return sad.Params{}, nil, err
	}
	selectors := config.Negotiated(c.LocalTS, c.RemoteTS)
	carried := data.Carrier.Encapsulation != sad.NoEncapsulation
	if carried {
		selectors = config.Carried(data.Carrier.Encapsulation, selectors)
	}
	if len(selectors) == 0 {
		return sad.Params{}, nil, errors.New("the negotiated selectors of both sides match no packet")
	}
	p := sad.Params{
		Name: data.Name, SPI: c.SPIOut, Inbound: inbound, Suite: s, Keymat: c.KeyOut, Local: c.Local.Addr(), Remote: c.Remote.Addr(),
		Encap: c.Encap, Transport: c.Mode == ikesa.Transport && !carried, AH: c.Choice.AH, UDPChecksum: data.UDPChecksum, ESN: c.Choice.ESN, Selectors: selectors,
		Outer: data.Outer, Interface: data.Interface, Carrier: data.Carrier,
		Lifetime: sad.Lifetime{SoftBytes: c.SoftBytes, HardBytes: c.HardBytes, SoftPackets: c.SoftPackets, HardPackets: c.HardPackets},
		Created:  time.Now(),
	}
	if c.Unpadded {
		p.TFC = 0
	}
	p.Filter, p.Limit = data.Terms.Of(inbound)
	if c.Encap {
		p.LocalPort, p.RemotePort = c.Local.Port(), c.Remote.Port()
	}
	if inbound {
		// Behind a NAT a peer's port may change at any time (RFC 7296, 2.23).
		p.SPI, p.Keymat, p.Window, p.Roaming = c.SPIIn, c.KeyIn, data.Window, c.Encap
		if p.Transport && c.SeenLocal.Is4() == p.Local.Is4() && c.SeenRemote.Is4() == p.Local.Is4() {
			p.OriginalLocal, p.OriginalRemote = c.SeenLocal, c.SeenRemote
		}
	}
	return p, selectors, nil
}

// InstallInbound installs what the peer may send from the next message on.
func (a *associations) InstallInbound(c *ikesa.ChildSA) error {
	taken := false
	defer func() { // also if the data plane panics, which costs an IKE SA and no more
		if !taken {
			a.plane.ReleaseSPI(c.SPIIn)
		}
	}()
	p, _, err := params(c, true)
	if err != nil {
		return err
	}
	h, err := a.plane.Install(p)
	if err != nil {
		return err
	}
	taken = true
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counter++
	a.children[c.SPIIn] = &installed{number: a.counter, name: p.Name, priority: c.Child.Data.(*config.DataPath).Priority, iface: p.Interface, in: h}
	return nil
}

// InstallOutbound installs what we send from now on, and leads the child's traffic to it.
func (a *associations) InstallOutbound(c *ikesa.ChildSA) error {
	p, selectors, err := params(c, false)
	if err != nil {
		return err
	}
	h, err := a.plane.Install(p)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	child := a.children[c.SPIIn]
	if child == nil {
		return errors.Join(errors.New("the child has no inbound association"), a.plane.Retire(h, 0))
	}
	way, err := a.path(child, selectors, p.Transport)
	if err != nil {
		return errors.Join(err, a.plane.Retire(h, 0))
	}
	child.out, child.path = h, way
	a.outbound[h] = c.SPIIn
	if !c.Initiator && c.Replaces == 0 && len(way.users) > 0 {
		child.early = true
		a.after(takeOver, func() { a.ripe(c.SPIIn, child) })
	}
	way.users = append(way.users, child)
	if (len(c.Connection.VIPs) > 0 || way.host && way.made) && way.ours == nil && child.iface == "" {
		way.ours = selectors
		a.followed()
	}
	return a.bind(way)
}

// ripe has a child send that was held back, unless it has gone.
func (a *associations) ripe(spiIn uint32, child *installed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.children[spiIn] == child && child.early {
		child.early = false
		a.bind(child.path)
	}
}

// stop lets nothing touch the data plane any more, which goes next.
func (a *associations) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.children)
}

// followed tells what may be sent from virtual addresses. The caller holds a.mu.
func (a *associations) followed() {
	var list []config.Policy
	for _, way := range a.paths {
		if way.ours != nil {
			list = append(list, config.Policy{Name: way.key, Action: spd.Protect, Selectors: way.ours, Transport: way.host})
		}
	}
	a.follow(list)
}

// path finds the tunnel for a child's selectors, or makes one. The caller holds a.mu.
func (a *associations) path(child *installed, selectors []spd.Selector, transport bool) (*path, error) {
	r := a.configured[child.name]
	text := fmt.Sprint(selectors)
	key := fmt.Sprintf("%s %s %s", r.policy, child.iface, text)
	if way := a.paths[key]; way != nil {
		return way, nil
	}
	way := &path{key: key, tunnel: r.tunnel, host: transport}
	if r.policy == "" || r.selectors != text {
		tunnel, err := a.plane.AddPolicy(dataplane.Instance{Name: child.name, Of: r.policy, Priority: child.priority, Selectors: selectors, Transport: transport, Interface: child.iface})
		if err != nil {
			return nil, fmt.Errorf("a policy for the negotiated selectors: %w", err)
		}
		way.tunnel, way.made = tunnel, true
	}
	a.paths[key] = way
	return way, nil
}

// bind has the right one of a path's children send. The caller holds a.mu.
func (a *associations) bind(way *path) error {
	if len(way.users) == 0 {
		return a.plane.Bind(way.tunnel, 0)
	}
	best := slices.MinFunc(way.users, func(x, y *installed) int {
		return cmp.Or(cmp.Compare(x.priority, y.priority), early(x)-early(y), cmp.Compare(y.number, x.number))
	})
	return a.plane.Bind(way.tunnel, best.out)
}

func early(x *installed) int {
	if x.early {
		return 1
	}
	return 0
}

// RemoveChild ends both directions, after the data plane's grace. Nothing is sent by the child from now on.
func (a *associations) RemoveChild(spiIn, spiOut uint32, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	child := a.children[spiIn]
	if child == nil {
		return
	}
	delete(a.children, spiIn)
	if way := child.path; way != nil {
		way.users = slices.DeleteFunc(way.users, func(x *installed) bool { return x == child })
		a.bind(way)
		if len(way.users) == 0 {
			delete(a.paths, way.key)
			if way.made {
				a.plane.RemovePolicy(way.tunnel)
			}
			if way.ours != nil {
				a.followed()
			}
		}
	}
	// What is gone already, by its hard lifetime, is no error.
	if child.out != 0 {
		delete(a.outbound, child.out)
		a.plane.Retire(child.out, dataplane.GraceOutbound)
	}
	a.plane.Retire(child.in, dataplane.GraceInbound)
}

// UpdateChild moves both directions to other outer addresses.
func (a *associations) UpdateChild(c *ikesa.ChildSA) error {
	a.mu.Lock()
	child := a.children[c.SPIIn]
	var in, out sad.Handle
	if child != nil {
		in, out = child.in, child.out
	}
	a.mu.Unlock()
	if child == nil {
		return errors.New("the child is not installed")
	}
	err := a.plane.UpdateEndpoints(in, c.Local, c.Remote, c.Encap)
	if out != 0 {
		err = errors.Join(err, a.plane.UpdateEndpoints(out, c.Local, c.Remote, c.Encap))
	}
	return err
}

// PathMTU tells the data plane how large a child's packets may be. A child that is gone needs none.
func (a *associations) PathMTU(spiIn uint32, mtu int, until time.Time) {
	a.mu.Lock()
	child := a.children[spiIn]
	var out sad.Handle
	if child != nil {
		out = child.out
	}
	a.mu.Unlock()
	if out != 0 {
		a.plane.SetPathMTU(out, mtu, until)
	}
}

func (a *associations) LinkMTU(remote netip.Addr) int { return a.plane.LinkMTU(remote) }

// Usage says what both directions carried.
func (a *associations) Usage(spiIn, spiOut uint32) (ike.Usage, bool) {
	a.mu.Lock()
	child := a.children[spiIn]
	var handleOut sad.Handle
	if child != nil {
		handleOut = child.out
	}
	a.mu.Unlock()
	in, ok := a.plane.Usage(sad.InboundHandle(spiIn))
	u := ike.Usage{BytesIn: in.Bytes, PacketsIn: in.Packets, LastIn: in.Last}
	if handleOut != 0 {
		if out, live := a.plane.Usage(handleOut); live {
			u.BytesOut, u.PacketsOut, u.LastOut = out.Bytes, out.Packets, out.Last
		}
	}
	return u, ok
}

// place tells a child's number and tunnel, by its inbound SPI.
func (a *associations) place(spiIn uint32) (number uint64, tunnel uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if child := a.children[spiIn]; child != nil {
		number = child.number
		if child.path != nil {
			tunnel = child.path.tunnel
		}
	}
	return number, tunnel
}

// Assigned and Unassigned tell of virtual addresses.
func (a *associations) Assigned(c *ikesa.Connection, leases []ikesa.Lease) {
	var add []netip.Addr
	for _, l := range leases {
		add = append(add, l.Addr)
	}
	a.virtual(add, nil)
}

func (a *associations) Unassigned(c *ikesa.Connection, addrs []netip.Addr) { a.virtual(nil, addrs) }
