package suite

import (
	"bytes"
	"fmt"
	"testing"

	"sallyport/ike/message"
)

func parseAH(t *testing.T, s string) Proposal {
	t.Helper()
	p, err := ParseAH(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAHOnTheWire: a proposal of AH has integrity algorithms and no encryption, GMAC by its numbers as one of them.
func TestAHOnTheWire(t *testing.T) {
	for words, want := range map[string]string{
		"sha256":                    "[INTEG:12 ESN:1 ESN:0]",
		"sha512-sha384-noesn":       "[INTEG:14 INTEG:13 ESN:0]",
		"aes128gmac-aes256gmac-esn": "[INTEG:9 INTEG:11 ESN:1]",
		"aes192gmac-x25519-esn":     "[INTEG:10 KE:31 ESN:1]",
	} {
		p := parseAH(t, words)
		m := p.Message(1, []byte{1, 2, 3, 4})
		var list []string
		for _, x := range m.Transforms {
			list = append(list, fmt.Sprintf("%v:%d", x.Type, x.ID))
		}
		if got := fmt.Sprint(list); m.Protocol != message.ProtocolAH || got != want {
			t.Errorf("%s: protocol %v, transforms %s, want %s", words, m.Protocol, got, want)
		}
	}
	for _, words := range []string{"null-sha256", "aes256-sha256", "aes128gcm16", "sha256-prfsha256", "x25519", "sha256-aes128gmac", "sha1"} {
		if p, err := ParseAH(words); err == nil {
			t.Errorf("%s became %v", words, p)
		}
	}
}

// TestAHIsChosen holds both sides of a negotiation against each other: the choice, its name in the data plane, the length of its keys.
func TestAHIsChosen(t *testing.T) {
	for _, c := range []struct {
		offered, own []string
		want, cipher string // "" for no agreement
		keys         int
	}{
		{[]string{"sha256-sha512"}, []string{"sha512-sha256"}, "sha512-esn", "null-sha512", 64},
		{[]string{"sha256-noesn", "aes256gmac"}, []string{"aes256gmac"}, "aes256gmac-esn", "aes256gmac", 36},
		{[]string{"aes128gmac-aes192gmac"}, []string{"aes192gmac"}, "aes192gmac-esn", "aes192gmac", 28},
		{[]string{"sha384"}, []string{"sha256", "aes128gmac"}, "", "", 0},
		{[]string{"aes128gmac"}, []string{"aes256gmac"}, "", "", 0},
	} {
		var offered, own []Proposal
		for _, s := range c.offered {
			offered = append(offered, parseAH(t, s))
		}
		for _, s := range c.own {
			own = append(own, parseAH(t, s))
		}
		choice, answer, err := Select(Offer(offered, []byte{0, 0, 1, 1}), own, Options{NoKE: true})
		if (err == nil) != (c.want != "") {
			t.Errorf("%v of %v: %v", c.own, c.offered, err)
			continue
		}
		if err != nil {
			continue
		}
		answer.SPI = []byte{0, 0, 2, 2}
		accepted, err := Accept(answer, offered)
		if err != nil || accepted != choice || !choice.AH || choice.Protocol() != message.ProtocolAH {
			t.Errorf("%v of %v: chosen %v, accepted %v: %v", c.own, c.offered, choice, accepted, err)
		}
		if choice.String() != c.want || choice.Cipher() != c.cipher {
			t.Errorf("%v of %v: %s, in the data plane %s; want %s, %s", c.own, c.offered, choice, choice.Cipher(), c.want, c.cipher)
		}
		if n, err := choice.childKeymatLen(); err != nil || n != c.keys {
			t.Errorf("%s: %d bytes of keys, want %d: %v", choice, n, c.keys, err)
		}
	}
}

// TestAHAndESPDoNotMix: neither takes the other's proposals, nor AH one with encryption or a truncated answer.
func TestAHAndESPDoNotMix(t *testing.T) {
	esp, err := ParseESP("null-sha256")
	if err != nil {
		t.Fatal(err)
	}
	ah := parseAH(t, "sha256")
	for _, c := range [][2]Proposal{{esp, ah}, {ah, esp}} {
		if choice, _, err := Select(Offer([]Proposal{c[0]}, []byte{0, 0, 1, 1}), []Proposal{c[1]}, Options{NoKE: true}); err == nil {
			t.Errorf("%v was chosen", choice)
		}
	}
	m := ah.Message(1, []byte{0, 0, 1, 1})
	m.Transforms = append(m.Transforms, message.Transform{Type: message.TransformEncr, ID: message.EncrNULL})
	if choice, _, err := Select([]message.Proposal{m}, []Proposal{ah}, Options{NoKE: true}); err == nil {
		t.Errorf("%v was chosen with an encryption algorithm", choice)
	}
	for _, bad := range [][]message.Transform{nil, {{Type: message.TransformInteg, ID: message.AuthHMACSHA2256128}}, {{Type: message.TransformESN}}} {
		if choice, err := Accept(message.Proposal{Number: 1, Protocol: message.ProtocolAH, SPI: bytes.Repeat([]byte{1}, 4), Transforms: bad}, []Proposal{ah}); err == nil {
			t.Errorf("%v was accepted as %v", bad, choice)
		}
	}
}
