package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sallyport/ike/message"
)

func TestPSKAuthIsTheFormulaOfTheRFC(t *testing.T) {
	mac := func(key, b []byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(b)
		return m.Sum(nil)
	}
	secret, octets := []byte("a secret"), []byte("some octets")
	want := mac(mac(secret, []byte("Key Pad for IKEv2")), octets)
	got := PSKAuth(message.PRFHMACSHA2256, secret, octets)
	if !hmac.Equal(got, want) {
		t.Fatalf("%x, want %x", got, want)
	}
	ok := &message.Auth{Method: message.AuthSharedKey, Data: want}
	if err := VerifyPSK(message.PRFHMACSHA2256, secret, octets, ok); err != nil {
		t.Error(err)
	}
	if err := VerifyPSK(message.PRFHMACSHA2256, []byte("b secret"), octets, ok); !errors.Is(err, ErrProof) {
		t.Error("another secret:", err)
	}
	for _, n := range []int{0, 1, 31} {
		if err := VerifyPSK(message.PRFHMACSHA2256, secret, octets, &message.Auth{Method: message.AuthSharedKey, Data: want[:n]}); !errors.Is(err, ErrProof) {
			t.Error("a prefix:", err)
		}
	}
	for _, m := range []message.AuthMethod{message.AuthNull, message.AuthRSA, message.AuthDigitalSignature} {
		if err := VerifyPSK(message.PRFHMACSHA2256, secret, octets, &message.Auth{Method: m, Data: want}); !errors.Is(err, ErrMethod) {
			t.Error(m, err)
		}
	}
}

