package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/ike/suite"
)

// Ports of IKE (RFC 7296, 2; 2.23).
const (
	portIKE  = 500
	portNATT = 4500
)

// addressesMax bounds local_addrs and remote_addrs, selectorsMax each side of a child.
const (
	addressesMax = 64
	selectorsMax = 64
)

func (k *checker) connections() {
	manual := map[string]bool{}
	for i := range k.File.Manual {
		manual[k.File.Manual[i].Name] = true
	}
	endpoints := map[netip.Addr]bool{}
	for i := range k.File.Connections {
		c := &k.File.Connections[i]
		path := "connections." + c.Name
		if strings.ContainsAny(c.Name, "/ \t\n") {
			k.errorAt(path, "%q: a connection's name has no / and no spaces", shorten(c.Name))
		}
		if len(c.Children) == 0 && c.Childless != "force" {
			k.errorAt(path, "%s: children is missing: name at least one", path)
		}
		static := slices.ContainsFunc(c.Children, func(child Child) bool { return manual[c.Name+"/"+child.Name] })
		if static {
			static = k.staticEnds(c, path)
		} else {
			k.ends(c, path)
			k.connection(c, path)
		}
		for _, e := range c.LocalAddrs {
			if addr, single := e.Addr(); single {
				endpoints[addr] = true
			}
		}
		for j := range c.Children {
			child := &c.Children[j]
			k.child(c, child, path+".children."+child.Name, static && manual[c.Name+"/"+child.Name])
		}
	}
	for addr := range endpoints {
		k.Endpoints = append(k.Endpoints, addr)
	}
	slices.SortFunc(k.Endpoints, netip.Addr.Compare)
}

// staticEnds checks the outer addresses of a connection with manual keys: one on each side.
func (k *checker) staticEnds(c *Connection, path string) bool {
	one := func(key string, list []Endpoint, whose string) (addr netip.Addr, ok bool) {
		if len(list) == 1 {
			addr, ok = list[0].Addr()
		}
		if !ok {
			k.errorAt(path+"."+key, "%s: with manual keys %s names one address: %s", path, key, whose)
		}
		return addr, ok
	}
	local, okLocal := one("local_addrs", c.LocalAddrs, "our outer address")
	remote, okRemote := one("remote_addrs", c.RemoteAddrs, "the peer's outer address")
	if !okLocal || !okRemote {
		return false
	}
	if local.Is4() != remote.Is4() {
		k.errorAt(path+".remote_addrs", "%s: local_addrs and remote_addrs are of different families", path)
	}
	if local == remote {
		k.errorAt(path+".remote_addrs", "%s: local_addrs and remote_addrs are the same address", path)
	}
	return true
}

// ends checks the outer addresses of a connection that is negotiated.
func (k *checker) ends(c *Connection, path string) {
	if len(c.RemoteAddrs) == 0 {
		k.errorAt(path, "%s: remote_addrs is missing: the peer's outer addresses or names, or %%any", path)
	}
	if len(c.LocalAddrs) > addressesMax || len(c.RemoteAddrs) > addressesMax {
		k.errorAt(path, "%s: more than %d addresses on a side", path, addressesMax)
	}
	if len(c.LocalAddrs) == 0 {
		k.AnyEndpoint = true
	}
	for i, e := range c.LocalAddrs {
		if e.Host != "" {
			k.errorAt(fmt.Sprintf("%s.local_addrs[%d]", path, i), "%s: %s: local_addrs has no names; leave it out to use the address that leads to the peer", path, e.Host)
		}
		if _, single := e.Addr(); !single {
			k.AnyEndpoint = true
		}
	}
	common := len(c.LocalAddrs) == 0 || len(c.RemoteAddrs) == 0
	for _, l := range c.LocalAddrs {
		for i, r := range c.RemoteAddrs {
			at := fmt.Sprintf("%s.remote_addrs[%d]", path, i)
			la, localSingle := l.Addr()
			ra, remoteSingle := r.Addr()
			if localSingle && remoteSingle && la == ra {
				k.errorAt(at, "%s: %s is in local_addrs and in remote_addrs: the same address", path, la)
			}
			common = common || l.IsAny || r.IsAny || r.Host != "" || la.Is4() == ra.Is4()
		}
	}
	if !common {
		k.errorAt(path+".remote_addrs", "%s: local_addrs and remote_addrs are of different families", path)
	}
	if p := c.LocalPort; p != 0 && p != portIKE && p != portNATT {
		k.errorAt(path+".local_port", "%s: local_port is %d or %d", path, portIKE, portNATT)
	}
}

