package esp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// vector is a packet of testdata/scapy.json; the script beside it makes them.
type vector struct {
	Suite  string `json:"suite"`
	Keymat string `json:"keymat"`
	SPI    uint32 `json:"spi"`
	ESN    bool   `json:"esn"`
	Hi     uint32 `json:"hi"`
	Seq    uint32 `json:"seq"`
	Outer  int    `json:"outer"`
	Encap  bool   `json:"encap"`
	Packet string `json:"packet"`
	Inner  string `json:"inner"`

	Transport bool `json:"transport"`
	AH        bool `json:"ah"`
	// GRE says that there is a GRE header in front of Inner, with a key unless that is nil; Inner is not in it otherwise.
	GRE bool    `json:"gre"`
	Key *uint32 `json:"key"`
	// Bundle is the AH around ESP, if any.
	Bundle *half `json:"bundle,omitempty"`
}

type half struct {
	Suite  string `json:"suite"`
	Keymat string `json:"keymat"`
	SPI    uint32 `json:"spi"`
	ESN    bool   `json:"esn"`
	Hi     uint32 `json:"hi"`
	Seq    uint32 `json:"seq"`
}

// vectors reads packets of an independent implementation.
func vectorsOf(t *testing.T, file string) (vectors []vector) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// takes fails the test unless packet i of an independent implementation, for an association like p, opens to what was put in.
func (g *rig) takes(i int, v vector, p sad.Params) {
	g.t.Helper()
	p.SPI, p.Keymat = v.SPI, unhex(g.t, v.Keymat)
	tu := g.install(p)
	if reason := g.open1(unhex(g.t, v.Packet), tu.in); reason != packet.DropNone {
		g.t.Errorf("packet %d, %s: %v", i, v.Suite, reason)
	} else if got := hex.EncodeToString(g.batch.IP(0)); got != v.Inner {
		g.t.Errorf("packet %d, %s: %s, want %s", i, v.Suite, got, v.Inner)
	}
}

// TestOpensWhatScapySealed takes packets of an independent implementation.
func TestOpensWhatScapySealed(t *testing.T) {
	vectors := vectorsOf(t, "testdata/scapy.json")
	if want := 8 * len(transform.List()); len(vectors) != want {
		t.Fatalf("%d vectors, want %d: every suite in 8 shapes", len(vectors), want)
	}
	for _, v := range vectors {
		g := newRig(t)
		suite, err := transform.Parse(v.Suite)
		if err != nil {
			t.Fatal(err)
		}
		p := sad.Params{
			Name: "scapy", SPI: v.SPI, Inbound: true, Suite: suite, Keymat: unhex(t, v.Keymat), Local: gatewayB4, Remote: gatewayA4, Encap: v.Encap, ESN: v.ESN, Outer: sad.Outer{ECN: true},
			Selectors: []spd.Selector{{Local: netsB, Remote: netsA, LocalPorts: anyPort, RemotePorts: anyPort}},
		}
		if v.Encap {
			p.LocalPort, p.RemotePort = 4500, 4500
		}
		if v.Outer == 6 {
			p.Local, p.Remote = gatewayB6, gatewayA6
		}
		if _, err := g.table.Install(p); err != nil {
			t.Fatal(err)
		}
		in := g.table.LookupInbound(v.SPI)
		if v.Hi != 0 {
			// The receiver knows the upper half from packets before; here its window is told.
			in.Window.Advance(g.table.Bits(in), uint64(v.Hi)<<32|uint64(v.Seq)-1)
		}
		if reason := g.open1(unhex(t, v.Packet), in); reason != packet.DropNone {
			t.Errorf("%s, v%d, encap %v, ESN %v: %v", v.Suite, v.Outer, v.Encap, v.ESN, reason)
		} else if !bytes.Equal(g.batch.IP(0), unhex(t, v.Inner)) {
			t.Errorf("%s, v%d, encap %v, ESN %v: inner packet differs", v.Suite, v.Outer, v.Encap, v.ESN)
		}
	}
}

// scapyOpens lets the independent implementation take our packets.
func scapyOpens(t *testing.T, vectors []vector) {
	t.Helper()
	python := "/usr/bin/python3" // Debian's, which sees Debian's packages
	if out, err := exec.Command(python, "-c", "import scapy.layers.ipsec, cryptography").CombinedOutput(); err != nil {
		if os.Getenv("STRICT") == "1" {
			t.Fatalf("needs python3-scapy and python3-cryptography: %v: %s", err, out)
		}
		t.Skip("needs python3-scapy and python3-cryptography")
	}
	in, err := json.Marshal(vectors)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(python, "testdata/scapy_esp.py", "open")
	command.Stdin = bytes.NewReader(in)
	var problems bytes.Buffer
	command.Stderr = &problems
	out, err := command.Output()
	if err != nil {
		t.Fatalf("scapy: %v: %s", err, problems.Bytes())
	}
	var opened []string
	if err := json.Unmarshal(out, &opened); err != nil || len(opened) != len(vectors) {
		t.Fatalf("scapy answered for %d of %d packets: %v", len(opened), len(vectors), err)
	}
	for i, v := range vectors {
		if opened[i] != v.Inner {
			t.Errorf("packet %d (%s, ESN %v): scapy found %q, not what was inside, %q\n%s", i, v.Suite, v.ESN, opened[i], v.Inner, problems.Bytes())
		}
	}
}

// TestScapyOpensWhatWeSealed: every suite in tunnel mode.
func TestScapyOpensWhatWeSealed(t *testing.T) {
	var vectors []vector
	for _, suite := range transform.List() {
		for _, outer := range []int{4, 6} {
			for _, encap := range []bool{false, true} {
				for _, length := range []int{40, 41, 200, 1400} {
					g := newRig(t)
					esn := suite.Info().Hash == 0 && length%2 == 0 // see the script
					p := g.params(suite, outer, encap, esn)
					p.UDPChecksum = encap
					if encap {
						p.LocalPort, p.RemotePort = 4500, 4500
					}
					v := vector{Suite: suite.String(), SPI: p.SPI, ESN: esn, Keymat: hex.EncodeToString(p.Keymat)}
					if esn {
						v.Hi = 3
						p.Sequence = 3<<32 + 17
					}
					tu := g.install(p)
					inner := g.datagram(4+2*(length&4>>2), length)
					v.Inner = hex.EncodeToString(inner)
					v.Packet = hex.EncodeToString(g.seal1(inner, tu.out))
					vectors = append(vectors, v)
				}
			}
		}
	}
	scapyOpens(t, vectors)
}
