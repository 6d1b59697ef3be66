package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

const strong = "kI3vZ7b0m8dY5q2xT1nW9rLhCwGfQ4sE6uJpAoVzXyM="

// negotiated is the README's tunnel: ten lines, the rest has defaults.
const negotiatedLines = tenLines + `secrets: {ike-site-b: {id: 192.0.2.2, secret: "` + strong + `"}}
`

func TestTenLinesMakeANegotiatedTunnel(t *testing.T) {
	if n := strings.Count(negotiatedLines, "\n"); n > 10 {
		t.Fatalf("%d lines", n)
	}
	c := mustLoad(t, negotiatedLines)
	if len(c.Warnings) != 0 || len(c.Connections) != 1 || !c.Negotiates() {
		t.Fatalf("%d connections, warnings %v", len(c.Connections), c.Warnings)
	}
	conn := c.Connections[0]
	if conn.RekeyTime != 4*time.Hour || conn.OverTime != 24*time.Minute || conn.RandTime != 24*time.Minute || conn.DPDDelay != 30*time.Second || !conn.MOBIKE || conn.Retransmit != ikesa.DefaultRetransmit {
		t.Errorf("defaults: %+v", conn)
	}
	if !strings.Contains(conn.Proposals[0].String(), "ke1_mlkem768") {
		t.Errorf("the first proposal is not hybrid: %v", conn.Proposals[0])
	}
	if id, ok := conn.Remote.ID.Exact(); !ok || id.String() != "192.0.2.2" {
		t.Errorf("the peer may be %v", conn.Remote.ID)
	}
	child := conn.Children[0]
	if child.StartAction != ikesa.ActionTrap || child.DPDAction != ikesa.ActionTrap || child.RekeyTime != time.Hour || child.LifeTime != 66*time.Minute || child.RandTime != 6*time.Minute {
		t.Errorf("defaults: %+v", child)
	}
	if data := child.Data.(*DataPath); data.Name != "site-b/net" || data.Window != 4096 || !data.Outer.CopyDF {
		t.Errorf("data path: %+v", data)
	}
	if c.Tunnels["site-b/net"] != "site-b/net" || c.Policies[0].Tunnel != "site-b/net" {
		t.Errorf("tunnels: %v", c.Tunnels)
	}
	if got := Negotiated([]message.TrafficSelector{child.LocalTS[0].TS}, []message.TrafficSelector{child.RemoteTS[0].TS}); !reflect.DeepEqual(got, c.Policies[0].Selectors) {
		t.Errorf("what is configured and negotiated unchanged must be the same: %v, %v", got, c.Policies[0].Selectors)
	}
	psk, err := c.Store.PSK(auth.AddressIdentity(netip.MustParseAddr("192.0.2.1")), auth.AddressIdentity(netip.MustParseAddr("192.0.2.2")))
	if err != nil || string(psk) != strong {
		t.Errorf("the secret: %v", err)
	}
}

// A child in transport mode needs no selectors: they are the connection's own addresses, under IKE and under manual keys.
func TestTransportModeStandsForTheEnds(t *testing.T) {
	end := func(a string) []spd.Range {
		addr := netip.MustParseAddr(a)
		return []spd.Range{{First: addr, Last: addr}}
	}
	want := []spd.Selector{{Local: end("192.0.2.1"), Remote: end("192.0.2.2"), LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts}}
	for _, text := range []string{negotiatedLines, manualKeys} {
		c := mustLoad(t, strings.Replace(text, "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", "mode: transport", 1))
		if p := c.Policies[0]; !p.Transport || !reflect.DeepEqual(p.Selectors, want) {
			t.Errorf("policy %+v", p)
		}
		if len(c.Fences) != 1 || c.Fences[0].Prefix != netip.MustParsePrefix("192.0.2.2/32") {
			t.Errorf("fences %v", c.Fences)
		}
		for _, a := range c.Associations {
			if !a.Transport || !reflect.DeepEqual(a.Selectors, want) {
				t.Errorf("association %+v", a)
			}
		}
		if len(c.Connections) > 0 && c.Connections[0].Children[0].Mode != ikesa.Transport {
			t.Errorf("mode %v", c.Connections[0].Children[0].Mode)
		}
		if len(c.Connections) > 0 && c.Connections[0].MOBIKE {
			t.Error("MOBIKE would move what is bound to its addresses")
		}
	}
	want[0].Proto = 47
	c := mustLoad(t, strings.Replace(negotiatedLines, "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", "mode: transport, local_ts: \"dynamic[gre]\", remote_ts: \"192.0.2.2[gre]\"", 1))
	if !reflect.DeepEqual(c.Policies[0].Selectors, want) {
		t.Errorf("selectors %v", c.Policies[0].Selectors)
	}
}

