package main

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryScenarioCanBePlayed: all folders can be read, with every verb and value known, each
// has its own name, and the gateway's configuration has a counterpart for strongSwan.
func TestEveryScenarioCanBePlayed(t *testing.T) {
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	smoke := 0
	for _, s := range all {
		if seen[s.Name] {
			t.Errorf("two scenarios are called %s", s.Name)
		}
		seen[s.Name] = true
		if s.Expect.Smoke {
			smoke++
		}
		text, err := reference([]byte(s.Sallyport))
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		for _, part := range []string{"connections {", "children {"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: as a reference it has no %q", s.Name, part)
			}
		}
	}
	if smoke == 0 {
		t.Error("the smoke subset is empty")
	}
}

// TestWrongScenariosAreRefused: what is misspelt must not pass by being ignored.
func TestWrongScenariosAreRefused(t *testing.T) {
	good := map[string]string{
		"description.txt": "x", "sallyport.yaml": "connections: {}", "swanctl.conf": "", "strongswan.conf": "",
	}
	for _, text := range []string{
		"steps: []", "steps: [dance]", "steps: [{up: {who: me}}]", "step: [up]", "topology: ring\nsteps: [up]",
		"initiators: [nobody]\nsteps: [up]", "steps: [{sas: {both: {ikke: x}}}]",
	} {
		var s scenario
		texts := map[string]string{"expect.yaml": text}
		for k, v := range good {
			texts[k] = v
		}
		if err := s.fill(texts, nil); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
}

// TestReferenceMeansTheSame: lists, booleans, sections and files become swanctl's.
func TestReferenceMeansTheSame(t *testing.T) {
	got, err := reference([]byte(`
connections:
  site: {encap: true, proposals: [a, b], local: {certs: [gw.pem]}, children: {net: {rekey_time: 1h}}}
secrets:
  ike-site: {id: [one, two], secret: "s"}
  private-gw: {file: gw.key}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := "connections {\n\tsite {\n\t\tencap = yes\n\t\tproposals = a, b\n\t\tlocal {\n\t\t\tcerts = gw.pem\n\t\t}\n" +
		"\t\tchildren {\n\t\t\tnet {\n\t\t\t\trekey_time = 1h\n\t\t\t}\n\t\t}\n\t}\n}\n" +
		"secrets {\n\tike-site {\n\t\tid-0 = one\n\t\tid-1 = two\n\t\tsecret = s\n\t}\n}\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestWantSeesEveryDifference: an expectation must fail on each field it names.
func TestWantSeesEveryDifference(t *testing.T) {
	one, none, yes, no := 1, 0, true, false
	have := []ikeSA{{
		Connection: "site", Established: true, Initiator: true, Local: "192.0.2.1", Remote: "192.0.2.2", LocalPort: 4500, RemotePort: 4501,
		LocalID: "a", RemoteID: "b", VIPs: []string{"198.18.0.1"}, Proposal: "p",
		Children: []child{{Proposal: "q", Encap: true, LocalTS: []string{"x", "y"}, RemoteTS: []string{"z"}}},
	}}
	for _, w := range []want{
		{}, {SAs: &one, Children: &one, Connection: "site", Initiator: &yes, IKE: "p", ESP: "~[q]", Local: "192.0.2.1", RemotePort: "4501",
			LocalID: "a", RemoteID: "b", VIPs: []string{"198.18.0.1"}, Encap: &yes, LocalTS: []string{"y", "x"}, RemoteTS: []string{"z"}},
	} {
		if text := w.differs(have); text != "" {
			t.Errorf("%+v: %s", w, text)
		}
	}
	for _, w := range []want{
		{SAs: &none}, {Children: &none}, {Connection: "other"}, {Initiator: &no}, {IKE: "q"}, {ESP: "~r"}, {ESP: "~q."}, {Local: "192.0.2.3"}, {Remote: "x"},
		{LocalPort: "500"}, {RemotePort: "4500"}, {LocalID: "b"}, {RemoteID: "a"}, {VIPs: []string{}}, {Encap: &no}, {LocalTS: []string{"x"}}, {RemoteTS: []string{"x"}},
	} {
		if w.differs(have) == "" {
			t.Errorf("%+v saw no difference", w)
		}
	}
}

// TestGatewaysAreCertifiedByTheRoot, by way of intermediates that must be sent along.
func TestGatewaysAreCertifiedByTheRoot(t *testing.T) {
	for i, kind := range []string{"p256", "p384", "p521", "ed25519", "rsa2048"} {
		p, err := issue(credentials{Key: kind, Names: 3, CRL: true, Depth: 1 + i%2}, "http://192.0.2.254")
		if err != nil {
			t.Fatal(err)
		}
		roots, middles := x509.NewCertPool(), x509.NewCertPool()
		roots.AppendCertsFromPEM(p.root)
		for _, text := range p.strongSwan.intermediates {
			middles.AppendCertsFromPEM(text)
		}
		block, _ := pem.Decode(p.strongSwan.cert)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: nameStrongSwan}); err == nil {
			t.Errorf("%s: trusted without the intermediate", kind)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middles, DNSName: nameStrongSwan}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestHandWrittenRequestIsWellFormed: its lengths nest.
func TestHandWrittenRequestIsWellFormed(t *testing.T) {
	b, err := saInitRequest()
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint32(b[24:]); int(got) != len(b) {
		t.Fatalf("length %d in the header of %d bytes", got, len(b))
	}
	next, rest := b[16], b[28:]
	var kinds []byte
	for next != 0 {
		kinds = append(kinds, next)
		length := binary.BigEndian.Uint16(rest[2:])
		next, rest = rest[0], rest[length:]
	}
	if len(rest) != 0 || !bytes.Equal(kinds, []byte{33, 34, 40}) {
		t.Errorf("payloads %v, %d bytes left over", kinds, len(rest))
	}
}

// TestScenarioFoldersHoldNothingElse: a file that nobody reads is a mistake.
func TestScenarioFoldersHoldNothingElse(t *testing.T) {
	err := filepath.WalkDir("scenarios", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for _, name := range files {
			if d.Name() == name {
				return nil
			}
		}
		t.Errorf("%s is not read by anything", path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
