package suite

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/ike/message"
)

func ike(t testing.TB, list ...string) []Proposal {
	t.Helper()
	all, err := ParseList(list, ParseIKE, DefaultIKE())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func esp(t testing.TB, list ...string) []Proposal {
	t.Helper()
	all, err := ParseList(list, ParseESP, DefaultESP())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestProposalsAreReadAsStrongSwanWritesThem(t *testing.T) {
	for _, v := range []struct {
		parse      func(string) (Proposal, error)
		text, want string
	}{
		{ParseIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"},
		{ParseIKE, " AES128GCM128-PRFSHA256-CURVE25519 ", "aes128gcm16-prfsha256-x25519"},
		{ParseIKE, "aes256-sha256-modp2048", "aes256-sha256-prfsha256-modp2048"},
		{ParseIKE, "aes-sha2_512-sha384-ecp521", "aes128-sha512-sha384-prfsha512-prfsha384-ecp521"},
		{ParseIKE, "aes256-sha256-prfsha512-ecp256", "aes256-sha256-prfsha512-ecp256"},
		{ParseIKE, "aes256gcm16-sha384-ecp384", "aes256gcm16-prfsha384-ecp384"},
		{ParseIKE, "aes256gcm16-aes256gcm16-prfsha384-x25519-x25519", "aes256gcm16-prfsha384-x25519"},
		{ParseIKE, "chacha20poly1305-prfsha256-x25519-ke1_mlkem768-ke1_none-ke7_mlkem1024", "chacha20poly1305-prfsha256-x25519-ke1_mlkem768-ke1_none-ke7_mlkem1024"},
		{ParseIKE, "aes256gcm16-prfsha384-mlkem768", "aes256gcm16-prfsha384-mlkem768"},
		{ParseESP, "aes256gcm16", "aes256gcm16-esn-noesn"},
		{ParseESP, "aes256gcm16-noesn", "aes256gcm16-noesn"},
		{ParseESP, "aes256gcm12-aes128gcm96-aes192gcm64-noesn", "aes256gcm12-aes128gcm12-aes192gcm8-noesn"},
		{ParseESP, "aes256-aes128-sha512-sha2_384-noesn", "aes256-aes128-sha512-sha384-noesn"},
		{ParseESP, "aes256gcm16-aes256gcm16iiv-chacha20poly1305iiv-esn", "aes256gcm16-aes256gcm16iiv-chacha20poly1305iiv-esn"},
		{ParseESP, "aes256gmac-aes128gmac-x25519-noesn", "aes256gmac-aes128gmac-x25519-noesn"},
		{ParseESP, "null-sha256-noesn", "null-sha256-noesn"},
		{ParseESP, "aes128-sha256-modp2048-none-noesn-esn", "aes128-sha256-modp2048-none-noesn-esn"},
		{ParseESP, "aes128gcm16-sha256-x25519-modpnone", "aes128gcm16-x25519-none-esn-noesn"},
		{ParseESP, "chacha20poly1305-x25519-ke1_mlkem1024-ke1_none", "chacha20poly1305-x25519-ke1_mlkem1024-ke1_none-esn-noesn"},
	} {
		p, err := v.parse(v.text)
		if err != nil || p.String() != v.want {
			t.Errorf("%q is %q, %v; want %q", v.text, p, err, v.want)
			continue
		}
		again, err := v.parse(p.String())
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%q read again is %q, %v", p, again, err)
		}
	}
}

func TestProposalsThatAreRefusedSayWhy(t *testing.T) {
	for _, v := range []struct {
		parse      func(string) (Proposal, error)
		text, want string
	}{
		{ParseIKE, "", "missing"},
		{ParseIKE, "aes256gcm16--x25519", "missing"},
		{ParseIKE, "aes256gcm16-prfsha384-x25591", `did you mean "x25519"?`},
		{ParseIKE, "aes265gcm16-prfsha384-x25519", `did you mean "aes256gcm16"?`},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem786", `did you mean "mlkem768"?`},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-ke1_sha256", "is no key exchange"},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-ke8_mlkem768", "unknown"},
		{ParseIKE, "aes256gcm16-x25519", "no PRF, such as prfsha384"},
		{ParseIKE, "aes256gcm16-prfsha384", "no key exchange, such as x25519"},
		{ParseIKE, "prfsha384-x25519", "no encryption"},
		{ParseIKE, "aes256-prfsha384-x25519", "needs an integrity algorithm"},
		{ParseIKE, "aes256gcm16-aes128-sha256-x25519", "write two proposals"},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-esn", "belongs to a proposal for ESP"},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-none", "needs a key exchange"},
		{ParseIKE, "aes256gcm16-prfsha384-mlkem1024", `"ke1_mlkem1024"`},
		{ParseIKE, "aes256gcm16-prfsha384-x25519-ke1_x25519", "used twice"},
		{ParseIKE, "aes256gcm16-prfsha384-ecp256-x25519-ke1_x25519-ke2_ecp256", "used twice"},
		{ParseIKE, "3des-sha1-modp1024", "refused"},
		{ParseIKE, "aes256-sha1-modp2048", "SHA-1"},
		{ParseIKE, "aes256-sha256-modp1024", "1024 bits"},
		{ParseIKE, "aes256-sha256-modp1536", "1536"},
		{ParseIKE, "aes256-md5-modp2048", "MD5"},
		{ParseIKE, "des-sha256-modp2048", "DES"},
		{ParseIKE, "aes256ccm16-prfsha256-x25519", "small devices"},
		{ParseIKE, "aes128ccm8-prfsha256-x25519", "small devices"},
		{ParseIKE, "aes256gcm8-prfsha256-x25519", "too short"},
		{ParseIKE, "aes256ctr-sha256-x25519", "AES-CTR"},
		{ParseIKE, "aes256gcm16-prfaesxcbc-x25519", "small devices"},
		{ParseIKE, "aes256-aesxcbc-x25519", "small devices"},
		{ParseIKE, "aes256gcm16-prfsha1-x25519", "SHA-1"},
		{ParseIKE, "aes256gcm16-prfsha384-modp2048s256", "subgroups"},
		{ParseIKE, "aes256gcm16-prfsha384-mlkem512", "ML-KEM-512"},
		{ParseIKE, strings.Repeat("aes256gcm16-", 100), "characters"},
		{ParseESP, "aes256gcm16-prfsha384", "belongs to a proposal for IKE"},
		{ParseESP, "aes256", "needs an integrity algorithm"},
		{ParseESP, "null", "needs an integrity algorithm"},
		{ParseESP, "aes256gmac-null-sha256", "write two proposals"},
		{ParseIKE, "null-sha256-x25519", "always encrypted"},
		{ParseIKE, "aes256gmac-prfsha256-x25519", "always encrypted"},
		{ParseIKE, "aes256gcm16iiv-prfsha256-x25519", "sequence number"},
		{ParseIKE, "aes128gcm12-prfsha256-x25519", "too short"},
		{ParseESP, "aes256gcm16-ke1_mlkem768", "without a first one"},
		{ParseESP, "x25519", "no encryption"},
	} {
		p, err := v.parse(v.text)
		if err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%q: %v, want an error with %q", v.text, err, v.want)
		}
		if !reflect.DeepEqual(p, Proposal{}) && !reflect.DeepEqual(p, Proposal{Protocol: p.Protocol}) {
			t.Errorf("%q: an error and %+v", v.text, p)
		}
	}
}

