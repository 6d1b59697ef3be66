package rig

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

// Tunnel is one tunnel between the gateways, as gateway a sees it; b's side is the mirror image.
type Tunnel struct {
	Name          string
	Proposal      string
	KeyBytes      int // of the proposal's keying material, the salt of four included
	Encap         bool
	Local, Remote string   // outer addresses
	LocalTS       []string // selectors, as in the YAML file
	RemoteTS      []string
	SPIAB, SPIBA  uint32
	// Keys says where keys come from.
	Keys Keys
	// Transport says that the gateways' own traffic goes in transport mode; then there are no selectors.
	Transport bool
	// Interface names a virtual interface that routes lead traffic into, in place of selectors, and Addresses are those of its two ends; "" for none.
	Interface string
	Addresses [2]string
	// Encapsulation and what it is set to are keys of the interface, such as "encapsulation: gre, key: 7"; "" for none.
	Encapsulation string
	// AH has the proposal of AH, "" for none. It is in place of ESP, or with manual keys and a Proposal, then sha256, around it.
	AH string
}

// Keys says where the keys of a tunnel come from.
type Keys uint8

const (
	Manual       Keys = iota // the configuration files
	Preshared                // IKE, by a preshared key that is fresh in each rig
	Certificates             // IKE, by certificates of an authority that is fresh in each rig
)

// Tunnels are those of the demo: IPv4 over IPv4 in raw ESP, IPv6 over IPv6 in UDP.
func Tunnels() []Tunnel {
	return []Tunnel{
		{"four", "aes256gcm16-esn", 36, false, GwA4, GwB4, []string{LANA4}, []string{LANB4}, 0x5a110401, 0x5a110402, Manual, false, "", [2]string{}, "", ""},
		{"six", "aes128gcm16-esn", 20, true, GwA6, GwB6, []string{LANA6}, []string{LANB6}, 0x5a110601, 0x5a110602, Manual, false, "", [2]string{}, "", ""},
	}
}

// Hosts are associations in transport mode, for the gateways' own traffic: negotiated over IPv4, with manual keys over IPv6.
func Hosts() []Tunnel {
	return []Tunnel{
		{"four", "", 0, false, GwA4, GwB4, nil, nil, 0, 0, Preshared, true, "", [2]string{}, "", ""},
		{"six", "aes256-sha256-esn", 64, false, GwA6, GwB6, nil, nil, 0x5a110601, 0x5a110602, Manual, true, "", [2]string{}, "", ""},
	}
}

// Signed are the tunnels of Tunnels, by AH: negotiated over IPv4, with manual keys over IPv6.
func Signed() []Tunnel {
	list := Tunnels()
	list[0].Keys, list[0].AH = Preshared, "sha256-x25519"
	list[1].Proposal, list[1].KeyBytes, list[1].Encap, list[1].AH = "", 20, false, "aes128gmac"
	return list
}

// Bundled are the tunnels of Tunnels with AH around ESP.
func Bundled() []Tunnel {
	list := Tunnels()
	for i := range list {
		list[i].Encap, list[i].AH = false, "sha256"
	}
	return list
}

// Routed are tunnels for whatever routes lead into their interfaces: negotiated, over IPv4 and in UDP over IPv6.
func Routed() []Tunnel {
	return []Tunnel{
		{Name: "first", Local: GwA4, Remote: GwB4, Keys: Preshared, Interface: "ipsec0", Addresses: [2]string{"203.0.113.1/30", "203.0.113.2/30"}},
		{Name: "second", Local: GwA6, Remote: GwB6, Encap: true, Keys: Preshared, Interface: "ipsec1", Addresses: [2]string{"203.0.113.5/30", "203.0.113.6/30"}},
	}
}

// Negotiated are the same tunnels with keys that the gateways agree on: by preshared key over IPv4, by certificates over
// IPv6, with the default proposals.
func Negotiated() []Tunnel {
	list := Tunnels()
	list[0].Keys, list[1].Keys = Preshared, Certificates
	return list
}

// Pair is two gateways with the same tunnels and keys. A change of its fields is in force
// after the next [Pair.Write] and reload.
type Pair struct {
	// PathTime is path_mtu_time of all tunnels, none if it is empty. Write writes it.
	PathTime string
	A, B     *Gateway
	Tunnels  []Tunnel
	// Extra is appended to the YAML file of gateway a (false) and b (true), such as "policies: [...]".
	Extra func(b bool) string

	keys    [][2][]byte // by tunnel: from a to b, from b to a
	around  [][2][]byte // the same of the AH around ESP
	secrets []string    // by tunnel: the preshared key
	folder  string
}

// NewPair writes the configurations of two gateways with fresh keys and a bpffs for
// their pins. bin is the folder of sallyportd and sallyport. Nothing runs yet.
func NewPair(n *Network, bin string, tunnels []Tunnel) (*Pair, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	folder, err := n.bed.Folder()
	if err != nil {
		return nil, err
	}
	// A bpffs of the rig's own, so that no pin can outlive it.
	pins := filepath.Join(folder, "bpf")
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a bpffs at %s: %w", pins, err)
	}
	gateway := func(name string, ns *testbed.Namespace) *Gateway {
		at := filepath.Join(folder, name)
		return &Gateway{Name: name, NS: ns, Socket: at + ".sock", Config: at + ".yaml", Log: at + ".log", Pins: filepath.Join(pins, name), bin: bin}
	}
	p := &Pair{A: gateway("gw-a", n.GwA), B: gateway("gw-b", n.GwB), Tunnels: tunnels, folder: folder}
	for range tunnels {
		p.secrets = append(p.secrets, rand.Text()+rand.Text())
	}
	for _, t := range tunnels {
		if t.Keys == Certificates {
			if err := p.certify(); err != nil {
				return nil, err
			}
			break
		}
	}
	return p, p.Rekey()
}

