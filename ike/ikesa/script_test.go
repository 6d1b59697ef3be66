package ikesa

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/ike/suite"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print now as what they must print")

// TestScripts plays the stories in testdata. A story is prose (#), commands, a line
// of four hyphens and what the commands print, up to a blank line. Packets stay on
// the network until a command delivers them, so that every order can be told.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1)
	var got bytes.Buffer
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			if i < len(lines)-1 {
				fmt.Fprintln(&got, line)
			}
		case line == "----":
			fmt.Fprintln(&got, line)
			for i++; i < len(lines) && lines[i] != ""; i++ {
			}
			got.WriteString(w.log.String())
			w.log.Reset()
			fmt.Fprintln(&got)
		default:
			fmt.Fprintln(&got, line)
			if err := w.play(strings.Fields(line)); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
		}
	}
	w.idle()
	result := append(bytes.TrimRight(got.Bytes(), "\n"), '\n')
	if *rewrite {
		if err := os.WriteFile(file, result, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(result, text) {
		t.Errorf("%s prints something else; see it with -rewrite and a diff:\n%s", file, firstDifference(string(text), string(result)))
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		x, y := "(end)", "(end)"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, x, y)
		}
	}
	return ""
}

// play does one line of a script.
func (w *world) play(words []string) error {
	if h := w.hosts[words[0]]; h != nil {
		return h.play(words[1:])
	}
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "settle":
		w.settle()
	case "pass": // pass a [n]: the oldest packets of a arrive
		n := 1
		if arg(2) != "" {
			n, _ = strconv.Atoi(arg(2))
		}
		for range n {
			if !w.pass(arg(1)) {
				return fmt.Errorf("nothing of %s is on its way", arg(1))
			}
		}
	case "drop": // the oldest packet is lost
		p := w.take(arg(1))
		if p == nil {
			return fmt.Errorf("nothing of %s is on its way", arg(1))
		}
		fmt.Fprintf(&w.log, "lost: %s\n", w.describe(p))
	case "again": // the oldest packet arrives, and stays on the network to arrive again
		p := w.take(arg(1))
		fmt.Fprintln(&w.log, w.describe(p))
		w.net = append([]*packet{p}, w.net...)
		w.deliver(p)
	case "net":
		for _, p := range w.net {
			fmt.Fprintf(&w.log, "on its way: %s\n", w.describe(p))
		}
	case "time":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		w.advance(d)
	case "live": // time passes and packets arrive at once
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		w.advanceWith(d, w.settle)
	case "state":
		w.state()
	case "nat": // nat INSIDE OUTSIDE: a translator in front of a
		if w.nat == nil {
			w.nat = map[netip.AddrPort]netip.AddrPort{}
		}
		w.nat[netip.MustParseAddrPort(arg(1))] = netip.MustParseAddrPort(arg(2))
	case "dead": // nothing reaches this address any more
		if w.dead == nil {
			w.dead = map[netip.Addr]bool{}
		}
		w.dead[netip.MustParseAddr(arg(1))] = true
	case "mtu": // of the path, which drops without a word
		w.mtu, _ = strconv.Atoi(arg(1))
	case "mute": // what is said from here on is not shown
		w.log.Reset()
	default:
		return fmt.Errorf("unknown command %q", words[0])
	}
	return nil
}