// Every word is offered, or refused with a reason, never both.
func TestWordsAreEitherKnownOrRefused(t *testing.T) {
	for name := range words {
		if reason := refusal(name); reason != "" {
			t.Errorf("%q is known and refused: %s", name, reason)
		}
	}
	for _, r := range refusedWords {
		if name := strings.TrimSuffix(r.word, "*"); refusal(name) == "" {
			t.Errorf("%q is not refused", name)
		}
	}
}

// Every combination of two words that ParseESP takes names a cipher as the data plane does: encryption, then a checksum if it needs one.
func TestCiphersOfAProposal(t *testing.T) {
	for text, want := range map[string]string{
		"aes256gcm16-chacha20poly1305iiv":   "aes256gcm16 chacha20poly1305iiv",
		"aes256-null-sha512-sha256-x25519":  "aes256-sha512 aes256-sha256 null-sha512 null-sha256",
		"aes256gmac-aes128gcm8-sha256-none": "aes256gmac aes128gcm8",
	} {
		p, err := ParseESP(text)
		if got := strings.Join(p.Ciphers(), " "); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
}

// RFC 8247 and 8221: every MUST and SHOULD that is neither for small devices nor on its way out.
func TestDefaultsHaveWhatPeersMustHave(t *testing.T) {
	for _, text := range []string{
		"aes128-sha256-prfsha256-modp2048", "aes256-sha512-prfsha512-ecp256", "aes128gcm16-prfsha256-ecp256", "chacha20poly1305-prfsha512-x25519",
	} {
		if _, _, err := Select(Offer(ike(t, text), nil), DefaultIKE(), Options{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"aes128-sha256-noesn", "aes256-sha256-esn", "aes256-sha512-noesn", "aes128-sha384-esn", "aes128gcm16-noesn", "chacha20poly1305-esn", "aes256gcm16-modp2048-noesn"} {
		if _, _, err := Select(Offer(esp(t, text), nil), DefaultESP(), Options{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, list := range [][]Proposal{DefaultIKE(), DefaultESP()} {
		for _, p := range list {
			for _, weak := range []uint16{message.KEMODP1024, message.KEMODP1536} {
				if slices.Contains(p.KE, weak) {
					t.Errorf("%s", p)
				}
			}
		}
	}
}

func TestDefaultsAreHybridFirst(t *testing.T) {
	offered := Offer(DefaultIKE(), nil)
	c, _, err := Select(offered, DefaultIKE(), Options{KE: DefaultIKE()[0].KE[0]})
	if err != nil || c.String() != "aes256gcm16-prfsha384-x25519-ke1_mlkem768" {
		t.Errorf("%v, %v", c, err)
	}
	// A peer that knows neither RFC 9242 nor RFC 9370.
	c, _, err = Select(offered, DefaultIKE(), Options{NoAdditional: true})
	if err != nil || c.String() != "aes256gcm16-prfsha384-x25519" {
		t.Errorf("%v, %v", c, err)
	}
	child, _, err := Select(Offer(DefaultESP(), nil), DefaultESP(), Options{})
	if err != nil || child.String() != "aes256gcm16-x25519-esn" {
		t.Errorf("%v, %v", child, err)
	}
	first, _, err := Select(Offer(DefaultESP(), nil), DefaultESP(), Options{NoKE: true})
	if err != nil || first.String() != "aes256gcm16-esn" {
		t.Errorf("%v, %v", first, err)
	}
}

func TestParseList(t *testing.T) {
	all := ike(t, "aes128-sha256-modp2048", "default")
	if len(all) != 1+len(DefaultIKE()) || all[0].String() != "aes128-sha256-prfsha256-modp2048" {
		t.Errorf("%v", all)
	}
	if len(ike(t)) != len(DefaultIKE()) {
		t.Error("an empty list is the default")
	}
	if _, err := ParseList([]string{"default", "nonsense"}, ParseESP, DefaultESP()); err == nil {
		t.Error("nonsense")
	}
}

func TestProposalOnTheWire(t *testing.T) {
	p := ike(t, "chacha20poly1305-aes128gcm16-prfsha256-x25519-ke2_mlkem768-ke2_none")[0]
	got := p.Message(3, []byte{1, 2})
	want := message.Proposal{Number: 3, Protocol: message.ProtocolIKE, SPI: []byte{1, 2}, Transforms: []message.Transform{
		{Type: 1, ID: 28}, {Type: 1, ID: 20, KeyLen: 128}, {Type: 2, ID: 5}, {Type: 4, ID: 31}, {Type: 7, ID: 36}, {Type: 7, ID: 0},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	q := esp(t, "aes256-sha256-x25519-none")[0]
	got = q.Message(1, []byte{1, 2, 3, 4})
	want = message.Proposal{Number: 1, Protocol: message.ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []message.Transform{
		{Type: 1, ID: 12, KeyLen: 256}, {Type: 3, ID: 12}, {Type: 4, ID: 31}, {Type: 4, ID: 0}, {Type: 5, ID: 1}, {Type: 5, ID: 0},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestChoiceReadsAsAProposal(t *testing.T) {
	for _, text := range []string{"aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke3_mlkem1024", "aes128-sha256-prfsha512-modp3072"} {
		if c := choiceOf(t, text); c.String() != text {
			t.Errorf("%q reads %q", text, c)
		}
	}
	c := choiceOf(t, "aes256gcm16-prfsha384-x25519-ke2_mlkem768-ke5_ecp256")
	if !slices.Equal(c.AdditionalKE(), []uint16{message.KEMLKEM768, message.KEECP256}) {
		t.Errorf("%v", c.AdditionalKE())
	}
	if text := (Choice{Encr: 99, KeyLen: 5, Integ: 98, PRF: 97, KE: 96}).String(); text != "encr99/5-integ98-prf97-ke96" {
		t.Errorf("%q", text)
	}
}

func FuzzParse(f *testing.F) {
	for _, list := range [][]Proposal{DefaultIKE(), DefaultESP()} {
		for _, p := range list {
			f.Add(p.String(), p.Protocol == message.ProtocolIKE)
		}
	}
	f.Add("aes256gcm16-prfsha384-ke1_ke1_x25519", true)
	f.Add("ke1_none-none", false)
	f.Fuzz(func(t *testing.T, s string, isIKE bool) {
		parse := ParseESP
		if isIKE {
			parse = ParseIKE
		}
		p, err := parse(s)
		if err != nil {
			return
		}
		again, err := parse(p.String())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q is %q and then %q, %v", s, p, again, err)
		}
		// What one side proposes both accept.
		c, answer, err := Select(Offer([]Proposal{p}, nil), []Proposal{p}, Options{})
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if other, err := Accept(answer, []Proposal{p}); err != nil || other != c {
			t.Fatalf("%q: %v, %v", p, other, err)
		}
	})
}

// words for random proposals of the tests of Select.
var someIKE = []string{"aes256gcm16", "aes128gcm16", "chacha20poly1305", "prfsha256", "prfsha384", "x25519", "ecp256", "modp2048", "ke1_mlkem768", "ke1_none", "ke2_x25519", "ke2_ecp256", "ke2_none"}
var someCBC = []string{"aes256", "aes128", "sha256", "sha384", "prfsha256", "x25519", "ecp256", "ke1_mlkem768", "ke1_none"}
var someESP = []string{"aes256gcm16", "aes128gcm16", "chacha20poly1305", "x25519", "ecp256", "none", "ke1_mlkem768", "ke1_none", "esn", "noesn"}

// randomProposals returns up to three valid proposals of one protocol.
func randomProposals(r *rand.Rand, isIKE bool) []Proposal {
	var all []Proposal
	for len(all) < 1+r.IntN(3) {
		from, parse := someESP, ParseESP
		if isIKE {
			from, parse = someIKE, ParseIKE
			if r.IntN(3) == 0 {
				from = someCBC
			}
		}
		var chosen []string
		for _, i := range r.Perm(len(from)) {
			if r.IntN(2) == 0 {
				chosen = append(chosen, from[i])
			}
		}
		if p, err := parse(strings.Join(chosen, "-")); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// naive lists every choice that a proposal leaves, by brute force.
func naive(p Proposal, m message.Proposal) map[Choice]bool {
	if p.Protocol != m.Protocol {
		return nil
	}
	of := func(t message.TransformType) (ids []uint16) {
		for _, x := range m.Transforms {
			if x.Type == t {
				ids = append(ids, x.ID)
			}
		}
		if len(ids) == 0 {
			ids = []uint16{0}
		}
		return ids
	}
	or := func(ids []uint16) []uint16 {
		if len(ids) == 0 {
			return []uint16{0}
		}
		return ids
	}
	both := func(a, b []uint16) (c []uint16) {
		for _, id := range a {
			if slices.Contains(b, id) {
				c = append(c, id)
			}
		}
		return c
	}
	all := make(map[Choice]bool)
	esns := []bool{false}
	if p.Protocol == message.ProtocolESP {
		esns = nil
		for _, esn := range p.ESN {
			if slices.Contains(of(message.TransformESN), map[bool]uint16{true: 1}[esn]) {
				esns = append(esns, esn)
			}
		}
	}
	var kes [][8]uint16
	var grow func(done [8]uint16, slot int)
	grow = func(done [8]uint16, slot int) {
		if slot == 8 {
			if done[0] == 0 && done != [8]uint16{} {
				return
			}
			kes = append(kes, done)
			return
		}
		own := or(p.KE)
		if slot > 0 {
			own = or(p.Additional[slot-1])
		}
		theirs := of(message.TransformKE)
		if slot > 0 {
			theirs = of(message.TransformADDKE + message.TransformType(slot-1))
		}
		for _, id := range both(own, theirs) {
			if id != 0 && slices.Contains(done[:slot], id) {
				continue
			}
			done[slot] = id
			grow(done, slot+1)
		}
	}
	grow([8]uint16{}, 0)
	for _, e := range p.Encr {
		if !slices.Contains(m.Transforms, encrTransform(e)) {
			continue
		}
		for _, integ := range both(or(p.Integ), of(message.TransformInteg)) {
			for _, prf := range both(or(p.PRF), of(message.TransformPRF)) {
				for _, esn := range esns {
					for _, ke := range kes {
						c := Choice{Encr: e.ID, KeyLen: e.KeyLen, Integ: integ, PRF: prf, KE: ke[0], ESN: esn}
						copy(c.Additional[:], ke[1:])
						all[c] = true
					}
				}
			}
		}
	}
	return all
}

func TestSelectAgreesWithTheNaiveOracle(t *testing.T) {
	r := rand.New(source(5))
	chosen := 0
	for n := range 4000 {
		isIKE := r.IntN(2) == 0
		own, theirs := randomProposals(r, isIKE), randomProposals(r, isIKE)
		offered := Offer(theirs, nil)
		c, answer, err := Select(offered, own, Options{})
		first, possible := -1, map[Choice]bool{}
		for i, p := range own {
			for _, m := range offered {
				if all := naive(p, m); len(all) > 0 && first < 0 {
					first, possible = i, all
				}
			}
		}
		if err != nil {
			if first >= 0 {
				t.Fatalf("%d: own %v, offered %v: %v", n, own, theirs, err)
			}
			continue
		}
		chosen++
		if !possible[c] {
			t.Fatalf("%d: own %v, offered %v: %v is not possible with own proposal %d", n, own, theirs, c, first)
		}
		if got, err := Accept(answer, theirs); err != nil || got != c {
			t.Fatalf("%d: own %v, offered %v: chose %v, the initiator has %v, %v", n, own, theirs, c, got, err)
		}
	}
	if chosen < 500 {
		t.Errorf("only %d of 4000 agreed", chosen)
	}
}

func TestOwnOrderWins(t *testing.T) {
	own := ike(t, "aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519", "aes256gcm16-prfsha512-x25519")
	theirs := ike(t, "aes256gcm16-prfsha512-x25519", "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp256")
	c, answer, err := Select(Offer(theirs, nil), own, Options{})
	if err != nil || c.String() != "aes128gcm16-prfsha256-ecp256" || answer.Number != 2 {
		t.Errorf("%v, %d, %v", c, answer.Number, err)
	}
	// The method of the KE payload saves a round trip, where the proposal allows it.
	c, _, _ = Select(Offer(theirs, nil), own, Options{KE: message.KECurve25519})
	if c.KE != message.KECurve25519 || c.Encr != message.EncrAESGCM16 || c.KeyLen != 128 {
		t.Errorf("%v", c)
	}
	// It never chooses another proposal than own order does: a hybrid stays one.
	hybrid := ike(t, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-ecp256")
	c, _, _ = Select(Offer(hybrid, nil), hybrid, Options{KE: message.KEECP256})
	if c.KE != message.KECurve25519 || c.Additional[0] != message.KEMLKEM768 {
		t.Errorf("%v", c)
	}
}

func TestSelectPassesOverWhatItDoesNotKnow(t *testing.T) {
	own := ike(t, "aes256gcm16-prfsha384-x25519")
	base := func() message.Proposal { return own[0].Message(1, nil) }
	for _, v := range []struct {
		what   string
		change func(*message.Proposal)
		ok     bool
	}{
		{"as it is", func(p *message.Proposal) {}, true},
		{"unknown algorithms of known types", func(p *message.Proposal) {
			p.Transforms = slices.Concat([]message.Transform{{Type: 1, ID: 1000}, {Type: 2, ID: 1000}, {Type: 4, ID: 1000}}, p.Transforms)
		}, true},
		{"an unknown type", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 13, ID: 1})
		}, false},
		{"type 0", func(p *message.Proposal) { p.Transforms = append(p.Transforms, message.Transform{}) }, false},
		{"a type of ESP", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: message.TransformESN, ID: 0})
		}, false},
		{"ADDKE1 that must be", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 6, ID: 36})
		}, false},
		{"ADDKE7 that may be left", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 12, ID: 36}, message.Transform{Type: 12, ID: 0})
		}, true},
		{"integrity that may be left", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 3, ID: 12}, message.Transform{Type: 3, ID: 0})
		}, true},
		{"integrity beside an AEAD", func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 3, ID: 12})
		}, false},
		{"another key length", func(p *message.Proposal) { p.Transforms[0].KeyLen = 128 }, false},
		{"no key length", func(p *message.Proposal) { p.Transforms[0].KeyLen = 0 }, false},
		{"an attribute that is not understood", func(p *message.Proposal) { p.Transforms[0].Unrecognized = true }, false},
		{"no PRF", func(p *message.Proposal) { p.Transforms = slices.Delete(p.Transforms, 1, 2) }, false},
		{"no key exchange", func(p *message.Proposal) { p.Transforms = slices.Delete(p.Transforms, 2, 3) }, false},
		{"nothing", func(p *message.Proposal) { p.Transforms = nil }, false},
		{"another protocol", func(p *message.Proposal) { p.Protocol = message.ProtocolESP }, false},
	} {
		p := base()
		v.change(&p)
		_, answer, err := Select([]message.Proposal{p}, own, Options{})
		if (err == nil) != v.ok {
			t.Errorf("%s: %v", v.what, err)
		}
		// Passed over, with a good one behind it.
		good := base()
		good.Number = 2
		if _, answer, err = Select([]message.Proposal{p, good}, own, Options{}); err != nil || (answer.Number == 1) != v.ok {
			t.Errorf("%s, then a good one: %d, %v", v.what, answer.Number, err)
		}
	}
}