// reachable says whether we can start a connection: some address or name of the peer is known.
func (c *Connection) reachable() bool {
	return slices.ContainsFunc(c.RemoteAddrs, func(e Endpoint) bool {
		_, single := e.Addr()
		return single || e.Host != ""
	})
}

// connection checks what concerns the IKE SA, and fills in the times that depend on others.
func (k *checker) connection(c *Connection, path string) {
	k.oneOf(path+".fragmentation", c.Fragmentation, "yes", "accept", "force", "no")
	k.oneOf(path+".childless", c.Childless, "allow", "prefer", "force", "never")
	k.oneOf(path+".unique", c.Unique, "no", "never", "keep", "replace")
	k.oneOf(path+".send_cert", c.SendCert, "ifasked", "always", "never")
	k.between(path+".keyingtries", c.KeyingTries, 0, 1000)
	k.between(path+".priority", c.Priority, 0, 1000000)
	if _, err := proposals(c.Proposals, suite.ParseIKE, suite.DefaultIKE()); err != nil {
		k.errorAt(path+".proposals", "%s.proposals: %v", path, err)
	}
	if d := c.DPDDelay.Duration; d != 0 && d < time.Second {
		k.errorAt(path+".dpd_delay", "%s.dpd_delay: at least 1s, or 0 for never", path)
	}
	if d := c.PathMTUTime.Duration; d != 0 && d < 10*time.Second {
		k.errorAt(path+".path_mtu_time", "%s.path_mtu_time: at least 10s, or 0 for never", path)
	}
	// The reserve after rekey_time or reauth_time, whichever comes first.
	first := c.RekeyTime.Duration
	if r := c.ReauthTime.Duration; first == 0 || r != 0 && r < first {
		first = r
	}
	if c.OverTime.Duration == unset {
		c.OverTime.Duration = first / 10
	}
	if c.RandTime.Duration == unset {
		c.RandTime.Duration = c.OverTime.Duration
	}
	switch {
	case first == 0:
		k.warnAt(path, "%s: rekey_time and reauth_time are 0: the keys of this IKE SA are never renewed", path)
	case first < 10*time.Second:
		k.errorAt(path+".rekey_time", "%s: rekey_time and reauth_time are at least 10s, or 0 for never", path)
	case c.RandTime.Duration >= first:
		k.errorAt(path+".rand_time", "%s.rand_time: %v, but all of it may be taken off rekey_time or reauth_time, %v", path, c.RandTime, first)
	case c.OverTime.Duration == 0:
		k.errorAt(path+".over_time", "%s.over_time: 0 would end the IKE SA when it is to be renewed", path)
	}
	for i, name := range c.Pools {
		if !slices.ContainsFunc(k.File.Pools, func(p Pool) bool { return p.Name == name }) {
			var names []string
			for _, p := range k.File.Pools {
				names = append(names, p.Name)
			}
			at := fmt.Sprintf("%s.pools[%d]", path, i)
			if len(names) == 0 {
				k.errorAt(at, "%s: there is no pool %q: the file has no section pools", path, shorten(name))
			} else {
				k.errorAt(at, "%s: there is no pool %q: did you mean %q?", path, shorten(name), nearest(name, names))
			}
		}
	}
	if len(c.VIPs) > 0 && len(c.Pools) > 0 {
		k.errorAt(path+".vips", "%s: vips asks the peer for addresses, pools gives them to it; one of them", path)
	}
	if len(c.VIPs) > 0 && !c.reachable() {
		k.errorAt(path+".vips", "%s: vips asks a peer for addresses, but no address of a peer is known to begin with", path)
	}
	if len(c.VIPs) > 8 {
		k.errorAt(path+".vips", "%s: at most 8 vips", path)
	}
}

