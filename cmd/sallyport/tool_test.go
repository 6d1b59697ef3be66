package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"sallyport/cmd/internal/control"
	"sallyport/dataplane/keeper"
	"sallyport/tools/testbed"
)

var (
	update = flag.Bool("update", false, "rewrite the golden views")
	// serveAt makes the test binary a fake daemon to look at the viewer by hand: sallyport.test -serve /tmp/x.sock
	serveAt = flag.String("serve", "", "serve fake figures on this socket until killed")
)

// fakeDaemon gives figures that grow by n each reading.
type fakeDaemon struct{ start time.Time }

func (f fakeDaemon) step() uint64 { return uint64(time.Since(f.start)/time.Millisecond) + 1 }

func (f fakeDaemon) Status() control.Status          { return figures(f.step()).status }
func (f fakeDaemon) Counters() control.Counters      { return figures(f.step()).counters }
func (f fakeDaemon) SAs(control.SAQuery) control.SAs { return figures(f.step()).sas }
func (f fakeDaemon) Connections() control.Connections {
	return control.Connections{Connections: []control.Connection{{Name: "site-b", Children: []control.ConnectionChild{{Name: "net"}}}}}
}
func (f fakeDaemon) Up(ctx context.Context, name string) error {
	if name == "slow" {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}
func (f fakeDaemon) Down(context.Context, string) error  { return errors.New("no such connection") }
func (f fakeDaemon) Rekey(context.Context, string) error { return nil }

func (f fakeDaemon) Trace(_ context.Context, w control.Watch, each func(*control.Traced) error) error {
	for range w.Packets {
		if err := each(&traced); err != nil {
			return err
		}
	}
	return nil
}

func (f fakeDaemon) Capture(_ context.Context, w control.Watch, ready func() error, out io.Writer) error {
	if w.Name != "" {
		return errors.New("no such connection")
	}
	if err := ready(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "pcapng of %d", w.Packets)
	return err
}

func (f fakeDaemon) Recorder(q control.FlightQuery) (control.Flights, error) {
	if q.Name != "site-b" {
		return control.Flights{}, errors.New("no association has this name or SPI: " + q.Name)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	return control.Flights{Flights: []control.Flight{{
		Name: "site-b/net", Direction: "in", SPI: "0x00001001", Time: at, Burst: "replayed", Ended: true, Passed: 7, Dropped: 100,
		Packets: []control.FlightPacket{
			{Time: at, Sequence: 41, Source: "198.51.100.200", Destination: "198.51.100.5", Protocol: 17, SourcePort: 53, DestPort: 4000, Length: 100, TTL: 63},
			{Time: at, Sequence: 41, Outer: true, Source: "192.0.2.2", Destination: "192.0.2.1", Protocol: 50, Length: 156, TTL: 64, Drop: "replayed"},
		},
	}}}, nil
}

func (f fakeDaemon) Policies() control.Policies {
	return control.Policies{Unmatched: "forward", Policies: []control.Policy{{Name: "site-b/net", Action: "protect", LocalTS: []string{"198.51.100.0/25"}, RemoteTS: []string{"198.51.100.128/25"}, Ready: true}}}
}
func (f fakeDaemon) Reload() (control.Reload, error) {
	return control.Reload{}, errors.New("nothing was changed:\nx.yaml:3:1: unknown key")
}

// figures returns every value of the viewer after n milliseconds.
func figures(n uint64) sample {
	var s sample
	s.status = control.Status{Version: "test", Instance: "default", UptimeSeconds: float64(n / 1000), ManualKeys: 40}
	for w := range 2 {
		k := uint64(w + 1)
		s.status.Workers = append(s.status.Workers, control.Worker{Worker: w, Core: w + 2, Busy: 0.25 * float64(k), PacketsIn: 300 * n * k, BytesIn: 420000 * n * k, PacketsOut: 299 * n * k, BytesOut: 440000 * n * k, Drops: n, FramesFree: 4096, Handovers: 10 * n})
	}
	s.status.Ports = []control.Port{{Name: "eth1", Role: "outside", Mode: "copy", Reason: "veth has no zero-copy", MTU: 1500, Up: true, Queues: []control.Queue{{}, {Queue: 1, Worker: 1}}}}
	s.counters = control.Counters{
		Totals: control.Totals{Received: 900 * n, Sent: 897 * n, Dropped: 3 * n, BytesIn: 1260000 * n, BytesOut: 1320000 * n},
		Drops:  []control.Drop{{Name: "replayed", Severity: "attack", Packets: 2 * n, Sentence: "The sequence number was received before.", Source: "RFC 4303, 3.4.3"}, {Name: "no-route", Severity: "warning", Packets: n, Sentence: "No route to the destination."}, {Name: "runt", Severity: "attack", Sentence: "Short."}},
		XDP:    []control.Named{{Name: "pass", Value: n}}, Ports: s.status.Ports,
		IKE: control.IKE{SAs: 20, HalfOpen: 1, Received: 4 * n, Sent: 4 * n, Established: n, Rekeyed: n, ChildrenRekeyed: 2 * n, Exchanges: []control.Exchanges{{Name: "IKE_AUTH", Done: n, Failed: 2}}},
	}
	for i := range 40 {
		direction := "in"
		if i%2 == 1 {
			direction = "out"
		}
		s.sas.SAs = append(s.sas.SAs, control.SA{Name: fmt.Sprintf("site-%02d/net", i/2), Direction: direction, SPI: fmt.Sprintf("0x%08x", 0x1000+i), Suite: "aes256gcm16", ESN: true, Worker: i % 2, Packets: uint64(i) * n, Bytes: uint64(i) * 1400 * n, Manual: true, Window: 4096, Local: "192.0.2.1", Remote: "192.0.2.2"})
	}
	s.sas.Total = 40
	for i := range 20 {
		s.sas.IKESAs = append(s.sas.IKESAs, control.IKESA{
			Name: fmt.Sprintf("site-%02d", i), Number: uint64(i), State: "established", RemoteID: fmt.Sprintf("gw-%d.example", i), EstablishedAt: time.Unix(int64(i), 0), RekeyAt: time.Unix(14000, 0),
			Proposal: "aes256gcm16-prfsha384-x25519-ke1_mlkem768", Children: make([]control.ChildSA, 1),
		})
	}
	return s
}

func viewer(width, height int) model {
	m := model{interval: time.Second, width: width, height: height, plain: true, fetch: func() sample { return figures(1) }}
	first, second := figures(1000), figures(2000)
	first.at = time.Unix(100, 0)
	second.at = time.Unix(101, 0)
	return m.take(first).take(second)
}

func press(m model, keys ...string) model {
	for _, k := range keys {
		var msg tea.KeyPressMsg
		switch k {
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		default:
			msg = tea.KeyPressMsg{Code: rune(k[0]), Text: k}
		}
		next, _ := m.Update(msg)
		m = next.(model)
	}
	return m
}

func TestTopFitsTheTerminal(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		keys          []string
	}{
		{"associations-80x24", 80, 24, nil},
		{"workers-80x24", 80, 24, []string{"tab"}},
		{"drops-80x24", 80, 24, []string{"3", "s"}},
		{"associations-120x40", 120, 40, []string{"s", "down"}},
		{"ike-120x24", 120, 24, []string{"4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := press(viewer(c.width, c.height), c.keys...).render()
			lines := strings.Split(got, "\n")
			if len(lines) != c.height {
				t.Errorf("%d lines", len(lines))
			}
			for i, l := range lines {
				if n := len([]rune(l)); n > c.width {
					t.Errorf("line %d has %d columns: %s", i, n, l)
				}
			}
			path := filepath.Join("testdata", c.name+".txt")
			if *update {
				os.MkdirAll("testdata", 0o755)
				os.WriteFile(path, []byte(got+"\n"), 0o644)
			}
			want, err := os.ReadFile(path)
			if err != nil || got+"\n" != string(want) {
				t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

func TestSparklineIsScaledToItsLargest(t *testing.T) {
	for _, c := range []struct {
		history []float64
		width   int
		want    string
	}{
		{nil, 10, ""}, {[]float64{0, 0}, 10, "▁▁"}, {[]float64{0, 1, 2, 4, 8}, 10, "▁▂▃▅█"}, {[]float64{9, 0, 8}, 2, "▁█"}, {[]float64{1}, -3, ""},
	} {
		if got := sparkline(c.history, c.width); got != c.want {
			t.Errorf("%v in %d: %q, want %q", c.history, c.width, got, c.want)
		}
	}
	m := viewer(80, 24)
	for i := range 2 * historyMax {
		s := figures(uint64(3000 + i))
		s.at = time.Unix(int64(102+i), 0)
		m = m.take(s)
	}
	if len(m.in) != historyMax || len(m.out) != historyMax {
		t.Errorf("%d and %d intervals are kept", len(m.in), len(m.out))
	}
}

func TestEmptyTablesSaySo(t *testing.T) {
	m := model{width: 80, height: 10, plain: true}
	for m.tab = range tabCount {
		if text := m.render(); !strings.Contains(text, emptyTables[m.tab]) {
			t.Errorf("%s:\n%s", tabNames[m.tab], text)
		}
	}
}

func TestTopResizesPausesAndSurvivesErrors(t *testing.T) {
	for w := range 100 {
		m, _ := viewer(80, 24).Update(tea.WindowSizeMsg{Width: w, Height: w / 4})
		if n := strings.Count(m.(model).render(), "\n") + 1; n > max(1, w/4) && w/4 > 0 {
			t.Errorf("%d lines at height %d", n, w/4)
		}
	}
	m := press(viewer(80, 24), "p")
	before := m.now.at
	next, _ := m.Update(figures(3000))
	if next.(model).now.at != before || !strings.Contains(m.render(), "PAUSED") {
		t.Error("a paused viewer moved on")
	}
	next, _ = viewer(80, 24).Update(sample{err: errors.New("gone\nfor good")})
	if text := next.(model).render(); !strings.Contains(text, "gone for good") || !strings.Contains(text, "site-19/net") {
		t.Errorf("after an error:\n%s", text)
	}
}

func fakeServer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := control.Listen(path, "", fakeDaemon{time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return path
}

func cli(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestVerbsPrintTextAndJSON(t *testing.T) {
	path := fakeServer(t)
	for _, c := range []struct{ verb, want string }{
		{"status", "MANUAL KEYS"}, {"sas", "MANUAL KEYS"}, {"policies", "everything else: forward"}, {"counters", "received before"},
	} {
		if code, out, errs := cli(c.verb, "--socket", path); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s %s", c.verb, code, out, errs)
		}
		code, out, _ := cli(c.verb, "--socket", path, "--json")
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("%s --json: %d %s", c.verb, code, out)
		}
	}
	if code, out, errs := cli("recorder", "site-b", "--socket", path); code != 0 ||
		!strings.Contains(out, "site-b/net in  spi 0x00001001, kept at 03:04:05, when a burst of replayed began, ended; 7 that passed recorded, 100 dropped\n") ||
		!strings.Contains(out, "inner 198.51.100.200:53 > 198.51.100.5:4000, protocol 17, 100 bytes, TTL 63, sequence 41  passed\n") ||
		!strings.Contains(out, "outer 192.0.2.2 > 192.0.2.1, protocol 50, 156 bytes, TTL 64, sequence 41  dropped: replayed\n") {
		t.Errorf("recorder: %d %s %s", code, out, errs)
	}
	if code, out, _ := cli("recorder", "site-b", "--socket", path, "--json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("recorder --json: %d %s", code, out)
	}
	if code, _, errs := cli("recorder", "0x1", "--socket", path); code != exitFailed || !strings.Contains(errs, "no association") {
		t.Errorf("recorder: %d %s", code, errs)
	}
	if _, out, _ := cli("counters", "--socket", path); strings.Contains(out, "runt") {
		t.Error("zeros are shown without --all")
	}
	if _, out, _ := cli("counters", "--socket", path, "--all"); !strings.Contains(out, "runt") {
		t.Error("zeros are missing with --all")
	}
	if code, _, errs := cli("reload", "--socket", path); code != exitFailed || !strings.Contains(errs, "x.yaml:3:1") {
		t.Errorf("reload: %d %s", code, errs)
	}
	if code, out, _ := cli("top", "--once", "--interval", "100ms", "--socket", path); code != 0 || !strings.Contains(out, "replayed") || strings.Contains(out, "\x1b") {
		t.Errorf("top --once: %d %s", code, out)
	}
}

func TestErrorsHaveExitCodesAndHelp(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	os.WriteFile(bad, []byte("interface: {}\n"), 0o600)
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUnreachable, "cannot reach sallyportd at /nonexistent/s.sock: is it running?", []string{"status", "--socket", "/nonexistent/s.sock"}},
		{exitUsage, "unknown command", []string{"statsu"}},
		{exitUsage, "unknown flag", []string{"status", "--jsno"}},
		{exitUsage, `did you mean "interfaces"?`, []string{"check", bad}},
		{exitUsage, "check takes one file", []string{"check"}},
		{exitUsage, "recorder takes one name or SPI", []string{"recorder"}},
		{0, "", []string{"check", "../sallyportd/sallyport.example.yaml"}},
		{0, "", []string{"version", "--json"}},
	} {
		if c.args[0] == "check" && c.code == 0 {
			private := filepath.Join(t.TempDir(), "example.yaml")
			text, _ := os.ReadFile(c.args[1])
			os.WriteFile(private, text, 0o600)
			c.args[1] = private
		}
		if code, _, errs := cli(c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, errs)
		}
	}
}

// What a file's children may agree on is shown with its level, whatever is weak with a warning.
func TestCheckNamesSuitesByLevel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	text := `interfaces: {eth1: {role: protected}, eth2: {role: outside}}
connections:
  site-b:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.2
    children: {net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25, esp_proposals: %s}}
secrets: {ike-site-b: {id: 192.0.2.2, secret: "c29tZSBsb25nIHNlY3JldCBmb3IgYSB0ZXN0IG9mIHRoZSB0b29s"}}
`
	for _, c := range []struct {
		proposals string
		want      []string
	}{
		{"default", []string{
			"  ESP, MUST by RFC 8221: aes256gcm16, aes128gcm16, aes256-sha256, aes128-sha256\n",
			"  ESP, SHOULD by RFC 8221: chacha20poly1305, aes256-sha512, aes128-sha512\n",
			"  ESP, MAY by RFC 8221: aes256-sha384, aes128-sha384\n",
		}},
		{"[aes256gcm12, null-sha256]", []string{
			"warning: FILE:6:79: connections.site-b.children.net.esp_proposals: null-sha256 does not encrypt",
			"  ESP, MUST by RFC 8221: null-sha256\n  ESP, MAY by RFC 8221: aes256gcm12\n",
		}},
		{"aes128gcm8", []string{"aes128gcm16 has a whole one"}},
		{"aes256gmac", []string{"aes256gmac does not encrypt"}},
	} {
		os.WriteFile(file, fmt.Appendf(nil, text, c.proposals), 0o600)
		code, out, errs := cli("check", file)
		for _, want := range c.want {
			if want = strings.ReplaceAll(want, "FILE", file); code != 0 || !strings.Contains(out, want) {
				t.Errorf("%s: exit %d, %q is not in\n%s%s", c.proposals, code, want, out, errs)
			}
		}
		if n := strings.Count(out, "warning"); n != strings.Count(strings.Join(c.want, ""), "warning") && n != 1 {
			t.Errorf("%s: %d warnings\n%s", c.proposals, n, out)
		}
	}
}

func TestDoctorNamesFaultsAndFixes(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
		os.WriteFile(filepath.Join(root, path), []byte(text), 0o644)
	}
	write("proc/sys/kernel/osrelease", "6.17.3-test\n")
	write("proc/self/limits", "Max locked memory         8388608              8388608              bytes\n")
	write("proc/self/status", "CapEff:\t0000000000000000\n")
	write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n")
	write("proc/sys/net/ipv4/conf/eth1/rp_filter", "0\n")
	h := host{root, func(string) (map[string]bool, error) { return map[string]bool{"rx-lro": true}, nil }}
	s := figures(1).status
	s.Workers = []control.Worker{{Worker: 0, Core: -1}, {Worker: 1, Core: -1}, {Worker: 2, Core: -1}}
	s.Ports = append(s.Ports, control.Port{Name: "sp-default", Role: "kernel", Mode: "tun", Up: true})
	text := fmt.Sprint(h.examine(&s, nil))
	for _, want := range []string{"CVE-2025-40290", "8 MiB", "lacks CAP_NET_ADMIN", "ethtool -K eth1 lro off", "ethtool -L eth1 combined 3", "not bound to cores", "veth has no zero-copy", "does not pass nftables", "nr_hugepages", "net.ipv4.conf.eth1.rp_filter=2"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	if strings.Contains(text, "sp-default") {
		t.Errorf("the TUN device is judged like a card: %s", text)
	}
	write("proc/sys/net/ipv4/conf/eth1/rp_filter", "2\n") // loose, whatever the other says
	if text := fmt.Sprint(h.examine(&s, nil)); strings.Contains(text, "rp_filter") {
		t.Errorf("a loose filter is complained of: %s", text)
	}
	for release, result := range map[string]string{"6.18.0": "ok", "6.6.1": "ok", "6.5.9": "fail", "5.15.0-1-amd64": "fail", "6.17.10": "fail", "6.17.11": "ok", "7.0.0": "ok"} {
		if f := kernelVersion(release); f.Result != result {
			t.Errorf("%s: %+v", release, f)
		}
	}
	if text := fmt.Sprint(h.examine(nil, errors.New("nobody there"))); !strings.Contains(text, "nobody there") || !strings.Contains(text, "mount -t bpf") {
		t.Error("without a daemon")
	}
}

func TestDetachOnlyTouchesBPFFilesystems(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "keep"), nil, 0o600)
	code, _, errs := cli("detach", "--socket", "/nonexistent/s.sock", "--pin-dir", dir)
	if _, err := os.Stat(filepath.Join(dir, "keep")); err != nil || code == 0 || !strings.Contains(errs, "not inside a bpffs") {
		t.Errorf("%d %s %v", code, errs, err)
	}
	if code, _, errs := cli("detach", "--socket", fakeServer(t), "--pin-dir", dir); code == 0 || !strings.Contains(errs, "stop it first") {
		t.Errorf("under a daemon: %d %s", code, errs)
	}
}