// RFC 7296, 3.3.5: ChaCha20 has no key length; one that is sent makes it another transform.
func TestFixedKeyLengthsHaveNoAttribute(t *testing.T) {
	own := ike(t, "chacha20poly1305-prfsha256-x25519")
	m := own[0].Message(1, nil)
	if m.Transforms[0].KeyLen != 0 {
		t.Errorf("%+v", m.Transforms[0])
	}
	m.Transforms[0].KeyLen = 256
	if _, _, err := Select([]message.Proposal{m}, own, Options{}); err == nil {
		t.Error("accepted with a key length")
	}
}

func TestESNOfEitherSide(t *testing.T) {
	for _, v := range []struct{ own, theirs, want string }{
		{"aes256gcm16", "aes256gcm16-noesn", "aes256gcm16-noesn"},
		{"aes256gcm16", "aes256gcm16-esn", "aes256gcm16-esn"},
		{"aes256gcm16", "aes256gcm16-noesn-esn", "aes256gcm16-esn"},
		{"aes256gcm16-noesn", "aes256gcm16", "aes256gcm16-noesn"},
		{"aes256gcm16-noesn", "aes256gcm16-esn", ""},
	} {
		c, _, err := Select(Offer(esp(t, v.theirs), nil), esp(t, v.own), Options{})
		if v.want == "" {
			if err == nil {
				t.Errorf("%+v: %v", v, c)
			}
		} else if err != nil || c.String() != v.want {
			t.Errorf("%+v: %v, %v", v, c, err)
		}
	}
	// ESN is not optional (RFC 7296, 3.3.3).
	m := esp(t, "aes256gcm16")[0].Message(1, nil)
	m.Transforms = m.Transforms[:1]
	if _, _, err := Select([]message.Proposal{m}, esp(t, "aes256gcm16"), Options{}); err == nil {
		t.Error("accepted without ESN transform")
	}
}