// proposals reads a list of proposals, or takes the default ones.
func proposals(words []Words, parse func(string) (suite.Proposal, error), defaults []suite.Proposal) ([]suite.Proposal, error) {
	var list []string
	for _, w := range words {
		list = append(list, string(w))
	}
	return suite.ParseList(list, parse, defaults)
}

// ah says that a child uses AH in place of ESP, and bundled that it puts AH around ESP.
func (c *Child) ah() bool      { return len(c.AHProposals) > 0 && len(c.ESPProposals) == 0 }
func (c *Child) bundled() bool { return len(c.AHProposals) > 0 && len(c.ESPProposals) > 0 }

// proposalsKey is the key under which a child's proposals stand.
func (c *Child) proposalsKey() string {
	if c.ah() {
		return "ah_proposals"
	}
	return "esp_proposals"
}

// proposals reads a child's proposals.
func (c *Child) proposals() ([]suite.Proposal, error) {
	if c.ah() {
		return proposals(c.AHProposals, suite.ParseAH, suite.DefaultAH())
	}
	return proposals(c.ESPProposals, suite.ParseESP, suite.DefaultESP())
}

func (k *checker) child(c *Connection, child *Child, path string, manual bool) {
	if strings.ContainsAny(child.Name, "/ \t\n") {
		k.errorAt(path, "%q: a child's name has no / and no spaces", shorten(child.Name))
	}
	k.oneOf(path+".mode", child.Mode, "tunnel", "transport")
	k.between(path+".replay_window", child.ReplayWindow, 32, 65536)
	if child.MTU != 0 {
		low := 576 // RFC 791: every IPv4 host takes this much
		if slices.ContainsFunc(c.RemoteAddrs, func(e Endpoint) bool { a, single := e.Addr(); return single && a.Is6() }) {
			low = 1280 // RFC 8200, 5
		}
		k.between(path+".mtu", int(child.MTU), low, mtuMax)
	}
	k.outer(child, path)
	t := &tunnel{connection: c, child: child, path: path, manual: manual, terms: k.terms(child, path)}
	if child.Interface != "" {
		t.carrier = k.byInterface(child, path)
	}
	if child.transport() {
		k.transport(c, child, path)
	}
	switch {
	case child.bundled() && !manual:
		k.errorAt(path+".ah_proposals", "%s: esp_proposals and ah_proposals; one of them: both on one packet need manual keys, since IKEv2 does not negotiate that (RFC 7296, 1.7)", path)
	case len(child.AHProposals) > 0 && c.Encap:
		k.errorAt(path+".ah_proposals", "%s: AH cannot go in UDP, nor through a NAT: no encap with ah_proposals", path)
	}
	switch {
	case manual && child.transport():
		t.selectors = k.selectors(path, known(child.LocalTS, singles(c.LocalAddrs)), known(child.RemoteTS, singles(c.RemoteAddrs)))
	case manual:
		k.notDynamic(path, child.LocalTS, child.RemoteTS)
		t.selectors = k.selectors(path, child.LocalTS, child.RemoteTS)
	default:
		t.selectors = k.selectors(path, c.localSide(child.LocalTS), c.remoteSide(k.File.Pools, child.RemoteTS))
		k.negotiable(c, child, path, len(t.selectors) > 0 || t.carrier.Encapsulation != sad.NoEncapsulation)
	}
	if e := t.carrier.Encapsulation; e != sad.NoEncapsulation {
		t.selectors = Carried(e, Pair(outright(child.LocalTS), outright(child.RemoteTS)))
	}
	t.text = fmt.Sprint(child.Interface, child.Mode, t.selectors)
	id := c.Name + "/" + child.Name
	k.children[id] = t
	k.order = append(k.order, id)
}

func (c *Child) transport() bool { return c.Mode == "transport" }

