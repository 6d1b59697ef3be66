package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

const examplePath = "../../sallyportd/sallyport.example.yaml"

func load(t testing.TB, text string) (*Config, error) {
	t.Helper()
	return parse("test.yaml", []byte(text), 0o600, func(path string) ([]byte, os.FileMode, error) { return nil, 0, os.ErrNotExist })
}

func mustLoad(t testing.TB, text string) *Config {
	t.Helper()
	c, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tenLines is the promise of the README: a tunnel is ten lines with safe defaults.
const tenLines = `interfaces:
  eth1: {role: protected}
  eth2: {role: outside}
connections:
  site-b:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.2
    children:
      net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}
`

const manualKeys = tenLines + `insecure_manual_keys: true
manual:
  site-b/net:
    spi_in: 0x1001
    spi_out: 0x1002
    key_in: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
    key_out: 303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f50515253
`

func TestTenLinesMakeATunnelWithSafeDefaults(t *testing.T) {
	if n := strings.Count(tenLines, "\n"); n > 10 {
		t.Fatalf("%d lines", n)
	}
	c := mustLoad(t, tenLines)
	child := c.File.Connections[0].Children[0]
	if child.ReplayWindow != 4096 || len(child.ESPProposals) != 0 || child.CopyDSCP != "out" || !child.CopyDF || !child.CopyECN || !c.File.Dataplane.MSSClamp {
		t.Errorf("defaults: %+v", child)
	}
	if len(c.Policies) != 1 || c.Policies[0].Tunnel != "site-b/net" || c.Policies[0].Action != spd.Protect {
		t.Errorf("policies: %+v", c.Policies)
	}
	if len(c.Fences) != 1 || c.Fences[0].String() != "198.51.100.128/25" {
		t.Errorf("fences: %v", c.Fences)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Text, "no keys") {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestExampleLoadsAndShowsEveryKey(t *testing.T) {
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(examplePath, text, 0o600, readChecked)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Associations) != 2 || len(c.Policies) != 3 || len(c.Warnings) != 0 {
		t.Errorf("%d associations, %d policies, warnings %v", len(c.Associations), len(c.Policies), c.Warnings)
	}
	for key := range schemaKeys(reflect.TypeFor[File](), map[string]bool{}) {
		if !regexp.MustCompile(`(?m)(^|[\s{,#-])` + key + `:`).Match(text) {
			t.Errorf("the example does not show the key %q", key)
		}
	}
	// Every default the example states is the default.
	var d File = defaults()
	if c.File.Workers.Batch != d.Workers.Batch || c.File.Workers.Spin != d.Workers.Spin || c.File.Log != d.Log || c.File.Dataplane.Associations != d.Dataplane.Associations || c.File.Dataplane.RingSize != d.Dataplane.RingSize {
		t.Errorf("example states other defaults than the schema: %+v", c.File)
	}
}

func schemaKeys(t reflect.Type, out map[string]bool) map[string]bool {
	switch t.Kind() {
	case reflect.Slice:
		schemaKeys(t.Elem(), out)
	case reflect.Struct:
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
				if tag != ",key" {
					out[tag] = true
				}
				schemaKeys(t.Field(i).Type, out)
			}
		}
	}
	return out
}

