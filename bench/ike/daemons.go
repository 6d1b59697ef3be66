package ike

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// daemons are the programs that users run, on the rig of package rig:
//
//	host-a ───── gw-a ───── transit ───── gw-b ───── host-b
//	          sallyportd    bridge     sallyportd
//	                          │
//	                  spoofed requests
//
// Each measurement starts both afresh. gw-a always has the connection "site", whose tunnel is up.
type daemons struct {
	bed     *testbed.Bed
	network *rig.Network
	a, b    *rig.Gateway
	secret  string // of all connections
}

// Names in the configurations.
const (
	site, siteChild = "site", "site/net"
	serverID        = "gw-b.example.org"
	// transitAddr is where answers to spoofed addresses end.
	transitAddr = "192.0.2.254"
	spoofedNet  = "198.18.0.0/15"
)

// setting is what a measurement adds to the configurations: further connections of gw-a, and keys of both files' ike section.
type setting struct {
	connections string
	ikeA, ikeB  string
	workers     string // of both, count: 2 if empty
	suite       string // of the tunnel of site, AES-GCM if empty
}

// fastSuite is what tunnels use where nothing else is said.
const fastSuite = "aes256gcm16-esn-noesn"

// newDaemons lays the network and writes the configurations.
func newDaemons(bin string, s setting) (_ *daemons, err error) {
	bed, err := testbed.New("ikebench")
	if err != nil {
		return nil, err
	}
	d := &daemons{bed: bed, secret: rand.Text() + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.network, err = rig.Build(bed); err != nil {
		return nil, err
	}
	// What is sent to spoofed addresses goes nowhere, instead of in a circle.
	n := d.network
	err = errors.Join(
		n.Transit.Sysctl("net.ipv4.ip_forward", "0"), n.Transit.Address("br0", transitAddr+"/24"),
		n.GwA.Route(spoofedNet, transitAddr), n.GwB.Route(spoofedNet, transitAddr),
	)
	if err != nil {
		return nil, err
	}
	if d.a, err = rig.NewGateway(bed, n.GwA, bin, "gw-a", 2, func(g *rig.Gateway) string { return d.configuration(g, true, s) }); err != nil {
		return nil, err
	}
	d.b, err = rig.NewGateway(bed, n.GwB, bin, "gw-b", 0, func(g *rig.Gateway) string { return d.configuration(g, false, s) })
	return d, err
}

func (d *daemons) close() error { return d.bed.Close() }

// configuration is the YAML of a gateway: of gw-a, which initiates, or of gw-b.
func (d *daemons) configuration(g *rig.Gateway, initiates bool, s setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, `instance: %s
control: {socket: %s}
workers: {%s}
dataplane: {pin_dir: %s, associations: 131072}
interfaces:
  lan: {role: protected}
  wan: {role: outside}
secrets:
  ike-all: {secret: "%s"}
connections:
`, g.Name, g.Socket, cmp.Or(s.workers, "count: 2"), g.Pins, d.secret)
	const common = "    proposals: aes256gcm16-prfsha256-x25519\n    mobike: false\n"
	connection := "  %s:\n    local_addrs: %s\n    remote_addrs: \"%s\"\n" + common + "    dpd_delay: 1s\n    local: {auth: psk, id: %s}\n    remote: {auth: psk, id: \"%s\"}\n" +
		"    children:\n      net: {local_ts: [%s], remote_ts: [%s], esp_proposals: %s, start_action: %s}\n"
	suite := cmp.Or(s.suite, fastSuite)
	if initiates {
		fmt.Fprintf(&b, connection, site, rig.GwA4, rig.GwB4, "gw-a.example.org", serverID, rig.LANA4, rig.LANB4, suite, "start")
		fmt.Fprintf(&b, "%sike: {%s}\n", s.connections, s.ikeA)
		return b.String()
	}
	fmt.Fprintf(&b, connection, site, rig.GwB4, rig.GwA4, serverID, "gw-a.example.org", rig.LANB4, rig.LANA4, suite, "none")
	fmt.Fprintf(&b, connection, "clients", rig.GwB4, "%any", serverID, "*.clients.example.org", rig.LANB4, spoofedNet, fastSuite, "none")
	fmt.Fprintf(&b, "ike: {%s}\n", s.ikeB)
	return b.String()
}

// clientConnections are n connections of gw-a to gw-b, each with an identity, a protected address and an outer address of its
// own, of gw-a's.
func clientConnections(n int, action string, outer func(i int) string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `  %s:
    local_addrs: %s
    remote_addrs: %s
    proposals: aes256gcm16-prfsha256-x25519
    mobike: false
    dpd_delay: 1h
    local: {auth: psk, id: %[1]s.clients.example.org}
    remote: {auth: psk, id: %[4]s}
    children:
      net: {local_ts: [198.18.%[5]d.%[6]d/32], remote_ts: [%[7]s], esp_proposals: %[9]s, start_action: %[8]s}
`, clientName(i), outer(i), rig.GwB4, serverID, i>>8, i&0xff, rig.LANB4, action, fastSuite)
	}
	return b.String()
}

// sameAddress is gw-a's own.
func sameAddress(int) string { return rig.GwA4 }

// start starts both, responder first, and waits until the tunnel of site is up.
func (d *daemons) start() error {
	for _, g := range []*rig.Gateway{d.b, d.a} {
		if err := g.Launch(); err != nil {
			return err
		}
		if err := g.Ready(startMax); err != nil {
			return d.explained(err)
		}
	}
	return nil
}

// startMax is how long a daemon may take to start; with ten thousand connections, reading them takes seconds.
const startMax = 30 * time.Second

// explained adds the ends of the logs to an error.
func (d *daemons) explained(err error) error {
	for _, g := range []*rig.Gateway{d.a, d.b} {
		if text, readErr := os.ReadFile(g.Log); readErr == nil {
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			err = fmt.Errorf("%w\n── the last lines of %s's log\n%s", err, g.Name, strings.Join(lines[max(0, len(lines)-8):], "\n"))
		}
	}
	return err
}

// eventually tries until it succeeds, at most so long, and returns the last complaint.
func eventually(atMost time.Duration, try func() error) error {
	for deadline := time.Now().Add(atMost); ; time.Sleep(50 * time.Millisecond) {
		if err := try(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// status is what the measurements read of "sallyport status".
type status struct {
	Associations int `json:"associations"`
	IKE          struct {
		SAs             int    `json:"sas"`
		Established     uint64 `json:"established"`
		Retransmitted   uint64 `json:"retransmitted"`
		ChildrenRekeyed uint64 `json:"children_rekeyed"`
		Rekeyed         uint64 `json:"rekeyed"`
		Received        uint64 `json:"received"`
		Panics          uint64 `json:"panics"`
		Exchanges       []struct {
			Name string `json:"name"`
			Done uint64 `json:"done"`
		} `json:"exchanges"`
	} `json:"ike"`
	Workers []struct {
		Opened uint64 `json:"opened"`
		Sealed uint64 `json:"sealed"`
	} `json:"workers"`
}

func statusOf(g *rig.Gateway) (s status, err error) {
	text, err := g.Ask("status", "--json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// opened is how many packets the workers have decapsulated.
func (s status) opened() (n uint64) {
	for _, w := range s.Workers {
		n += w.Opened
	}
	return n
}