// AH is what ah_proposals ask for, negotiated or with manual keys.
func TestAHInPlaceOfESP(t *testing.T) {
	for words, want := range map[string]transform.Suite{"sha256": transform.NullSHA256, "sha512-noesn": transform.NullSHA512, "aes128gmac-esn": transform.AES128GMAC} {
		key := strings.Repeat("11", want.Info().KeyLen)
		text := strings.Replace(manualKeys, "remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, ah_proposals: "+words+"}", 1)
		text = regexp.MustCompile("key_in: [0-9a-f]+").ReplaceAllString(text, `key_in: "`+key+`"`)
		text = regexp.MustCompile("key_out: [0-9a-f]+").ReplaceAllString(text, `key_out: "`+strings.ReplaceAll(key, "1", "2")+`"`)
		for _, a := range mustLoad(t, text).Associations {
			if !a.AH || a.Proposal.Suite != want || a.Proposal.ESN == strings.Contains(words, "noesn") {
				t.Errorf("%s: %+v", words, a)
			}
		}
	}
	c := mustLoad(t, strings.Replace(negotiatedLines, "remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, ah_proposals: [default, aes256gmac-x25519]}", 1))
	if got := fmt.Sprint(c.Connections[0].Children[0].Proposals); got != "[sha512-sha384-sha256-esn-noesn aes256gmac-x25519-esn-noesn]" {
		t.Errorf("proposals %s", got)
	}
	if _, err := load(t, strings.Replace(manualKeys, "remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, ah_proposals: aes256-sha256}", 1)); err == nil || !strings.Contains(err.Error(), "is no proposal for AH, such as sha256") {
		t.Errorf("%v", err)
	}
}

// AH around ESP has SPIs and keys of its own, and is for manual keys alone.
func TestAHAroundESP(t *testing.T) {
	const around = `    ah:
      spi_in: 0x2001
      spi_out: 0x2002
      key_in: "1111111111111111111111111111111111111111111111111111111111111111"
      key_out: "2222222222222222222222222222222222222222222222222222222222222222"
`
	with := func(ah, proposals string) string {
		return strings.Replace(manualKeys, "remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, replay_window: 64, "+proposals+"}", 1) + ah
	}
	const both = "esp_proposals: aes256gcm16, ah_proposals: sha256-noesn"
	c := mustLoad(t, with(around, both))
	for _, a := range c.Associations {
		want := map[bool]uint32{true: 0x2001, false: 0x2002}[a.Inbound]
		if x := a.Around; a.AH || a.Proposal.Suite != transform.AES256GCM16 || x == nil || x.Proposal != (Proposal{Suite: transform.NullSHA256}) || x.SPI != want || x.Key.Len() != 32 ||
			!slices.Equal(a.SPIs(), []uint32{a.SPI, want}) || len(a.KeyIDs()) != 2 || a.KeyIDs()[0] == a.KeyIDs()[1] {
			t.Errorf("%+v", a)
		}
	}
	if text := fmt.Sprintf("%+v %#v %v", c.Associations[0].Around, c.Associations[0].Around, c.File.Manual); strings.Contains(text, "1111") || strings.Contains(text, "17, 17, 17") {
		t.Errorf("printed as %s", text)
	}
	used := Keys{}
	for i := range c.Associations {
		used.Use(&c.Associations[i])
	}
	if change, err := Diff(c, mustLoad(t, with(around, both)), used); err != nil || !change.Empty() {
		t.Errorf("the same file: %+v, %v", change, err)
	}
	if _, err := Diff(c, mustLoad(t, with(strings.Replace(around, "0x2001", "0x2003", 1), both)), used); err == nil || !strings.Contains(err.Error(), "fresh key") {
		t.Errorf("an old key under a new SPI: %v", err)
	}
	fresh := strings.NewReplacer("spi_in: 0x2001", "spi_in: 0x2003", "1111", "3333")
	if _, err := Diff(c, mustLoad(t, with(fresh.Replace(around), both)), used); err == nil || !strings.Contains(err.Error(), "fresh key") {
		t.Errorf("a fresh key of AH around an old one of ESP: %v", err)
	}
	for _, x := range []struct{ text, want string }{
		{with("", both), "manual.site-b/net.ah: spi_in and spi_out are needed, both"},
		{with(around, "esp_proposals: aes256gcm16"), "AH goes around ESP where a child has both"},
		{with(strings.Replace(around, "0x2001", "0x1001", 1), both), "spi_in 0x00001001 is that of manual.site-b/net already"},
		{with(strings.Replace(around, "2222", "1111", 16), both), "repeat nonces"},
		{with(strings.Replace(around, `"1111`, `"`, 1), both), "30 bytes, but null-sha256 takes 32"},
		{with(around, "esp_proposals: aes256gcm16, ah_proposals: aes128gcm16"), "is no proposal for AH"},
		{strings.Replace(with(around, both), "local_addrs:", "encap: true\n    local_addrs:", 1), "AH cannot go in UDP"},
		{strings.Replace(negotiatedLines, "remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, esp_proposals: aes256gcm16, ah_proposals: sha256}", 1), "manual keys, since IKEv2 does not negotiate that (RFC 7296, 1.7)"},
	} {
		if _, err := load(t, x.text); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("want %q: %v\n%s", x.want, err, x.text)
		}
	}
}