// transport checks what is special about a child in transport mode, which carries what goes between the connection's own
// addresses. Selectors that are left out stand for these.
func (k *checker) transport(c *Connection, child *Child, path string) {
	own := []TrafficSelector{{Dynamic: true, Ports: spd.AnyPorts}}
	if len(child.LocalTS) == 0 {
		child.LocalTS = own
	}
	if len(child.RemoteTS) == 0 {
		child.RemoteTS = own
	}
	for _, side := range []struct {
		key, of string
		list    []TrafficSelector
		ends    []Endpoint
	}{{"local_ts", "local_addrs", child.LocalTS, c.LocalAddrs}, {"remote_ts", "remote_addrs", child.RemoteTS, c.RemoteAddrs}} {
		for i, t := range side.list {
			if !t.Dynamic && !slices.Contains(singles(side.ends), t.Range) {
				k.errorAt(fmt.Sprintf("%s.%s[%d]", path, side.key, i), "%s.%s: transport mode carries what goes between the addresses of the connection, so each entry is an address of %s, or dynamic", path, side.key, side.of)
			}
		}
	}
	if len(c.Pools)+len(c.VIPs) > 0 {
		k.errorAt(path+".mode", "%s: virtual addresses need mode: tunnel", path)
	}
}

// negotiable checks what concerns the negotiation of a child, and fills in what depends on others. known says
// whether its selectors are known before.
func (k *checker) negotiable(c *Connection, child *Child, path string, known bool) {
	key := child.proposalsKey()
	offers, err := child.proposals()
	if err != nil {
		k.errorAt(path+"."+key, "%s.%s: %v", path, key, err)
	}
	for i := range offers {
		for _, name := range offers[i].Ciphers() {
			s, err := transform.Parse(name)
			if err != nil {
				k.errorAt(path+"."+key, "%s.%s: %v", path, key, err)
				continue
			}
			k.suite(s, path+"."+key)
		}
	}
	if len(child.LocalTS) > selectorsMax || len(child.RemoteTS) > selectorsMax {
		k.errorAt(path, "%s: more than %d selectors on a side", path, selectorsMax)
	}
	rekey, life, random := &child.RekeyTime.Duration, &child.LifeTime.Duration, &child.RandTime.Duration
	if *life == unset {
		*life = *rekey + *rekey/10
	}
	if *random == unset {
		*random = max(0, *life-*rekey)
	}
	switch {
	case *rekey == 0 && *life == 0:
		k.warnAt(path, "%s: rekey_time and life_time are 0: its keys may never be renewed", path)
	case *rekey != 0 && *rekey < 5*time.Second:
		k.errorAt(path+".rekey_time", "%s.rekey_time: at least 5s, or 0 for never", path)
	case *life != 0 && *life <= *rekey:
		k.errorAt(path+".life_time", "%s.life_time: %v is not more than rekey_time, %v: the child would end when it is to be renewed", path, *life, *rekey)
	case *rekey != 0 && *random >= *rekey:
		k.errorAt(path+".rand_time", "%s.rand_time: %v, but all of it may be taken off rekey_time, %v", path, *random, *rekey)
	}
	volume := func(unit string, rekey, life, random *Size) {
		if *rekey != 0 && *life == 0 {
			*life = *rekey + *rekey/10
		}
		if *rekey != 0 && *random == 0 && *life > *rekey {
			*random = min(*life-*rekey, *rekey/2)
		}
		switch {
		case *rekey != 0 && *life <= *rekey:
			k.errorAt(path+".life_"+unit, "%s.life_%s: %d is not more than rekey_%s, %d", path, unit, *life, unit, *rekey)
		case *rekey != 0 && *random >= *rekey:
			k.errorAt(path+".rand_"+unit, "%s.rand_%s: %d, but all of it may be taken off rekey_%s, %d", path, unit, *random, unit, *rekey)
		}
	}
	volume("bytes", &child.RekeyBytes, &child.LifeBytes, &child.RandBytes)
	volume("packets", &child.RekeyPackets, &child.LifePackets, &child.RandPackets)

	// What is known starts with the first packet, what is not at once.
	starts := "none"
	switch {
	case c.reachable() && known:
		starts = "trap"
	case c.reachable():
		starts = "start"
	}
	given := child.StartAction
	child.StartAction = cmp.Or(given, starts)
	k.oneOf(path+".start_action", child.StartAction, "none", "trap", "start", "trap|start")
	later := "none"
	if child.StartAction != "none" {
		later = "trap"
		if !known {
			later = "start"
		}
	}
	closes, dpd := child.CloseAction, child.DPDAction
	child.CloseAction, child.DPDAction = cmp.Or(closes, later), cmp.Or(dpd, later)
	if dpd == "" && strings.Contains(child.StartAction, "start") {
		child.DPDAction = "start"
	}
	k.oneOf(path+".close_action", child.CloseAction, "none", "trap", "start")
	k.oneOf(path+".dpd_action", child.DPDAction, "none", "trap", "start")
	for _, x := range []struct{ key, value string }{{"start_action", given}, {"close_action", closes}, {"dpd_action", dpd}} {
		switch {
		case x.value == "" || x.value == "none":
		case !c.reachable():
			k.errorAt(path+"."+x.key, "%s.%s: no address of the peer is known, so that only it can begin", path, x.key)
		case !known && strings.Contains(x.value, "trap"):
			k.errorAt(path+"."+x.key, "%s.%s: no packet can be waited for while local_ts or remote_ts is not known before the negotiation; write start", path, x.key)
		}
	}
	if strings.Contains(child.StartAction, "start") && child.Inactivity.Duration != 0 {
		k.warnAt(path+".inactivity", "%s: start_action brings up what inactivity takes down", path)
	}
}