// Every fault is one error with its place and what to do.
func TestFaultsAreNamedWithTheirPlace(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(manualKeys, old) {
			t.Fatalf("the base text lacks %q", old)
		}
		return strings.Replace(manualKeys, old, new, 1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", replace("remote_addrs:", "remote_addr:"), `test.yaml:7:5: unknown key "remote_addr" in connections.site-b: did you mean "remote_addrs"?`},
		{"unknown top key", "interface: {}\n" + tenLines, `test.yaml:1:1: unknown key "interface" here: did you mean "interfaces"?`},
		{"duplicate key", tenLines + "interfaces: {}\n", `test.yaml:10:1:`},
		{"duplicate nested", replace("    remote_addrs: 192.0.2.2\n", "    local_addrs: 192.0.2.3\n"), `test.yaml:7:5:`},
		{"wrong type", "workers: {batch: many}\n" + tenLines, `test.yaml:1:18: workers.batch: expected a whole number, got text`},
		{"bool", replace("insecure_manual_keys: true", "insecure_manual_keys: yes please"), `expected true or false`},
		{"bad address", replace("192.0.2.1", "192.0.2.256"), `test.yaml:6:18: connections.site-b.local_addrs: "192.0.2.256" is not an IP address`},
		{"same endpoints", replace("192.0.2.1", "192.0.2.2"), `the same address`},
		{"families", replace("192.0.2.1", `"2001:db8::1"`), `different families`},
		{"host bits", replace("198.51.100.0/25", "198.51.100.1/25"), `has host bits set; did you mean 198.51.100.0/25?`},
		{"no agreement", replace("198.51.100.0/25", `"2001:db8::/64"`), `agree in address family and protocol`},
		{"dynamic", replace("198.51.100.0/25", `dynamic`), `dynamic needs IKE`},
		{"suite", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, esp_proposals: aes256gcm61-esn"), `did you mean "aes256gcm16"?`},
		{"protocol", replace("198.51.100.0/25", `"198.51.100.0/25[tpc/80]"`), `did you mean "tcp"?`},
		{"role", replace("role: protected", "role: protekted"), `did you mean "protected"?`},
		{"window", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, replay_window: 31"), `31 is not between 32 and 65536`},
		{"mtu", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, mtu: 9000"), `9000 is not between 576 and`},
		{"fragment", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, fragment: during"), `connections.site-b.children.net.fragment: "during" is not`},
		{"dscp", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, copy_dscp: no, dscp: 64"), `64 is not between 0 and 63`},
		{"dscp copied", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, dscp: 46"), `dscp fixes what copy_dscp: out copies`},
		{"copy_dscp", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, copy_dscp: both"), `"both" is not out, in, yes or no`},
		{"ttl", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, ttl: 256"), `"256" is neither copy nor a number from 1 to 255`},
		{"tfc", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, tfc_padding: 5000"), `5000 bytes; at most`},
		{"tfc word", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, tfc_padding: all"), `"all" is neither mtu nor a number of bytes`},
		{"tfc transport", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, mode: transport, tfc_padding: 500"), `tfc_padding needs mode: tunnel`},
		{"tfc AH", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, ah_proposals: sha256, tfc_padding: mtu"), `tfc_padding with ah_proposals`},
		{"ttl transport", replace("remote_ts: 198.51.100.128/25", "remote_ts: 198.51.100.128/25, mode: transport, ttl: 5"), `need mode: tunnel`},
		{"workers", "workers: {count: 65}\n" + tenLines, `65 is not between 1 and 64`},
		{"cores", "workers: {count: 3, cores: 1-2}\n" + tenLines, `2 cores for 3 workers`},
		{"ring", "dataplane: {ring_size: 100}\n" + tenLines, `100 is not a power of two`},
		{"ungated", replace("insecure_manual_keys: true\n", ""), `write insecure_manual_keys: true`},
		{"key length", replace("20212223", "202122"), `manual.site-b/net.key_in: 35 bytes, but aes256gcm16 takes 36 (4 bytes of salt included)`},
		{"key digits", replace("20212223", "2021222z"), `an even number of hexadecimal digits`},
		{"reserved SPI", replace("0x1001", "0xff"), `reserved`},
		{"no such child", replace("site-b/net:", "site-b/nett:"), `no child is called "site-b/nett": did you mean "site-b/net"?`},
		{"same key both ways", strings.ReplaceAll(manualKeys, "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f50515253", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"), `two users of one key repeat nonces`},
		{"contradiction", tenLines + "policies:\n  - {name: open, action: bypass, local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}\n", `policy "site-b/net" (protect) contradicts "open" (bypass) at line 11`},
		{"shadowed protect", tenLines + "policies:\n  - {name: open, action: bypass, local_ts: 198.51.100.0/24, remote_ts: 198.51.100.0/24}\n", `policy "site-b/net" can never match: "open" (bypass) at line 11`},
		{"unknown child", tenLines + "policies:\n  - {action: protect, child: site-c/net}\n", `did you mean "site-b/net"?`},
		{"null", replace("role: outside", "role:"), `interfaces.eth2.role has no value`},
		{"anchor", replace("192.0.2.1", "&a 192.0.2.1"), `anchors, aliases and tags`},
		{"list for mapping", "workers: [1]\n" + tenLines, `expected a mapping, got a list`},
		{"empty", "", `empty`},
		{"two documents", tenLines + "---\n" + tenLines, `second YAML document`},
		{"not YAML", "a: [", `test.yaml:`},
		{"no interfaces", "instance: a\n", `interfaces: none is named`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant …%s…", err, c.want)
			}
			if strings.Contains(err.Error(), "0c0d0e0f") {
				t.Error("the error holds key material")
			}
		})
	}
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, err := load(t, "bogus: 1\nworkers: {batch: x}\n"+tenLines)
	if n := strings.Count(fmt.Sprint(err), "test.yaml:"); n != 2 {
		t.Errorf("%d findings: %v", n, err)
	}
}

func TestKeysAreNeverPrinted(t *testing.T) {
	c := mustLoad(t, manualKeys)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := string(asJSON)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		all += fmt.Sprintf(verb, *c) + fmt.Sprintf(verb, c.Associations[0].Key) + fmt.Sprintf(verb, &c.Associations[0])
	}
	for _, part := range []string{"0c0d0e", "12 13 14", "0x12, 0x13", `\x0c`, "ICEiIw"} {
		if strings.Contains(all, part) {
			t.Errorf("%q stands in the output", part)
		}
	}
}

func TestFileWithKeysMustBePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", manualKeys, 0o644)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("world-readable: %v", err)
	}
	write("a.yaml", manualKeys, 0o640)
	if c, err := Load(path); err != nil || len(c.Warnings) != 1 {
		t.Errorf("group-readable: %v", err)
	}
	byFile := strings.Replace(manualKeys, "key_in: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223", "key_in_file: in.key", 1)
	byFile = strings.Replace(byFile, "key_out: 303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f50515253", "key_out_file: out.key", 1)
	write("a.yaml", byFile, 0o644)
	write("in.key", strings.Repeat("01", 36)+"\n", 0o644)
	write("out.key", strings.Repeat("02", 36)+"\n", 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "in.key holds keys and is open to everyone") {
		t.Errorf("world-readable key file: %v", err)
	}
	write("in.key", strings.Repeat("01", 36)+"\n", 0o600)
	if c, err := Load(path); err != nil || len(c.Associations) != 2 || c.Associations[0].Key.Bytes()[35] != 1 {
		t.Errorf("private key files beside a public configuration: %v", err)
	}
}

func TestSelectorsPairByFamilyAndProtocol(t *testing.T) {
	c := mustLoad(t, strings.Replace(tenLines, "{local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}",
		`{local_ts: ["198.51.100.0/25", "2001:db8:a::/64", "198.51.100.1-198.51.100.6[udp/53]"], remote_ts: ["198.51.100.128/25", "2001:db8:b::/64[tcp/80-90]"]}`, 1))
	s := c.Policies[0].Selectors
	if len(s) != 3 {
		t.Fatalf("%d selectors: %+v", len(s), s)
	}
	if s[0].Proto != 0 || s[1].Proto != 6 || s[1].RemotePorts != (spd.PortRange{First: 80, Last: 90}) || s[1].LocalPorts != spd.AnyPorts || s[2].Proto != 17 || s[2].LocalPorts.First != 53 {
		t.Errorf("%+v", s)
	}
}

func TestProposalWords(t *testing.T) {
	for text, want := range map[string]Proposal{
		"aes256gcm16-esn":       {transform.AES256GCM16, true},
		"aes128gcm16-esn-noesn": {transform.AES128GCM16, true},
		"chacha20poly1305":      {transform.ChaCha20Poly1305, true},
		"aes256-sha256-noesn":   {transform.AES256CBCSHA256, false},
	} {
		var p Proposal
		if err := p.parse(Words(text)); err != nil || p != want {
			t.Errorf("%s: %v %v", text, p, err)
		}
	}
}

func TestFencesLeaveDefaultRoutesAlone(t *testing.T) {
	c := mustLoad(t, strings.Replace(tenLines, "remote_ts: 198.51.100.128/25", `remote_ts: [0.0.0.0/0, 203.0.113.5-203.0.113.8]`, 1))
	if fmt.Sprint(c.Fences) != "[from 198.51.100.0/25 203.0.113.5/32 203.0.113.6/31 203.0.113.8/32]" {
		t.Errorf("%v", c.Fences)
	}
}

// A fence by source would take the gateway itself off the network where the source is everything, or an endpoint.
func TestFencesBySourceLeaveTheGatewayAlone(t *testing.T) {
	for _, local := range []string{"0.0.0.0/0", "192.0.2.0/24"} {
		text := strings.Replace(tenLines, "remote_ts: 198.51.100.128/25", "remote_ts: 0.0.0.0/0", 1)
		c := mustLoad(t, strings.Replace(text, "local_ts: 198.51.100.0/25", "local_ts: "+local, 1))
		if len(c.Fences) != 0 {
			t.Errorf("local_ts %s: %v", local, c.Fences)
		}
	}
}

func TestDiffTouchesOnlyWhatChanged(t *testing.T) {
	old := mustLoad(t, manualKeys)
	used := Keys{}
	for i := range old.Associations {
		used.Use(&old.Associations[i])
	}
	change := func(from, to string) (*Change, error) {
		return Diff(old, mustLoad(t, strings.Replace(manualKeys, from, to, 1)), used)
	}
	if c, err := change("", ""); err != nil || !c.Empty() {
		t.Errorf("same file: %+v %v", c, err)
	}
	c, err := change("20212223", "20212224")
	if err != nil || len(c.Install) != 1 || len(c.Remove) != 1 || !c.Install[0].Inbound || c.Policies || c.Endpoints {
		t.Errorf("fresh inbound key: %+v %v", c, err)
	}
	if _, err := change("spi_out: 0x1002", "spi_out: 0x1003"); err == nil || !strings.Contains(err.Error(), "fresh key") {
		t.Errorf("old key under a new SPI repeats nonces, but: %v", err)
	}
	if _, err := change("interfaces:", "workers: {count: 2}\ninterfaces:"); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("workers: %v", err)
	}
	c, err = change("insecure_manual_keys", "policies: [{action: discard, local_ts: 203.0.113.0/24, remote_ts: 203.0.113.0/24}]\ninsecure_manual_keys")
	if err != nil || !c.Policies || len(c.Install)+len(c.Remove) != 0 {
		t.Errorf("one more policy: %+v %v", c, err)
	}
	c, err = Diff(old, mustLoad(t, tenLines), used)
	if err != nil || len(c.Remove) != 2 || len(c.Install) != 0 {
		t.Errorf("keys gone: %+v %v", c, err)
	}
	if _, err = Diff(mustLoad(t, tenLines), old, used); err == nil {
		t.Error("keys that were in use before came back")
	}
}

// TestDeepNestingIsRefusedAtOnce would take minutes in the parser.
func TestDeepNestingIsRefusedAtOnce(t *testing.T) {
	for _, text := range []string{"\n" + strings.Repeat("[", 100000), "\n" + strings.Repeat("{a: ", 100000)} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), ":2:1: more than 1000 brackets are open") {
			t.Errorf("%v", err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(example), tenLines, manualKeys, "", "a: &a [*a]", "<<: 1", "? [a]\n: b", "workers: {batch: 99999999999999999999}", "interfaces:\n  - a", "!!binary x", "connections: {a: {children: {b: {local_ts: ['[']}}}}", "\x00", "a:\n- b:\n  - c: |\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := load(t, text)
		if err == nil && (c == nil || len(c.File.Interfaces) == 0) {
			t.Error("accepted without interfaces")
		}
	})
}

func TestDiffRefusesWhatARunningDaemonCannotChange(t *testing.T) {
	old := mustLoad(t, tenLines)
	for _, x := range []struct{ from, to, want string }{
		{"role: outside}", "role: outside, xdp_mode: generic}", "interfaces.eth2.xdp_mode cannot change"},
		{"interfaces:", "interfaces:\n  eth3: {role: outside}", "interfaces.eth3 cannot be added"},
		{"  eth2: {role: outside}", "", "interfaces.eth2 cannot be removed"},
		{"interfaces:", "workers: {count: 7}\ninterfaces:", "workers cannot change"},
		{"interfaces:", "ike: {threads: 7}\ninterfaces:", "ike.threads cannot change"},
	} {
		if !strings.Contains(tenLines, x.from) {
			t.Fatalf("the configuration has no %q", x.from)
		}
		_, err := Diff(old, mustLoad(t, strings.Replace(tenLines, x.from, x.to, 1)), Keys{})
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "restart sallyportd") {
			t.Errorf("%s: %v", x.to, err)
		}
	}
	c, err := Diff(old, mustLoad(t, strings.Replace(tenLines, "interfaces:", "log: {level: debug}\ninterfaces:", 1)), Keys{})
	if err != nil || !c.LogLevel || c.Interfaces || c.Policies {
		t.Errorf("another log level: %+v %v", c, err)
	}
	limits := "ike: {sas_max: 7, half_open_max: 6, half_open_per_address: 2, cookie_threshold: 0, rekeys_per_second: 9}\ninterfaces:"
	if _, err = Diff(old, mustLoad(t, strings.Replace(tenLines, "interfaces:", limits, 1)), Keys{}); err != nil {
		t.Errorf("other limits of IKE: %v", err)
	}
}