// Every contradiction and everything unsafe is one error with its place and what to do.
func TestFaultsOfNegotiationAreNamedWithTheirPlace(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(negotiatedLines, old) {
			t.Fatalf("the base text lacks %q", old)
		}
		return strings.Replace(negotiatedLines, old, new, 1)
	}
	connection := func(more string) string {
		return replace("    remote_addrs: 192.0.2.2\n", "    remote_addrs: 192.0.2.2\n    "+more+"\n")
	}
	child := func(more string) string {
		return replace("remote_ts: 198.51.100.128/25}", "remote_ts: 198.51.100.128/25, "+more+"}")
	}
	anyone := func(more string) string {
		return strings.Replace(replace("remote_addrs: 192.0.2.2", `remote_addrs: "%any"`), "remote_ts: 198.51.100.128/25}", "remote_ts: dynamic, "+more+"}", 1)
	}
	transport := func(more string) string {
		return strings.Replace(negotiatedLines, "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25", more+"mode: transport", 1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"weak secret", replace(strong, "swordfish"), `test.yaml:10:39: secrets.ike-site-b.secret:`},
		{"no secret", replace("secret: \""+strong+"\"", ""), `secret or secret_file is missing`},
		{"secret of somebody else", replace("id: 192.0.2.2", "id: 192.0.2.9") + "", `has no keys`},
		{"explicit and none", strings.Replace(connection("local: {auth: psk}"), "id: 192.0.2.2", "id: 192.0.2.9", 1), `no `},
		{"name of secret", replace("ike-site-b", "site-b"), `begins with ike`},
		{"unknown pool", connection("pools: [rod]") + "pools: {road: {addrs: 198.18.0.0/24}}\n", `there is no pool "rod": did you mean "road"?`},
		{"pools overlap", negotiatedLines + "pools: {a: {addrs: 198.18.0.0/24}, b: {addrs: 198.18.0.128/25}}\n", `pool "a" has some of these`},
		{"vips and pools", connection("vips: [0.0.0.0]\n    pools: [a]") + "pools: {a: {addrs: 198.18.0.0/24}}\n", `vips asks the peer for addresses, pools gives them`},
		{"proposal word", connection("proposals: [aes256gcm61-prfsha384-x25519]"), `unknown algorithm "aes256gcm61": did you mean`},
		{"weak group", connection("proposals: [aes256-sha256-modp1024]"), `modp1024`},
		{"esp word", child("esp_proposals: [aes256gcm16-x25518]"), `did you mean "x25519"?`},
		{"life before rekey", child("rekey_time: 1h, life_time: 50m"), `is not more than rekey_time`},
		{"life bytes", child("rekey_bytes: 64GiB, life_bytes: 1GiB"), `is not more than rekey_bytes`},
		{"random more than all", child("rekey_time: 1h, rand_time: 1h"), `all of it may be taken off`},
		{"rekey too often", child("rekey_time: 1s"), `at least 5s`},
		{"action", child("start_action: traps"), `did you mean "trap"?`},
		{"start towards nobody", anyone("start_action: start"), `no address of the peer is known`},
		{"anybody without id", anyone("start_action: none"), `id is missing`},
		{"dynamic trap", strings.Replace(connection(`vips: [0.0.0.0]`), "local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}", "local_ts: dynamic, remote_ts: 198.51.100.128/25, start_action: trap}", 1), `write start`},
		{"transport of networks", child("mode: transport"), `transport mode carries what goes between the addresses of the connection, so each entry is an address of local_addrs, or dynamic`},
		{"transport to another host", transport("remote_ts: 192.0.2.3, "), `is an address of remote_addrs, or dynamic`},
		{"transport of virtual addresses", strings.Replace(transport(""), "remote_addrs:", "vips: [0.0.0.0]\n    remote_addrs:", 1), `virtual addresses need mode: tunnel`},
		{"AH and ESP", child("ah_proposals: sha256, esp_proposals: aes128gcm16"), `esp_proposals and ah_proposals; one of them`},
		{"AH that encrypts", child("ah_proposals: aes128gcm16"), `AH encrypts nothing`},
		{"AH by a mixture", child("ah_proposals: sha256-aes128gmac"), `write two proposals`},
		{"AH by nothing", child("ah_proposals: x25519"), `no integrity algorithm`},
		{"AH in UDP", strings.Replace(child("ah_proposals: sha256"), "local_addrs:", "encap: true\n    local_addrs:", 1), `AH cannot go in UDP`},
		{"mode", child("mode: transprot"), `did you mean "transport"?`},
		{"local port", connection("local_port: 501"), `local_port is 500 or 4500`},
		{"a name as local address", replace("local_addrs: 192.0.2.1", "local_addrs: gw.example"), `has no names`},
		{"mistyped address", replace("remote_addrs: 192.0.2.2", "remote_addrs: 192.0.2.2.2"), `is not an IP address`},
		{"same end", replace("remote_addrs: 192.0.2.2", "remote_addrs: [192.0.2.2, 192.0.2.1]"), `the same address`},
		{"half-open", negotiatedLines + "ike: {half_open_max: 10, cookie_threshold: 10}\n", `never reached`},
		{"retransmit", negotiatedLines + "ike: {retransmit_base: 0.5}\n", `number from 1 to 10`},
		{"fragmentation", connection("fragmentation: yess"), `did you mean "yes"?`},
		{"pubkey without certificate", connection("local: {auth: pubkey}\n    remote: {auth: psk}"), `needs a certificate`},
		{"pubkey without authority", connection("remote: {auth: pubkey, id: b.example}"), `no certificate can be believed`},
		{"psk with certs", connection("remote: {auth: psk, cacerts: [ca.crt]}"), `make no sense with auth: psk`},
		{"same selectors and priority", replace("secrets:", "  site-c:\n    local_addrs: 192.0.2.1\n    remote_addrs: 192.0.2.3\n    children: {net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}}\nsecrets:"), `different priorities`},
		{"protect of the unknown", anyone("start_action: none") + "policies: [{action: protect, child: site-b/net}]\n", `known only once it is negotiated`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, c.text)
			text := fmt.Sprint(err)
			if err == nil {
				text = fmt.Sprint(cfg.Warnings)
				if c.name != "secret of somebody else" {
					t.Fatalf("accepted, warnings %s", text)
				}
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("got  %v\nwant …%s…", text, c.want)
			}
			if strings.Contains(text, strong[:12]) || strings.Contains(text, "swordfish") {
				t.Error("the error holds the secret")
			}
		})
	}
}