// Both returns a and b.
func (p *Pair) Both() []*Gateway { return []*Gateway{p.A, p.B} }

// Start starts both daemons and waits until both answer and hold all their associations. Gateway a begins negotiations,
// so that b is there first: its kernel would answer for it.
func (p *Pair) Start() error {
	if err := p.B.Launch(); err != nil {
		return err
	}
	if err := p.B.ready(15*time.Second, 0); err != nil {
		return err
	}
	if err := p.A.Launch(); err != nil {
		return err
	}
	return errors.Join(p.A.Ready(15*time.Second), p.B.Ready(15*time.Second))
}

// Rekey makes fresh random keys and writes both configurations. Manual keys must not live through
// a restart: the sequence numbers begin again with it. A running daemon keeps its
// keys until it reloads.
func (p *Pair) Rekey() error {
	p.keys, p.around = make([][2][]byte, len(p.Tunnels)), make([][2][]byte, len(p.Tunnels))
	for i, t := range p.Tunnels {
		for j := range p.keys[i] {
			p.keys[i][j], p.around[i][j] = make([]byte, t.KeyBytes), make([]byte, 32)
			rand.Read(p.keys[i][j])
			rand.Read(p.around[i][j])
		}
	}
	return p.Write()
}

// Write writes both configurations as the fields say.
func (p *Pair) Write() error {
	for i, g := range p.Both() {
		g.associations = 2 * len(p.Tunnels)
		text := p.configuration(g, i == 1)
		if p.Extra != nil {
			text = append(text, p.Extra(i == 1)...)
		}
		if err := os.WriteFile(g.Config, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configuration is the YAML of one gateway.
func (p *Pair) configuration(g *Gateway, mirrored bool) []byte {
	var b, manual, secrets bytes.Buffer
	fmt.Fprintf(&b, `instance: %s
control: {socket: %s}
workers: {count: 2}
dataplane: {pin_dir: %s}
interfaces:
  lan: {role: protected}
  wan: {role: outside}
`, g.Name, g.Socket, g.Pins)
	end := 0
	if mirrored {
		end = 1
	}
	for _, t := range p.Tunnels {
		if t.Interface != "" {
			fmt.Fprintf(&b, "  %s: {role: tunnel, addrs: %s, encapsulation: %s}\n", t.Interface, t.Addresses[end], cmp.Or(t.Encapsulation, "none"))
		}
	}
	b.WriteString("connections:\n")
	peer, starts := p.B, "start"
	if mirrored {
		peer, starts = p.A, "trap"
	}
	for i, t := range p.Tunnels {
		in, out, keyIn, keyOut := t.SPIBA, t.SPIAB, p.keys[i][1], p.keys[i][0]
		toA, toB := 1, 0
		if mirrored {
			in, out, keyIn, keyOut, toA, toB = out, in, keyOut, keyIn, toB, toA
			t.Local, t.Remote, t.LocalTS, t.RemoteTS = t.Remote, t.Local, t.RemoteTS, t.LocalTS
		}
		fmt.Fprintf(&b, "  %s:\n    local_addrs: %s\n    remote_addrs: %s\n    encap: %t\n", t.Name, t.Local, t.Remote, t.Encap)
		if p.PathTime != "" {
			fmt.Fprintf(&b, "    path_mtu_time: %s\n", p.PathTime)
		}
		how := "start_action: " + starts
		switch t.Keys {
		case Manual:
			how = "esp_proposals: " + t.Proposal
			if t.Proposal == "" {
				how = ""
			}
			around := ""
			if t.Proposal != "" && t.AH != "" {
				const more = 0x1000 // than the SPIs of ESP
				around = fmt.Sprintf(", ah: {spi_in: %#x, spi_out: %#x, key_in: \"%x\", key_out: \"%x\"}", in+more, out+more, p.around[i][toA], p.around[i][toB])
			}
			fmt.Fprintf(&manual, "  %s/net: {spi_in: %#x, spi_out: %#x, key_in: \"%x\", key_out: \"%x\"%s}\n", t.Name, in, out, keyIn, keyOut, around)
		case Preshared:
			fmt.Fprintf(&secrets, "  ike-%s: {id: [\"%s\", \"%s\"], secret: \"%s\"}\n", t.Name, t.Local, t.Remote, p.secrets[i])
		case Certificates:
			fmt.Fprintf(&b, "    local: {certs: [%s.crt], id: %s}\n", g.Name, nameOf(g))
			fmt.Fprintf(&b, "    remote: {cacerts: [ca.crt], id: %s}\n", nameOf(peer))
			if !bytes.Contains(secrets.Bytes(), []byte("private-gateway")) {
				fmt.Fprintf(&secrets, "  private-gateway: {file: %s.key}\n", g.Name)
			}
		}
		what := fmt.Sprintf("local_ts: [%s], remote_ts: [%s]", quoted(t.LocalTS), quoted(t.RemoteTS))
		if t.Transport {
			what = "mode: transport"
		}
		if t.Interface != "" {
			what = "interface: " + t.Interface
		}
		if t.AH != "" {
			what += ", ah_proposals: " + t.AH
		}
		fmt.Fprintf(&b, "    children:\n      net: {%s, %s}\n", what, how)
	}
	if manual.Len() > 0 {
		b.WriteString("insecure_manual_keys: true\nmanual:\n")
		b.Write(manual.Bytes())
	}
	if secrets.Len() > 0 {
		b.WriteString("secrets:\n")
		b.Write(secrets.Bytes())
	}
	return b.Bytes()
}

func quoted(list []string) string { return `"` + strings.Join(list, `", "`) + `"` }