// C13.
func TestWeakSecretsAreRefused(t *testing.T) {
	weak := []string{
		"secret", "password", "short but odd!", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abcabcabcabcabcabcabcabcabcabcabc",
		"12345678901234567890123456789012", "abcdefghijklmnopqrstuvwxyz0123456789", "qwertyuiopasdfghjklzxcvbnm1234567890",
		"correct horse battery staple", "Password123Password123Password123", "thisisthesecretofourtunnel2024", "P@ssw0rdP@ssw0rdP@ssw0rd",
		"VPN-Tunnel-Zurich-Geneva-2026!", "00000000000000000000000000000000ffffffff", "0123456789abcdef0123456789abcdef",
		"ourtunnelsecretbetweenzurichandgeneva", "THISISTHESECRETOFOURTUNNELPLEASE", "thequickbrownfoxjumpsoverthelazydog",
	}
	for _, s := range weak {
		err := CheckSecret([]byte(s))
		if err == nil {
			t.Errorf("%q passes with %.0f bits", s, Strength([]byte(s)))
		} else if s != "secret" && strings.Contains(err.Error(), s) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
}

// What a generator makes passes: always with digits among its characters, and but for some that happen to read like words
// where it has hardly any.
func TestGeneratedSecretsPass(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	const each = 3000
	refused := map[string]int{}
	for range each {
		b := make([]byte, 32)
		r.Read(b)
		for kind, s := range map[string]string{
			"base64 of 32 bytes": base64.StdEncoding.EncodeToString(b), "base64 of 24": base64.StdEncoding.EncodeToString(b[:24]), "base64 of 17": base64.RawURLEncoding.EncodeToString(b[:17]),
			"hex of 32 bytes": hex.EncodeToString(b), "hex of 16": hex.EncodeToString(b[:16]),
			"32 bytes": string(b), "16 bytes": string(b[:16]),
			"26 characters of base32": base32.StdEncoding.EncodeToString(b)[:26], "26 small ones": strings.ToLower(base32.StdEncoding.EncodeToString(b)[:26]),
		} {
			if err := CheckSecret([]byte(s)); err != nil {
				refused[kind]++
			}
		}
	}
	for kind, n := range refused {
		if !strings.HasPrefix(kind, "26") || n > each/100 {
			t.Errorf("%s: %d of %d refused", kind, n, each)
		}
	}
}

func TestSecretsAreReadAsSwanctlWritesThem(t *testing.T) {
	for text, want := range map[string]string{"plain": "plain", "0x0a0B": "\n\v", "0sYWJj": "abc"} {
		if got, err := ParseSecret(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "0x", "0x1", "0xzz", "0s", "0s*deadbeef*"} {
		if _, err := ParseSecret(bad); err == nil {
			t.Errorf("%q passes", bad)
		} else if len(bad) > 3 && strings.Contains(err.Error(), bad[2:]) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := Secret{Name: "ike-b", Secret: []byte("hidden")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(verb, s) + fmt.Sprintf(verb, &s) + fmt.Sprintf(verb, []Secret{s}); strings.Contains(out, "hidden") || strings.Contains(out, "104") {
			t.Errorf("%s writes %s", verb, out)
		}
	}
}

// The most specific secret wins, and one that two peers share is never for a third.
func TestSecretIsThePeersOwn(t *testing.T) {
	ids := func(s ...string) (all []Pattern) {
		for _, x := range s {
			all = append(all, pattern(t, x))
		}
		return all
	}
	m := Material{Secrets: []Secret{
		{Name: "all", Secret: []byte("all")},
		{Name: "domain", IDs: ids("*.example.org"), Secret: []byte("domain")},
		{Name: "sub", IDs: ids("*.b.example.org"), Secret: []byte("sub")},
		{Name: "b", IDs: ids("b.example.org"), Secret: []byte("b")},
		{Name: "us-and-b", IDs: ids("us.example.net", "b.example.org"), Secret: []byte("us-and-b")},
		{Name: "late", IDs: ids("us.example.net", "b.example.org"), Secret: []byte("late")},
		{Name: "addr", IDs: ids("192.0.2.7"), Secret: []byte("addr")},
		{Name: "us2", IDs: ids("us2.example.net"), Secret: []byte("us2")},
		{Name: "us3-and-c", IDs: ids("us3.example.net", "c.example.com"), Secret: []byte("us3-and-c")},
	}}
	s, err := NewStore(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ local, remote, want string }{
		{"us.example.net", "b.example.org", "us-and-b"},
		{"other.example.net", "b.example.org", "b"},
		{"us.example.net", "B.Example.ORG", "us-and-b"},
		{"us.example.net", "a.example.org", "domain"},
		{"us.example.net", "x.b.example.org", "sub"},
		{"us.example.net", "192.0.2.7", "addr"},
		{"us.example.net", "somebody@example.com", "all"},
		{"us2.example.net", "somebody@example.com", "us2"},
		{"us2.example.net", "b.example.org", "b"},
		{"us3.example.net", "c.example.com", "us3-and-c"},
		{"us3.example.net", "d.example.com", "all"},
	} {
		got, err := s.PSK(id(t, c.local), id(t, c.remote))
		if err != nil || string(got) != c.want {
			t.Errorf("%s with %s: %s, %v; want %s", c.local, c.remote, got, err, c.want)
		}
	}
	m.Secrets = m.Secrets[1:]
	if s, err = NewStore(m); err != nil {
		t.Fatal(err)
	}
	if got, err := s.PSK(id(t, "us3.example.net"), id(t, "d.example.com")); !errors.Is(err, ErrNoSecret) {
		t.Errorf("a secret of two is given to a third: %s", got)
	}
	if _, err := (*Store)(nil).PSK(id(t, "a"), id(t, "b")); !errors.Is(err, ErrNoSecret) {
		t.Error(err)
	}
	if _, err := NewStore(Material{Secrets: []Secret{{Name: "empty"}}}); err == nil {
		t.Error("an empty secret is taken")
	}
}

func BenchmarkPSKOfTenThousand(b *testing.B) {
	var m Material
	for i := range 10000 {
		m.Secrets = append(m.Secrets, Secret{IDs: []Pattern{ExactPattern(Identity{message.IDFQDN, fmt.Sprintf("gw%d", i)})}, Secret: []byte("x")})
	}
	s, _ := NewStore(m)
	local, remote := Identity{message.IDFQDN, "us"}, Identity{message.IDFQDN, "gw7777"}
	for b.Loop() {
		if _, err := s.PSK(local, remote); err != nil {
			b.Fatal(err)
		}
	}
}