// Two connections to one site with different priorities share the policy; which of them carries is decided while they run.
func TestConnectionsOfOneSiteShareAPolicy(t *testing.T) {
	c := mustLoad(t, strings.Replace(strings.Replace(negotiatedLines, "id: 192.0.2.2, ", "", 1), "secrets:", `  backup:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.3
    priority: 1
    children: {net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}}
secrets:`, 1))
	if len(c.Policies) != 1 || c.Tunnels["site-b/net"] != "site-b/net" || c.Tunnels["backup/net"] != "site-b/net" || len(c.Connections) != 2 {
		t.Errorf("%d policies, tunnels %v", len(c.Policies), c.Tunnels)
	}
}

// What peers get from a pool is protected before any of them is there.
func TestRoadwarriorsArePoliciesOfThePool(t *testing.T) {
	text := strings.Replace(negotiatedLines, "remote_addrs: 192.0.2.2", "remote_addrs: \"%any\"\n    pools: [road]\n    remote: {id: \"*.road.example\"}", 1)
	text = strings.Replace(strings.Replace(text, "remote_ts: 198.51.100.128/25", "remote_ts: dynamic", 1), "id: 192.0.2.2, ", "", 1)
	c := mustLoad(t, text+"pools: {road: {addrs: 198.18.0.0/24, dns: [198.51.100.53]}}\n")
	if len(c.Policies) != 1 || fmt.Sprint(c.Policies[0].Selectors[0].Remote) != fmt.Sprint([]spd.Range{{First: netip.MustParseAddr("198.18.0.0"), Last: netip.MustParseAddr("198.18.0.255")}}) {
		t.Errorf("policies: %+v", c.Policies)
	}
	if len(c.Fences) != 1 || c.Fences[0].String() != "198.18.0.0/24" {
		t.Errorf("fences: %v", c.Fences)
	}
	child := c.Connections[0].Children[0]
	if !child.RemoteTS[0].Dynamic || child.StartAction != ikesa.ActionNone {
		t.Errorf("child: %+v", child)
	}
}