func TestDetachOpensOnlyWhatNoDaemonUses(t *testing.T) {
	testbed.Thread(t)
	k, err := keeper.NewLocal()
	testbed.Must(t, err)
	defer k.Close()
	tun, err := k.OpenTUN("spd0", 1400)
	testbed.Must(t, err)
	remote := netip.MustParsePrefix("198.51.100.128/25")
	testbed.Must(t, k.ReconcileRoutes([]keeper.Route{keeper.Fence(remote), keeper.Through(remote, tun.Name, netip.Addr{})}))
	detach := func() (int, string) {
		code, out, errs := cli("detach", "--socket", "/nonexistent/s.sock", "--pin-dir", filepath.Join(t.TempDir(), "none"))
		return code, out + errs
	}
	if code, text := detach(); code == 0 || !strings.Contains(text, "a daemon runs in this network namespace") {
		t.Errorf("beside a daemon with another socket: %d %s", code, text)
	}
	tun.File.Close()
	testbed.Eventually(t, "the device is gone", func() bool { _, err := net.InterfaceByName("spd0"); return err != nil })
	if routes, err := k.Routes(); err != nil || len(routes) != 1 {
		t.Fatalf("routes %v, %v", routes, err)
	}
	if code, text := detach(); code != 0 || !strings.Contains(text, "removed 1 fence route from") {
		t.Errorf("without a daemon: %d %s", code, text)
	}
	if routes, err := k.Routes(); err != nil || len(routes) != 0 {
		t.Errorf("routes %v, %v are left", routes, err)
	}
}