// suite notes a suite that traffic may be protected with, and warns of what it lacks.
func (k *checker) suite(s transform.Suite, path string) {
	switch info := s.Info(); {
	case !info.Encrypts():
		k.warnAt(path, "%s: %s does not encrypt: whoever is on the way can read the traffic", path, s)
	case info.ICVLen < 12:
		k.warnAt(path, "%s: %s has a checksum of %d bytes, of which SP 800-38D, appendix C, allows only few packets a key; %s has a whole one", path, s, info.ICVLen, strings.TrimSuffix(s.String(), "8")+"16")
	}
	if !slices.Contains(k.Suites, s) {
		k.Suites = append(k.Suites, s)
	}
}

// localSide replaces dynamic by what it stands for, as far as that is known: none is returned if it is not.
func (c *Connection) localSide(list []TrafficSelector) []TrafficSelector {
	var own []spd.Range
	if len(c.VIPs) == 0 {
		own = singles(c.LocalAddrs)
	}
	return known(list, own)
}

func (c *Connection) remoteSide(pools []Pool, list []TrafficSelector) []TrafficSelector {
	var theirs []spd.Range
	for _, p := range pools {
		if slices.Contains(c.Pools, p.Name) {
			theirs = append(theirs, spd.Range{First: p.Addrs.First, Last: p.Addrs.Last})
		}
	}
	if len(c.Pools) == 0 {
		theirs = singles(c.RemoteAddrs)
	}
	return known(list, theirs)
}

// singles returns the addresses of a list if it has nothing else.
func singles(list []Endpoint) []spd.Range {
	var out []spd.Range
	for _, e := range list {
		addr, single := e.Addr()
		if !single {
			return nil
		}
		out = append(out, spd.Range{First: addr, Last: addr})
	}
	return out
}

func known(list []TrafficSelector, dynamic []spd.Range) []TrafficSelector {
	var out []TrafficSelector
	for _, t := range list {
		if !t.Dynamic {
			out = append(out, t)
			continue
		}
		if len(dynamic) == 0 {
			return []TrafficSelector{t}
		}
		for _, r := range dynamic {
			out = append(out, TrafficSelector{Range: r, Proto: t.Proto, Ports: t.Ports})
		}
	}
	return out
}