func TestOptionalKeyExchangeOfChildren(t *testing.T) {
	for _, v := range []struct{ own, theirs, want string }{
		{"aes256gcm16-x25519-none", "aes256gcm16", "aes256gcm16-esn"},
		{"aes256gcm16", "aes256gcm16-x25519-none", "aes256gcm16-esn"},
		{"aes256gcm16-x25519-none", "aes256gcm16-x25519-none", "aes256gcm16-x25519-esn"},
		{"aes256gcm16-x25519", "aes256gcm16", ""},
		{"aes256gcm16", "aes256gcm16-x25519", ""},
		{"aes256gcm16-x25519-none-ke1_mlkem768-ke1_none", "aes256gcm16", "aes256gcm16-esn"},
		{"aes256gcm16-x25519-none-ke1_mlkem768", "aes256gcm16", ""},
	} {
		c, answer, err := Select(Offer(esp(t, v.theirs), nil), esp(t, v.own), Options{})
		if v.want == "" {
			if err == nil {
				t.Errorf("%+v: %v", v, c)
			}
			continue
		}
		if err != nil || c.String() != v.want {
			t.Errorf("%+v: %v, %v", v, c, err)
		}
		if got, err := Accept(answer, esp(t, v.theirs)); err != nil || got != c {
			t.Errorf("%+v: the initiator has %v, %v", v, got, err)
		}
	}
	// In IKE_AUTH, whatever is said of key exchanges does not count (RFC 7296, 1.2).
	c, answer, err := Select(Offer(esp(t, "aes256gcm16-x25519"), nil), esp(t, "aes256gcm16-modp2048"), Options{NoKE: true})
	if err != nil || c.KE != 0 || len(answer.Transforms) != 2 {
		t.Errorf("%v, %+v, %v", c, answer, err)
	}
	if _, err := Accept(answer, []Proposal{esp(t, "aes256gcm16-x25519")[0].WithoutKE()}); err != nil {
		t.Error(err)
	}
}