// TestMain serves the fake daemon instead of running tests if -serve is given.
func TestMain(m *testing.M) {
	flag.Parse()
	if *serveAt == "" {
		os.Exit(m.Run())
	}
	if _, err := control.Listen(*serveAt, "", fakeDaemon{time.Now()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// Whoever knows swanctl --list-sas finds everything in the same order.
func TestIKESAsReadLikeSwanctl(t *testing.T) {
	var out bytes.Buffer
	now := time.Now()
	(&tool{out: &out}).ikeSA(&control.IKESA{
		Name: "site-b", Number: 3, State: "established", Version: 2, Initiator: true, InitiatorSPI: "1122334455667788", ResponderSPI: "99aabbccddeeff00",
		LocalID: "gw-a.example", LocalHost: "192.0.2.1", LocalPort: 4500, RemoteID: "gw-b.example", RemoteHost: "192.0.2.2", RemotePort: 4500, NATRemote: true,
		RemoteVIPs: []string{"198.18.0.1"}, Proposal: "aes256gcm16-prfsha384-x25519-ke1_mlkem768", EstablishedAt: now.Add(-10 * time.Second), RekeyAt: now.Add(13000 * time.Second),
		MOBIKE: true, Fragmentation: true, PathProbing: "on", Queued: 1, Waiting: true, Children: []control.ChildSA{{
			Name: "net", Number: 5, Tunnel: 1, State: "installed", Mode: "tunnel", Protocol: "ESP", Encap: "udp", Proposal: "aes256gcm16-esn",
			InstalledAt: now.Add(-9 * time.Second), RekeyAt: now.Add(3000 * time.Second), ExpireAt: now.Add(3900 * time.Second),
			In: control.Direction{SPI: "c1234567", Bytes: 840, Packets: 10, LastUsed: now.Add(-2 * time.Second), Sequence: 12, Window: 4096, Worker: 1, Drops: []control.Drop{{Name: "replayed", Packets: 2}}},
			Out: control.Direction{
				SPI: "c7654321", Bytes: 700, Packets: 8, Worker: -1, Terms: []string{"limit 1000 packets/s, burst 100ms", "padded to 700 bytes"}, Drops: []control.Drop{{Name: "too-big", Packets: 3}},
				Volume: control.Volume{RekeyBytes: 1000, LifeBytes: 1100, LifePackets: 7, SequenceLeft: 100},
				Path:   control.Path{MTU: 1480, InnerMTU: 1338, PathMTU: 1400, PathMTUProbed: true, PathMTUAt: now.Add(-5 * time.Second), PathMTUUntil: now.Add(600 * time.Second), Fragmented: 4, FragmentedESP: 5},
			},
			Interface: "gre1", Encapsulation: "gre key 7", LocalTS: []string{"198.51.100.0/25"}, RemoteTS: []string{"198.51.100.128/25"},
		}},
	}, now)
	want := `site-b: #3, ESTABLISHED, IKEv2, 1122334455667788_i* 99aabbccddeeff00_r
  local  'gw-a.example' @ 192.0.2.1[4500]
  remote 'gw-b.example' @ 192.0.2.2[4500] [198.18.0.1] behind NAT
  aes256gcm16-prfsha384-x25519-ke1_mlkem768
  established 10s ago, rekeying in 13000s
  active: 1, queued: 1
  MOBIKE on, fragmentation on, path MTU probing on, IKE worker 0
  net: #5, reqid 1, INSTALLED, TUNNEL-in-UDP, ESP:aes256gcm16-esn
    installed 9s ago, rekeying in 3000s, expires in 3900s
    in  c1234567,    840 bytes,    10 packets,     2s ago; sequence 12, worker 1, window 4096, drops 2 (replayed 2)
    out c7654321,    700 bytes,     8 packets; sequence 0, worker none, drops 3 (too-big 3)
        packets up to 1338 bytes, MTU 1480 as configured, path MTU 1400 probed 5s ago, forgotten in 600s, 4 cut up before encryption, 5 cut up after encryption
        rekeying after 300 more bytes, ends after 400 more bytes, ends after 0 more packets, 100 sequence numbers left
        limit 1000 packets/s, burst 100ms, padded to 700 bytes
    interface gre1, packets in gre key 7
    local  198.51.100.0/25
    remote 198.51.100.128/25
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// traced is what the fake daemon traces: a replay, and what is handed over.
var traced = func() control.Traced {
	at, to := time.Unix(100, 0), 1
	return control.Traced{Worker: 0, Steps: []control.TraceStep{
		{Stage: "take", Time: at, Interface: "wan", Length: 130},
		{Stage: "classify", Time: at.Add(1500), Interface: "wan", Length: 130, Class: "inbound", Source: "192.0.2.1", Destination: "192.0.2.2", Protocol: 50, SPI: "0x00001001", TTL: 64, Association: "site-b/net"},
		{Stage: "open", Time: at.Add(2500), Interface: "wan", Length: 130, Class: "inbound", Drop: "replayed", SPI: "0x00001001", Sequence: 7, Window: 4096, Highest: 9, Association: "site-b/net"},
		{Stage: "send", Time: at.Add(3500), Interface: "lan", Length: 60, ToWorker: &to},
	}}
}()

func TestTraceReadsAsSentences(t *testing.T) {
	path := fakeServer(t)
	code, out, errs := cli("trace", "add", "2", "conn=site-b", "proto=esp", "--socket", path)
	for _, want := range []string{
		"packet 1, worker 0, ", "packet 2, ", "from wan, 130 bytes",
		"classify    +1.5 µs  inbound, 192.0.2.1 > 192.0.2.2 esp, association site-b/net, SPI 0x00001001, TTL 64\n",
		"DROP replayed, sequence 7, window 4096, highest 9", "handed to worker 1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing: %d %s\n%s", want, code, errs, out)
		}
	}
	code, out, _ = cli("trace", "add", "1", "--json", "--socket", path)
	if code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("--json: %d %s", code, out)
	}
	for _, args := range [][]string{
		{"trace", "add"}, {"trace", "add", "many"}, {"trace", "add", "0"}, {"trace", "add", "1", "site-b"}, {"trace", "add", "1", "net=x"},
		{"trace", "add", "1", "port=0"}, {"trace", "add", "1", "proto=esq"}, {"capture"}, {"capture", "-w", "-", "host="},
	} {
		if code, out, errs := cli(append(args, "--socket", path)...); code != exitUsage || errs == "" {
			t.Errorf("%v: %d %s %s", args, code, out, errs)
		}
	}
}

func TestCaptureGoesToAFileOfItsOwner(t *testing.T) {
	path, file := fakeServer(t), filepath.Join(t.TempDir(), "x.pcapng")
	if code, out, errs := cli("capture", "-w", file, "-c", "3", "--socket", path); code != 0 || !strings.Contains(out, "11 bytes") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	text, _ := os.ReadFile(file)
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || string(text) != "pcapng of 3" {
		t.Errorf("%v %v %q", info.Mode(), err, text)
	}
	if code, out, _ := cli("capture", "-w", "-", "--socket", path); code != 0 || out != "pcapng of 0" {
		t.Errorf("%d %q", code, out)
	}
	if code, _, errs := cli("capture", "-w", "-", "conn=x", "--socket", path); code != exitFailed || !strings.Contains(errs, "no such connection") {
		t.Errorf("%d %s", code, errs)
	}
}