// selectors pairs both sides and says what is missing. It returns none if a side is known only once negotiated.
func (k *checker) selectors(path string, local, remote []TrafficSelector) []spd.Selector {
	if len(local) == 0 {
		k.errorAt(path, "%s: local_ts is missing: the prefixes behind this gateway", path)
	}
	if len(remote) == 0 {
		k.errorAt(path, "%s: remote_ts is missing: the prefixes behind the peer", path)
	}
	isDynamic := func(t TrafficSelector) bool { return t.Dynamic }
	if slices.ContainsFunc(local, isDynamic) || slices.ContainsFunc(remote, isDynamic) {
		return nil
	}
	s := Pair(local, remote)
	if len(s) == 0 && len(local) > 0 && len(remote) > 0 {
		k.errorAt(path+".remote_ts", "%s: no local_ts and remote_ts agree in address family and protocol", path)
	}
	return s
}

// notDynamic refuses dynamic selectors where nothing is negotiated.
func (k *checker) notDynamic(path string, sides ...[]TrafficSelector) {
	for _, side := range sides {
		if slices.ContainsFunc(side, func(t TrafficSelector) bool { return t.Dynamic }) {
			k.errorAt(path, "%s: dynamic needs IKE; write the prefix out", path)
		}
	}
}

func (k *checker) ike() {
	i := &k.File.IKE
	if i.Threads != 0 {
		k.between("ike.threads", int(i.Threads), 1, 64)
	}
	k.between("ike.sas_max", i.SAs, 1, 1<<20)
	k.between("ike.half_open_max", i.HalfOpen, 1, 1<<20)
	k.between("ike.half_open_per_address", i.HalfOpenPerAddress, 1, 1<<20)
	k.between("ike.cookie_threshold", i.CookieThreshold, 0, 1<<20)
	if i.CookieThreshold >= i.HalfOpen {
		k.errorAt("ike.cookie_threshold", "ike.cookie_threshold: %d is never reached: half_open_max is %d", i.CookieThreshold, i.HalfOpen)
	}
	k.between("ike.rekeys_per_second", i.Rekeys, 1, 1<<20)
	k.between("ike.retransmit_tries", i.RetransmitTries, 1, 30)
	k.between("ike.retransmit_jitter", i.RetransmitJitter, 0, 50)
	k.between("ike.fragment_size", i.FragmentSize, 576, packet.LenMax-packet.EtherLen)
	if d := i.RetransmitTimeout.Duration; d < 50*time.Millisecond || d > time.Minute {
		k.errorAt("ike.retransmit_timeout", "ike.retransmit_timeout: between 50ms and 1m")
	}
	if d := i.RetransmitLimit.Duration; d != 0 && d < i.RetransmitTimeout.Duration {
		k.errorAt("ike.retransmit_limit", "ike.retransmit_limit: %v is less than retransmit_timeout, %v", d, i.RetransmitTimeout)
	}
	if d := i.Keepalive.Duration; d != 0 && d < time.Second {
		k.errorAt("ike.keepalive", "ike.keepalive: at least 1s, or 0 for none")
	}
	if i.KeyLog != "" {
		k.warnAt("ike.keylog", "ike.keylog: the keys of every IKE SA are written to %s: who reads it reads and forges IKE", shorten(i.KeyLog))
	}
}

func (k *checker) pools() {
	for i := range k.File.Pools {
		p := &k.File.Pools[i]
		path := "pools." + p.Name
		if !p.Addrs.First.IsValid() {
			k.errorAt(path, "%s: addrs is missing: the addresses to give out", path)
			continue
		}
		if f := p.Addrs.First; f.IsUnspecified() || f.IsMulticast() || f.IsLoopback() {
			k.errorAt(path+".addrs", "%s.addrs: %s cannot be given to a peer", path, f)
		}
		for j := range i {
			o := &k.File.Pools[j]
			if o.Addrs.First.IsValid() && p.Addrs.First.Compare(o.Addrs.Last) <= 0 && o.Addrs.First.Compare(p.Addrs.Last) <= 0 {
				k.errorAt(path+".addrs", "%s.addrs: pool %q has some of these addresses too", path, o.Name)
			}
		}
		if len(p.DNS) > 8 {
			k.errorAt(path+".dns", "%s.dns: at most 8", path)
		}
	}
}
