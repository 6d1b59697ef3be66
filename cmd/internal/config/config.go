// Package config reads sallyportd's configuration: strict YAML with a position
// for every finding, checked as a whole and translated into the plain
// description that the daemon hands to the data plane and that a reload
// compares: its selectors and suites are the data plane's own. It knows nothing of
// packets, sockets or kernel state.
//
//	text → File (decode.go, schema.go, value.go) → checks → Config → Diff
package config

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// Policy is one entry of the ordered policy list. Tunnel is, for Protect, the
// child's stable name CONNECTION/CHILD.
type Policy struct {
	Name      string
	Action    spd.Action
	Selectors []spd.Selector
	Tunnel    string
	Transport bool // of Protect: for transport mode
	// Interface of Protect: it is for what a route leads into this virtual interface, and for nothing else.
	Interface string
}

// Association describes one direction of a child with manual keys.
type Association struct {
	Name                  string // CONNECTION/CHILD
	Inbound               bool
	SPI                   uint32
	Proposal              Proposal
	Key                   Secret
	Local, Remote         netip.Addr
	Encap, Transport, AH  bool
	LocalPort, RemotePort uint16
	UDPChecksum           bool
	Window                uint32 // packets; inbound only
	Selectors             []spd.Selector
	Outer                 sad.Outer
	Interface             string // that what it receives arrives by
	Carrier               sad.Carrier
	Filter                *sad.Filter
	Limit                 sad.Limit
	Around                *AH // around ESP; nil for none
}

// AH describes one direction of the AH around a child's ESP.
type AH struct {
	SPI      uint32
	Proposal Proposal
	Key      Secret
}

// ID names an association for a reload: what it serves, its direction and SPI.
func (a *Association) ID() string {
	direction := "out"
	if a.Inbound {
		direction = "in"
	}
	return fmt.Sprintf("%s %s 0x%08x", a.Name, direction, a.SPI)
}

// SPIs are those that its packets have, with the AH around it.
func (a *Association) SPIs() []uint32 {
	if a.Around != nil {
		return []uint32{a.SPI, a.Around.SPI}
	}
	return []uint32{a.SPI}
}

// KeyID is a fingerprint of suite and key, to notice that a key is used a
// second time. It is never printed.
func (a *Association) KeyID() [32]byte { return keyID(a.Proposal.Suite, a.Key) }

// KeyIDs are those of all its keys.
func (a *Association) KeyIDs() [][32]byte {
	ids := [][32]byte{a.KeyID()}
	if a.Around != nil {
		ids = append(ids, keyID(a.Around.Proposal.Suite, a.Around.Key))
	}
	return ids
}

func keyID(suite transform.Suite, key Secret) [32]byte {
	h := sha256.New()
	h.Write([]byte{byte(suite)})
	h.Write(key.Bytes())
	return [32]byte(h.Sum(nil))
}

// Config is a checked configuration with every default filled in.
type Config struct {
	Path         string
	File         File
	Policies     []Policy
	Associations []Association
	// Endpoints are our outer addresses, sorted. With AnyEndpoint every address of the host may be one too.
	Endpoints   []netip.Addr
	AnyEndpoint bool
	// Tunnels gives each child, by CONNECTION/CHILD, the Tunnel of the policy that its traffic follows. Connections with
	// different priorities and the same selectors share one. A child whose selectors are known only once
	// it is negotiated has none.
	Tunnels map[string]string
	// Fences keep the kernel from forwarding in the clear what is protected, sorted.
	Fences []Fence
	// Connections are those that are negotiated, Store what they prove and trust.
	Connections []*ikesa.Connection
	Store       *auth.Store
	// Suites are those that a child may have, each once.
	Suites   []transform.Suite
	Warnings []Issue
}

// Fence is one fence: against packets to a remote protected prefix; or, where the remote side of a tunnel is
// everything, against packets from a local prefix that would follow the default route. A local side
// that is everything, or holds an endpoint of ours, gets none: it would take the gateway off the network.
type Fence struct {
	Prefix netip.Prefix
	From   bool
}