// made writes an authority and a certificate that it issued for name into a folder.
func made(t *testing.T, dir, name string, until time.Time) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write := func(file, kind string, der []byte, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
			t.Fatal(err)
		}
	}
	sign := func(file string, c, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, by)
		if err != nil {
			t.Fatal(err)
		}
		write(file, "CERTIFICATE", der, 0o644)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: []string{name},
	}
	issuer, own := key(), key()
	sign("ca.crt", ca, ca, issuer.Public(), issuer)
	sign("gw.crt", leaf, ca, own.Public(), issuer)
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	write("gw.key", "PRIVATE KEY", der, 0o600)
}

func TestCertificatesAreLoadedAndJudged(t *testing.T) {
	dir := t.TempDir()
	made(t, dir, "gw.example", time.Now().AddDate(1, 0, 0))
	text := strings.Replace(tenLines, "    children:", "    local: {certs: gw.crt, id: gw.example}\n    remote: {id: peer.example}\n    children:", 1) +
		"secrets: {private-gw: {file: gw.key}}\nauthorities: {ca: {cacert: ca.crt}}\n"
	read := func(text string) (*Config, error) {
		path := filepath.Join(dir, "a.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path)
	}
	c, err := read(text)
	if err != nil || len(c.Connections) != 1 || len(c.Warnings) != 0 {
		t.Fatalf("%v %v", err, c)
	}
	l := c.Connections[0].Local
	if l.Method != auth.PublicKey || len(l.Certificates) != 1 || l.Key == nil || l.ID.String() != "gw.example" || c.Connections[0].Remote.Method != auth.PublicKey {
		t.Errorf("local %+v", l)
	}
	for name, x := range map[string]struct{ from, to, want string }{
		"another name":     {"id: gw.example", "id: other.example", "other.example"},
		"no key":           {"secrets: {private-gw: {file: gw.key}}\n", "", "no private key is loaded"},
		"missing file":     {"certs: gw.crt", "certs: gone.crt", "gone.crt"},
		"no certificate":   {"certs: gw.crt", "certs: gw.key", "gw.key"},
		"not an authority": {"cacert: ca.crt", "cacert: gw.crt", "no authority"},
	} {
		if _, err := read(strings.Replace(text, x.from, x.to, 1)); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "gw.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := read(text); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that everyone may read: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, "gw.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	made(t, dir, "gw.example", time.Now().AddDate(0, 0, 5))
	if c, err := read(text); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Text, "expires") {
		t.Errorf("a certificate that ends soon: %v %v", err, c)
	}
}

// A reload without any change must leave every connection as it was, whatever it holds.
func TestLoadingTwiceGivesEqualConnections(t *testing.T) {
	a, b := mustLoad(t, negotiatedLines), mustLoad(t, negotiatedLines)
	if !reflect.DeepEqual(a.Connections, b.Connections) {
		t.Errorf("%+v\n%+v", a.Connections[0], b.Connections[0])
	}
}