func TestNoMethodIsUsedTwice(t *testing.T) {
	// x25519 first would leave nothing for ADDKE1.
	own := ike(t, "aes256gcm16-prfsha384-x25519-ecp256-ke1_x25519")
	c, _, err := Select(Offer(own, nil), own, Options{KE: message.KECurve25519})
	if err != nil || c.KE != message.KEECP256 || c.Additional[0] != message.KECurve25519 {
		t.Errorf("%v, %v", c, err)
	}
	m := own[0].Message(1, nil)
	m.Transforms = slices.DeleteFunc(m.Transforms, func(t message.Transform) bool { return t.ID == message.KEECP256 })
	if c, _, err := Select([]message.Proposal{m}, own, Options{}); err == nil {
		t.Errorf("chose %v", c)
	}
	if c, err := Accept(m, own); err == nil {
		t.Errorf("accepted %v", c)
	}
}

func TestAcceptTakesOnlyWhatWasOffered(t *testing.T) {
	offered := ike(t, "aes256gcm16-aes128gcm16-prfsha384-x25519-ke1_mlkem768", "aes128-sha256-x25519-ecp256")
	good := func() message.Proposal {
		_, answer, err := Select(Offer(offered, nil), ike(t, "aes128gcm16-prfsha384-x25519-ke1_mlkem768"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if c, err := Accept(good(), offered); err != nil || c.String() != "aes128gcm16-prfsha384-x25519-ke1_mlkem768" {
		t.Fatalf("%v, %v", c, err)
	}
	for what, change := range map[string]func(*message.Proposal){
		"number 0":             func(p *message.Proposal) { p.Number = 0 },
		"the other's number":   func(p *message.Proposal) { p.Number = 2 },
		"a number not offered": func(p *message.Proposal) { p.Number = 3 },
		"number 255":           func(p *message.Proposal) { p.Number = 255 },
		"another protocol":     func(p *message.Proposal) { p.Protocol = message.ProtocolESP },
		"another key length":   func(p *message.Proposal) { p.Transforms[0].KeyLen = 192 },
		"another PRF":          func(p *message.Proposal) { p.Transforms[1].ID = message.PRFHMACSHA1 },
		"another group":        func(p *message.Proposal) { p.Transforms[2].ID = message.KEECP256 },
		"without ADDKE1":       func(p *message.Proposal) { p.Transforms = p.Transforms[:3] },
		"ADDKE1 NONE":          func(p *message.Proposal) { p.Transforms[3].ID = message.KENone },
		"two encryptions": func(p *message.Proposal) {
			p.Transforms = append(p.Transforms, message.Transform{Type: 1, ID: 20, KeyLen: 256})
		},
		"the same thing twice": func(p *message.Proposal) { p.Transforms = append(p.Transforms, p.Transforms[1]) },
		"an additional type":   func(p *message.Proposal) { p.Transforms = append(p.Transforms, message.Transform{Type: 7, ID: 37}) },
		"integrity of nowhere": func(p *message.Proposal) { p.Transforms = append(p.Transforms, message.Transform{Type: 3, ID: 12}) },
		"an unknown attribute": func(p *message.Proposal) { p.Transforms[0].Unrecognized = true },
		"nothing":              func(p *message.Proposal) { p.Transforms = nil },
	} {
		p := good()
		change(&p)
		if c, err := Accept(p, offered); err == nil {
			t.Errorf("%s: accepted as %v", what, c)
		}
	}
}

// C5: a forged INVALID_KE_PAYLOAD must not talk us into a group that is not ours.
func TestOnlyOwnGroupsMayBeAskedFor(t *testing.T) {
	own := ike(t, "aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-ecp384-ke1_mlkem768")
	for method, want := range map[uint16]bool{31: true, 20: true, 19: false, 14: false, 2: false, 36: false, 0: false} {
		if OffersKE(own, method) != want {
			t.Errorf("method %d: %t", method, !want)
		}
	}
}

func TestWithoutAdditional(t *testing.T) {
	if _, ok := ike(t, "aes256gcm16-prfsha384-x25519-ke1_mlkem768")[0].WithoutAdditional(); ok {
		t.Error("a demand was dropped")
	}
	p, ok := ike(t, "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none")[0].WithoutAdditional()
	if !ok || p.String() != "aes256gcm16-prfsha384-x25519" {
		t.Errorf("%v, %v", p, ok)
	}
}

func TestDescriptionsOfOffersAreBounded(t *testing.T) {
	p := message.Proposal{Protocol: message.ProtocolIKE}
	for range message.TransformsMax {
		p.Transforms = append(p.Transforms, message.Transform{Type: 200, ID: 65535})
	}
	offered := slices.Repeat([]message.Proposal{p}, message.ProposalsMax)
	_, _, err := Select(offered, DefaultIKE(), Options{})
	if err == nil || len(err.Error()) > 2*describeMax+len(describeOwn(DefaultIKE())) {
		t.Errorf("%d bytes", len(fmt.Sprint(err)))
	}
	got := Describe([]message.Proposal{{Transforms: []message.Transform{
		{Type: 1, ID: 3}, {Type: 1, ID: 12, KeyLen: 128}, {Type: 3, ID: 2}, {Type: 2, ID: 2}, {Type: 4, ID: 2}, {Type: 5, ID: 0}, {Type: 5, ID: 9}, {Type: 6, ID: 36}, {Type: 77, ID: 1},
	}}, {}})
	if got != "encr3-aes128-integ2-prf2-ke2-noesn-type5/9-ke1_mlkem768-type77/1, " {
		t.Errorf("%q", got)
	}
}

func FuzzSelect(f *testing.F) {
	sa := func(list []Proposal, spi []byte) []byte {
		return (&message.SA{Proposals: Offer(list, spi)}).AppendBody(nil)
	}
	f.Add(sa(DefaultIKE(), nil), uint16(31), false)
	f.Add(sa(DefaultESP(), []byte{1, 2, 3, 4}), uint16(0), true)
	r := rand.New(source(6))
	for range 20 {
		f.Add(sa(randomProposals(r, true), nil), uint16(31), false)
		f.Add(sa(randomProposals(r, false), []byte{1, 2, 3, 4}), uint16(19), true)
	}
	own := slices.Concat(ike(f, "aes256gcm16-prfsha384-x25519-ecp256-ke1_mlkem768-ke1_none-ke3_x25519-ke3_none", "default"), esp(f))
	f.Fuzz(func(t *testing.T, body []byte, ke uint16, noKE bool) {
		chain := append([]byte{0, 0, byte((len(body) + 4) >> 8), byte(len(body) + 4)}, body...)
		payloads, err := message.ParsePayloads(message.TypeSA, chain)
		if err != nil {
			return
		}
		offered := payloads[0].(*message.SA).Proposals
		c, answer, err := Select(offered, own, Options{KE: ke, NoKE: noKE})
		Accept(offered[0], own)
		if err != nil {
			return
		}
		if noKE {
			return
		}
		// The answer has one of each type, all of them offered.
		from := offered[slices.IndexFunc(offered, func(p message.Proposal) bool { return p.Number == answer.Number })]
		types := map[message.TransformType]bool{}
		for _, transform := range answer.Transforms {
			if types[transform.Type] || !slices.Contains(from.Transforms, transform) {
				t.Fatalf("answer %+v to %+v", answer, from)
			}
			types[transform.Type] = true
		}
		for _, transform := range from.Transforms {
			if !types[transform.Type] {
				t.Fatalf("answer %+v to %+v", answer, from)
			}
		}
		// No method twice.
		seen := map[uint16]bool{}
		for _, id := range append(c.AdditionalKE(), c.KE) {
			if id != 0 && seen[id] {
				t.Fatalf("%v", c)
			}
			seen[id] = true
		}
	})
}

func BenchmarkSelectDefault(b *testing.B) {
	offered := Offer(DefaultIKE(), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Select(offered, DefaultIKE(), Options{KE: message.KECurve25519}); err != nil {
			b.Fatal(err)
		}
	}
}