func (f Fence) String() string {
	if f.From {
		return "from " + f.Prefix.String()
	}
	return f.Prefix.String()
}

// ZeroKeys overwrites every key of a configuration that is no longer used.
func (c *Config) ZeroKeys() {
	for i := range c.Associations {
		c.Associations[i].Key.Zero()
	}
}

// SocketPath returns the control socket of an instance by default.
func SocketPath(instance string) string { return "/run/sallyport/" + instance + ".sock" }

// PinDir returns the pin directory of an instance by default.
func PinDir(instance string) string { return "/sys/fs/bpf/sallyport/" + instance }

// Load reads the file at path, and the key files it names, and checks them.
// The error lists every finding, one a line, as file:line:column: text.
func Load(path string) (*Config, error) { return LoadWith(path, readChecked) }

// ReadFile reads a file and tells its permission bits. The daemon passes the
// privileged reader here.
type ReadFile func(path string) (text []byte, mode os.FileMode, err error)

func readChecked(path string) ([]byte, os.FileMode, error) {
	// Without O_NONBLOCK, opening a FIFO would hang a reload.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	return text, info.Mode().Perm(), err
}

// LoadWith is Load with a reader of files.
func LoadWith(path string, read ReadFile) (*Config, error) {
	text, mode, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer clear(text)
	return parse(path, text, mode, read)
}

// parse checks text as the contents of path. mode is the file's permissions.
func parse(path string, text []byte, mode os.FileMode, read ReadFile) (*Config, error) {
	d := &decoder{file: path, at: map[string]Position{}}
	c := &Config{Path: path, File: defaults(), Tunnels: map[string]string{}}
	if err := d.decode(text, &c.File); err != nil {
		return nil, err
	}
	k := &checker{decoder: d, Config: c, mode: mode, read: read, children: map[string]*tunnel{}, negotiated: map[string]bool{}, locals: map[string]auth.Local{}, remotes: map[string]auth.Remote{}}
	k.general()
	k.interfaces()
	k.ike()
	k.pools()
	k.connections()
	k.credentials()
	k.policies()
	k.manual()
	k.exchange()
	if err := errors.Join(d.issues...); err != nil {
		return nil, err
	}
	return c, nil
}

// checker turns a decoded file into a Config, collecting every finding.
type checker struct {
	*decoder
	*Config
	mode     os.FileMode
	read     ReadFile
	children map[string]*tunnel
	order    []string
	// negotiated are the connections that have what IKE needs.
	negotiated map[string]bool
	locals     map[string]auth.Local
	remotes    map[string]auth.Remote
	keys       []crypto.Signer
	files      map[string][]*x509.Certificate // that were read, by name
	fenced     map[Fence]bool                 // those in Fences
}

type tunnel struct {
	connection *Connection
	child      *Child
	path       string
	selectors  []spd.Selector // none: known only once negotiated
	text       string         // of the selectors, to find those that are the same
	manual     bool           // keys come from this file
	terms      Terms
	carrier    sad.Carrier // of its interface
	used       bool
}

// hosts says that packets keep their IP header: in transport mode, but for those of an encapsulation.
func (t *tunnel) hosts() bool {
	return t.child.transport() && t.carrier.Encapsulation == sad.NoEncapsulation
}

func (k *checker) errorAt(path, format string, args ...any) {
	k.fail(k.position(path), format, args...)
}

func (k *checker) warnAt(path, format string, args ...any) {
	k.Warnings = append(k.Warnings, Issue{k.file, k.position(path), fmt.Sprintf(format, args...)})
}