// play does a command of one host.
func (h *host) play(words []string) error {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	childNamed := func(name string) *Child {
		for _, c := range h.conn.Children {
			if c.Name == name {
				return c
			}
		}
		return nil
	}
	switch words[0] {
	case "initiate":
		h.initiate(InitiatorOptions{Child: childNamed(arg(1))})
	case "initial-contact":
		h.initiate(InitiatorOptions{InitialContact: true})
	case "child": // a new child
		h.command(AddChild{childNamed(arg(1))})
	case "rekey":
		if arg(1) == "ike" {
			h.command(RekeyIKE{})
		} else {
			h.command(RekeyChild{h.childByName(arg(1))})
		}
	case "delete":
		if arg(1) == "ike" {
			h.command(DeleteIKE{})
		} else {
			h.command(DeleteChild{SPI: h.childByName(arg(1))})
		}
	case "reauth":
		h.command(Reauth{})
	case "path-doubted":
		h.command(PathDoubted{})
	case "link": // MTU of its link
		h.link, _ = strconv.Atoi(arg(1))
	case "liveness":
		h.command(Liveness{})
	case "move":
		to := netip.MustParseAddrPort(arg(1))
		h.addr = to.Addr()
		h.command(Moved{Local: to})
	case "peer-moved":
		h.command(PeerMoved{SPI: h.childByName("net"), From: netip.MustParseAddrPort(arg(1))})
	case "expired":
		h.command(ChildExpired{SPI: h.childByName(arg(1)), Hard: arg(2) == "hard"})
	case "verified":
		v := h.verify[0]
		h.verify = h.verify[1:]
		var err error
		if arg(1) != "" {
			err = fmt.Errorf("%s", arg(1))
		}
		for _, s := range h.sorted() {
			h.drive(s, func(out *Outputs) { s.Verified(h.w.now, v.ID, err, out) })
		}
	case "nonce": // the first byte of this host's nonces
		n, err := strconv.ParseUint(arg(1), 16, 8)
		if err != nil {
			return err
		}
		h.first = int(n)
	case "conf":
		return h.configure(words[1:])
	default:
		return fmt.Errorf("unknown command %q", words[0])
	}
	return nil
}

// configure changes a host's connection before an SA is made with it.
func (h *host) configure(words []string) error {
	c, child := h.conn, h.conn.Children[0]
	duration := func(i int) time.Duration {
		d, err := time.ParseDuration(words[i])
		if err != nil {
			h.w.t.Fatal(err)
		}
		return d
	}
	selectors := func(list []string) (all []Selector) {
		for _, s := range list {
			all = append(all, prefixSelector(s))
		}
		return all
	}
	switch words[0] {
	case "ike":
		c.Proposals = proposalsIKE(h.w.t, words[1:]...)
	case "esp":
		child.Proposals = proposalsESP(h.w.t, words[1:]...)
	case "ah":
		all, err := suite.ParseList(words[1:], suite.ParseAH, nil)
		if err != nil {
			return err
		}
		child.Proposals = all
	case "local-ts":
		child.LocalTS = selectors(words[1:])
	case "remote-ts":
		child.RemoteTS = selectors(words[1:])
	case "add-child": // NAME LOCAL REMOTE
		c.Children = append(c.Children, &Child{Name: words[1], Proposals: child.Proposals, LocalTS: selectors(words[2:3]), RemoteTS: selectors(words[3:4])})
	case "transport":
		child.Mode = Transport
	case "rekey-time":
		child.RekeyTime = duration(1)
	case "life-time":
		child.LifeTime = duration(1)
	case "inactivity":
		child.Inactivity = duration(1)
	case "ike-rekey-time":
		c.RekeyTime = duration(1)
	case "reauth-time":
		c.ReauthTime = duration(1)
	case "path-time":
		c.PathTime = duration(1)
	case "dpd":
		c.DPDDelay = duration(1)
	case "keepalive":
		c.Keepalive = duration(1)
	case "local-addrs":
		for _, addr := range words[1:] {
			c.LocalAddrs = append(c.LocalAddrs, Address{Prefix: netip.MustParsePrefix(addr)})
		}
	case "mobike":
		c.MOBIKE = true
	case "encap":
		c.Encap = true
	case "fragment":
		c.FragmentSize, _ = strconv.Atoi(words[1])
	case "fragmentation-no":
		c.Fragmentation = FragmentationNo
	case "vip":
		c.VIPs = nil
		for _, v := range words[1:] {
			c.VIPs = append(c.VIPs, netip.MustParseAddr(v))
		}
	case "pool":
		c.Pools = words[1:]
	case "childless":
		c.Childless = map[string]Childless{"allow": ChildlessAllow, "prefer": ChildlessPrefer, "force": ChildlessForce, "never": ChildlessNever}[words[1]]
	case "id":
		c.Local.ID = testID(words[1])
	case "psk":
		h.store = testStoreWith(words[1])
	case "v6":
		h.addr = netip.MustParseAddr(words[1])
	default:
		return fmt.Errorf("unknown setting %q", words[0])
	}
	return nil
}