// position finds the value at path or the nearest thing around it that the file holds.
func (k *checker) position(path string) Position {
	for path != "" {
		if p, ok := k.at[path]; ok {
			return p
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return Position{}
}

var (
	instanceName  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}$`)
	interfaceName = regexp.MustCompile(`^[^\s/:%]{1,15}$`)
)

func (k *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.errorAt(path, "%s: %q is not one of %s: did you mean %q?", path, shorten(value), strings.Join(allowed, ", "), nearest(value, allowed))
	}
}

func (k *checker) between(path string, value, low, high int) {
	if value < low || value > high {
		k.errorAt(path, "%s: %d is not between %d and %d", path, value, low, high)
	}
}

func (k *checker) general() {
	f := &k.File
	if !instanceName.MatchString(f.Instance) {
		k.errorAt("instance", "instance: 1 to 32 letters, digits, - and _ only")
		f.Instance = "default"
	}
	f.Control.Socket = cmp.Or(f.Control.Socket, SocketPath(f.Instance))
	f.Dataplane.PinDir = cmp.Or(f.Dataplane.PinDir, PinDir(f.Instance))
	tun := "sp-" + f.Instance
	f.Dataplane.TUN = cmp.Or(f.Dataplane.TUN, tun[:min(15, len(tun))])
	if !filepath.IsAbs(f.Control.Socket) || len(f.Control.Socket) > 107 {
		k.errorAt("control.socket", "control.socket: an absolute path of at most 107 bytes (unix(7))")
	}
	if !filepath.IsAbs(f.Dataplane.PinDir) {
		k.errorAt("dataplane.pin_dir", "dataplane.pin_dir: an absolute path inside a bpffs")
	}
	if !interfaceName.MatchString(f.Dataplane.TUN) || f.Dataplane.TUN == "." || f.Dataplane.TUN == ".." {
		k.errorAt("dataplane.tun", "dataplane.tun: an interface name has 1 to 15 characters, without / and spaces")
	}
	k.oneOf("log.level", f.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", f.Log.Format, "auto", "json", "text")
	k.oneOf("dataplane.unmatched", f.Dataplane.Unmatched, "forward", "discard")
	if f.Workers.Count != 0 {
		k.between("workers.count", int(f.Workers.Count), 1, 64)
	}
	if n := len(f.Workers.Cores); n > 0 {
		if f.Workers.Count == 0 {
			f.Workers.Count = AutoInt(n)
		}
		if int(f.Workers.Count) > n {
			k.errorAt("workers.cores", "workers.cores: %d cores for %d workers; name one core per worker", n, f.Workers.Count)
		}
	}
	k.between("workers.batch", f.Workers.Batch, 1, 64)
	if f.Workers.Spin.Seconds() > 1 {
		k.errorAt("workers.spin", "workers.spin: at most 1s")
	}
	if f.Dataplane.Frames != 0 {
		k.between("dataplane.frames", int(f.Dataplane.Frames), 1024, 16<<20)
	}
	k.between("dataplane.associations", f.Dataplane.Associations, 1, 16<<20)
	k.between("dataplane.ring_size", f.Dataplane.RingSize, 64, 32768)
	if n := f.Dataplane.RingSize; n > 0 && n&(n-1) != 0 {
		k.errorAt("dataplane.ring_size", "dataplane.ring_size: %d is not a power of two", n)
	}
}

func (k *checker) interfaces() {
	if len(k.File.Interfaces) == 0 {
		k.errorAt("interfaces", "interfaces: none is named; one with role: protected and one with role: outside are needed (or one with role: both)")
		return
	}
	protected, outside, ports := false, false, 0
	for i := range k.File.Interfaces {
		i := &k.File.Interfaces[i]
		path := "interfaces." + i.Name
		if !interfaceName.MatchString(i.Name) || i.Name == "." || i.Name == ".." {
			k.errorAt(path, "%q cannot be an interface name: 1 to 15 characters, without / and spaces", shorten(i.Name))
		}
		if i.Role == "" {
			k.errorAt(path, "%s: role is missing: protected, outside or both; or tunnel", path)
			continue
		}
		k.oneOf(path+".role", i.Role, "protected", "outside", "both", "tunnel")
		k.oneOf(path+".xdp_mode", i.XDPMode, xdpModes...)
		k.virtual(i, path)
		if i.Virtual() {
			continue
		}
		ports++
		protected = protected || i.Role != "outside"
		outside = outside || i.Role != "protected"
	}
	if ports > 64 {
		k.errorAt("interfaces", "interfaces: at most 64, tunnels apart")
	}
	if !protected || !outside {
		k.warnAt("interfaces", "interfaces: no interface is protected, or none is outside; no traffic will go through a tunnel")
	}
}

func (k *checker) policies() {
	var paths []string
	names, groups := map[string]bool{}, map[string][]string{}
	add := func(p Policy, path string) {
		if names[p.Name] {
			k.errorAt(path, "policy %q stands in the list twice", shorten(p.Name))
		}
		names[p.Name] = true
		k.Policies, paths = append(k.Policies, p), append(paths, path)
	}
	for i, r := range k.File.Policies {
		path := fmt.Sprintf("policies[%d]", i)
		if r.Action == "" {
			k.errorAt(path, "%s: action is missing: bypass, discard or protect", path)
			continue
		}
		k.oneOf(path+".action", r.Action, "bypass", "discard", "protect")
		if r.Action != "protect" {
			if r.Child != "" {
				k.errorAt(path+".child", "%s: child goes with action: protect only", path)
			}
			action := spd.Bypass
			if r.Action == "discard" {
				action = spd.Discard
			}
			k.notDynamic(path, r.LocalTS, r.RemoteTS)
			add(Policy{Name: cmp.Or(r.Name, fmt.Sprintf("policy-%d", i+1)), Action: action, Selectors: k.selectors(path, r.LocalTS, r.RemoteTS)}, path)
			continue
		}
		t, ok := k.children[r.Child]
		if !ok {
			if len(k.order) == 0 {
				k.errorAt(path+".child", "%s: child %q does not exist", path, shorten(r.Child))
			} else {
				k.errorAt(path+".child", "%s: child %q does not exist: did you mean %q?", path, shorten(r.Child), nearest(r.Child, k.order))
			}
			continue
		}
		if t.child.Interface != "" {
			k.errorAt(path+".child", "%s: routes lead traffic to %s, by its interface %s, not policies", path, r.Child, t.child.Interface)
			continue
		}
		if len(r.LocalTS)+len(r.RemoteTS) > 0 {
			k.errorAt(path, "%s: a protect policy takes its selectors from its child; leave local_ts and remote_ts out", path)
		}
		if len(t.selectors) == 0 {
			k.errorAt(path+".child", "%s: what %s carries is known only once it is negotiated; its policies then stand before all others", path, r.Child)
			continue
		}
		t.used = true
		k.Tunnels[r.Child] = r.Child
		groups[t.text] = append(groups[t.text], r.Child)
		add(Policy{Name: cmp.Or(r.Name, r.Child), Action: spd.Protect, Selectors: t.selectors, Tunnel: r.Child, Transport: t.hosts()}, path)
	}
	for _, id := range k.order {
		t := k.children[id]
		if t.used || len(t.selectors) == 0 || k.joins(id, t, groups) {
			continue
		}
		k.Tunnels[id] = id
		groups[t.text] = []string{id}
		add(Policy{Name: id, Action: spd.Protect, Selectors: t.selectors, Tunnel: id, Transport: t.hosts(), Interface: t.child.Interface}, t.path)
	}
	k.shadows(paths)
	k.fences()
}

// joins says whether a child stands by for another one with the same selectors, whose policy it then shares.
// groups has the children of each policy by the text of its selectors.
func (k *checker) joins(id string, t *tunnel, groups map[string][]string) bool {
	others := groups[t.text]
	if len(others) == 0 || t.manual {
		return false
	}
	for _, other := range others {
		switch o := k.children[other]; {
		case o.manual || o.connection == t.connection:
			return false
		case o.connection.Priority == t.connection.Priority:
			k.errorAt(t.path, "%s: %s has the same selectors; give their connections different priorities if one is to stand by for the other", id, other)
			return true
		}
	}
	k.Tunnels[id] = k.Tunnels[others[0]]
	groups[t.text] = append(others, id)
	return true
}

// shadowMax bounds the policies whose selectors are compared pair by pair.
const shadowMax = 2000

// shadows refuses contradictions (two policies with the same selectors) and
// protect policies that an earlier one hides whole, because their traffic would
// not take the tunnel that the file promises. Hidden bypass and discard
// policies are useless, not dangerous: a warning.
func (k *checker) shadows(paths []string) {
	if len(k.Policies) > shadowMax {
		k.warnAt("policies", "more than %d policies: not checked for contradictions here", shadowMax)
		return
	}
	for i := range k.Policies {
		later := &k.Policies[i]
		for j := range i {
			earlier := &k.Policies[j]
			if !hides(earlier, later) {
				continue
			}
			at := k.position(paths[j])
			switch {
			case hides(later, earlier) && earlier.Action != later.Action:
				k.errorAt(paths[i], "policy %q (%s) contradicts %q (%s) at line %d: the selectors are the same", later.Name, later.Action, earlier.Name, earlier.Action, at.Line)
			case later.Action == spd.Protect:
				k.errorAt(paths[i], "policy %q can never match: %q (%s) at line %d comes first and covers all of it; put the narrower one first in policies", later.Name, earlier.Name, earlier.Action, at.Line)
			default:
				k.warnAt(paths[i], "policy %q can never match: %q (%s) at line %d comes first and covers all of it", later.Name, earlier.Name, earlier.Action, at.Line)
			}
			break
		}
	}
}

func hides(earlier, later *Policy) bool {
	if earlier.Interface != later.Interface {
		return false
	}
	for i := range later.Selectors {
		if !slices.ContainsFunc(earlier.Selectors, func(s spd.Selector) bool { return covers(&s, &later.Selectors[i]) }) {
			return false
		}
	}
	return len(later.Selectors) > 0
}

func (k *checker) fences() {
	k.fenced = map[Fence]bool{}
	for _, p := range k.Policies {
		if p.Action != spd.Protect || p.Interface != "" {
			continue
		}
		for _, s := range p.Selectors {
			for _, r := range s.Remote {
				for _, prefix := range r.Prefixes() {
					if prefix.Bits() > 0 {
						k.fence(Fence{Prefix: prefix})
						continue
					}
					for _, l := range s.Local {
						k.fenceSources(l, prefix.Addr().Is4())
					}
				}
			}
		}
	}
	// Where only our own side is known later, the other is fenced all the same.
	for _, id := range k.order {
		t := k.children[id]
		if len(t.selectors) > 0 || t.child.Interface != "" {
			continue
		}
		for _, ts := range t.child.RemoteTS {
			if ts.Dynamic {
				continue
			}
			for _, prefix := range ts.Range.Prefixes() {
				if prefix.Bits() > 0 {
					k.fence(Fence{Prefix: prefix})
				}
			}
		}
	}
	slices.SortFunc(k.Fences, func(a, b Fence) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
}

func (k *checker) fence(f Fence) {
	if !k.fenced[f] {
		k.fenced[f] = true
		k.Fences = append(k.Fences, f)
	}
}

func (k *checker) fenceSources(local spd.Range, v4 bool) {
	for _, prefix := range local.Prefixes() {
		if prefix.Addr().Is4() == v4 && prefix.Bits() > 0 && !slices.ContainsFunc(k.Endpoints, prefix.Contains) {
			k.fence(Fence{Prefix: prefix, From: true})
		}
	}
}

func (k *checker) manual() {
	f := &k.File
	if len(f.Manual) > 0 && !f.InsecureManualKeys {
		k.errorAt("manual", "manual: keys that never change are insecure with AEAD suites (RFC 8221, 3) and meant for tests; write insecure_manual_keys: true to use them all the same")
	}
	if len(f.Manual) == 0 && f.InsecureManualKeys {
		k.warnAt("insecure_manual_keys", "insecure_manual_keys: there is no manual section that needs it")
	}
	inbound, keys := map[uint32]string{}, map[[32]byte]string{}
	inFile := false
	for i := range f.Manual {
		m := &f.Manual[i]
		path := "manual." + m.Name
		t, ok := k.children[m.Name]
		if !ok {
			hint := ""
			if len(k.order) > 0 {
				hint = fmt.Sprintf(": did you mean %q?", nearest(m.Name, k.order))
			}
			k.errorAt(path, "manual: no child is called %q%s", shorten(m.Name), hint)
			continue
		}
		if m.SPIIn == 0 || m.SPIOut == 0 {
			k.errorAt(path, "%s: spi_in and spi_out are needed, both", path)
			continue
		}
		if !t.manual {
			continue // said already why not
		}
		inFile = inFile || m.KeyIn.Len()+m.KeyOut.Len()+m.AH.KeyIn.Len()+m.AH.KeyOut.Len() > 0
		proposal := Proposal{Suite: defaultSuite, ESN: true}
		key, err := t.child.proposalsKey(), error(nil)
		switch {
		case t.child.ah():
			err = proposal.parseAH(t.child.AHProposals[0])
		case len(t.child.ESPProposals) > 0:
			err = proposal.parse(t.child.ESPProposals[0])
		}
		if err != nil {
			k.errorAt(t.path+"."+key, "%s.%s: %v", t.path, key, err)
			continue
		}
		k.suite(proposal.Suite, t.path+"."+key)
		local, _ := t.connection.LocalAddrs[0].Addr()
		remote, _ := t.connection.RemoteAddrs[0].Addr()
		in, okIn := k.key(path, "key_in", m.KeyIn, m.KeyInFile, proposal)
		out, okOut := k.key(path, "key_out", m.KeyOut, m.KeyOutFile, proposal)
		receives := func(path string, spi SPI) {
			if other, taken := inbound[uint32(spi)]; taken {
				k.errorAt(path+".spi_in", "%s: spi_in 0x%08x is that of %s already", path, uint32(spi), other)
			}
			inbound[uint32(spi)] = path
		}
		receives(path, m.SPIIn)
		ahIn, ahOut, okAH := k.around(m, t, path)
		if ahIn != nil {
			receives(path+".ah", m.AH.SPIIn)
		}
		if !okIn || !okOut || !okAH {
			continue
		}
		base := Association{
			Name: m.Name, Proposal: proposal, Local: local, Remote: remote,
			Encap: t.connection.Encap, Transport: t.hosts(), AH: t.child.ah(), LocalPort: cmp.Or(uint16(t.connection.LocalPort), portNATT), RemotePort: cmp.Or(uint16(t.connection.RemotePort), portNATT),
			UDPChecksum: t.connection.UDPChecksum, Selectors: t.selectors,
			Outer: t.child.outer(), Interface: t.child.Interface, Carrier: t.carrier,
		}
		receive, send := base, base
		receive.Inbound, receive.SPI, receive.Key, receive.Window = true, uint32(m.SPIIn), in, uint32(t.child.ReplayWindow)
		send.SPI, send.Key = uint32(m.SPIOut), out
		receive.Around, send.Around = ahIn, ahOut
		for _, a := range []*Association{&receive, &send} {
			a.Filter, a.Limit = t.terms.Of(a.Inbound)
			for _, id := range a.KeyIDs() {
				if other, taken := keys[id]; taken {
					k.errorAt(path, "%s: a key of %s is that of %s too; two users of one key repeat nonces (NIST SP 800-38D, 8.2)", path, a.ID(), other)
				}
				keys[id] = a.ID()
			}
			k.Associations = append(k.Associations, *a)
		}
	}
	if inFile {
		k.private(k.file, k.mode, Position{})
	}
	for _, id := range k.order {
		if t := k.children[id]; !t.manual && !k.negotiated[t.connection.Name] {
			k.warnAt(t.path, "%s has no keys: its traffic is dropped; it needs a secret or certificates", id)
		}
	}
}

func (a *Around) given() bool {
	return a.SPIIn|a.SPIOut != 0 || a.KeyIn.Len()+a.KeyOut.Len() > 0 || a.KeyInFile+a.KeyOutFile != ""
}

// around returns both directions of the AH around a child's ESP, nil without. ok is false if something is wrong with it.
func (k *checker) around(m *Manual, t *tunnel, path string) (in, out *AH, ok bool) {
	path += ".ah"
	switch {
	case !t.child.bundled():
		if m.AH.given() {
			k.errorAt(path, "%s: AH goes around ESP where a child has both esp_proposals and ah_proposals", path)
			return nil, nil, false
		}
		return nil, nil, true
	case m.AH.SPIIn == 0 || m.AH.SPIOut == 0:
		k.errorAt(path, "%s: spi_in and spi_out are needed, both: AH around ESP has SPIs and keys of its own", path)
		return nil, nil, false
	}
	var p Proposal
	if err := p.parseAH(t.child.AHProposals[0]); err != nil {
		k.errorAt(t.path+".ah_proposals", "%s.ah_proposals: %v", t.path, err)
		return nil, nil, false
	}
	receive, okIn := k.key(path, "key_in", m.AH.KeyIn, m.AH.KeyInFile, p)
	send, okOut := k.key(path, "key_out", m.AH.KeyOut, m.AH.KeyOutFile, p)
	return &AH{uint32(m.AH.SPIIn), p, receive}, &AH{uint32(m.AH.SPIOut), p, send}, okIn && okOut
}

// key returns one direction's key from the file itself or the key file.
func (k *checker) key(path, field string, inline Secret, file string, p Proposal) (Secret, bool) {
	at := path + "." + field
	switch {
	case inline.Len() > 0 && file != "":
		k.errorAt(at, "%s: both %s and %s_file are given; one is enough", path, field, field)
		return Secret{}, false
	case inline.Len() == 0 && file == "":
		k.errorAt(path, "%s: %s or %s_file is missing", path, field, field)
		return Secret{}, false
	case file != "":
		at += "_file"
		text, ok := k.secretFile(at, file)
		if !ok {
			return Secret{}, false
		}
		defer clear(text)
		if err := inline.parse(string(text)); err != nil {
			k.errorAt(at, "%s: %s: %v", at, file, err)
			return Secret{}, false
		}
	}
	if want := p.Suite.Info(); inline.Len() != want.KeyLen {
		parts := "integrity key included"
		if want.SaltLen > 0 {
			parts = fmt.Sprintf("%d bytes of salt included", want.SaltLen)
		}
		k.errorAt(at, "%s: %d bytes, but %s takes %d (%s)", at, inline.Len(), p.Suite, want.KeyLen, parts)
		return Secret{}, false
	}
	return inline, true
}

// private refuses a file with keys that everyone may read and warns of one
// that its group may read.
func (k *checker) private(file string, mode os.FileMode, at Position) {
	switch {
	case mode&0o007 != 0:
		k.fail(at, "%s holds keys and is open to everyone (mode %04o): chmod 600 %s", k.called(file), mode, file)
	case mode&0o070 != 0:
		k.Warnings = append(k.Warnings, Issue{k.file, at, fmt.Sprintf("%s holds keys and is open to its group (mode %04o): chmod 600 %s", k.called(file), mode, file)})
	}
}

// called names a file in a finding, which itself begins with the configuration's name.
func (k *checker) called(file string) string {
	if file == k.file {
		return "the file"
	}
	return file
}

func sorted(s []string) []string { slices.Sort(s); return s }
