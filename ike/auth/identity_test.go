package auth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"sallyport/ike/message"
)

func id(t testing.TB, s string) Identity {
	t.Helper()
	i, err := ParseIdentity(s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func pattern(t testing.TB, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIdentityTextDecidesItsType(t *testing.T) {
	for _, c := range []struct {
		text string
		want Identity
		back string // what String writes; empty = text
	}{
		{"192.0.2.1", Identity{message.IDIPv4Addr, "\xc0\x00\x02\x01"}, ""},
		{"::ffff:192.0.2.1", Identity{message.IDIPv4Addr, "\xc0\x00\x02\x01"}, "192.0.2.1"},
		{"2001:db8::1", Identity{message.IDIPv6Addr, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"}, ""},
		{"gw.example.org", Identity{message.IDFQDN, "gw.example.org"}, ""},
		{"@gw.example.org", Identity{message.IDFQDN, "gw.example.org"}, "gw.example.org"},
		{"fqdn:192.0.2.1", Identity{message.IDFQDN, "192.0.2.1"}, ""},
		{"carol@example.org", Identity{message.IDRFC822Addr, "carol@example.org"}, ""},
		{"@@carol@example.org", Identity{message.IDRFC822Addr, "carol@example.org"}, "carol@example.org"},
		{"@#0a0b", Identity{message.IDKeyID, "\x0a\x0b"}, "keyid:#0a0b"},
		{"keyid:site 7", Identity{message.IDKeyID, "site 7"}, ""},
		{"keyid:#00ff", Identity{message.IDKeyID, "\x00\xff"}, ""},
		{"C=CH, O=Example, CN=gw", Identity{message.IDDERASN1DN, "\x30\x2c\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CH\x31\x10\x30\x0e\x06\x03\x55\x04\x0a\x13\x07Example\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x13\x02gw"}, ""},
	} {
		got, err := ParseIdentity(c.text)
		if err != nil || got != c.want {
			t.Errorf("%q: %v %q, %v", c.text, got.Type, got.Data, err)
			continue
		}
		back := c.back
		if back == "" {
			back = c.text
		}
		if got.String() != back {
			t.Errorf("%q is written %q", c.text, got.String())
		}
		if again, err := ParseIdentity(got.String()); err != nil || again != got {
			t.Errorf("%q does not come back from %q", c.text, got.String())
		}
	}
	for _, bad := range []string{"", "ipv4:2001:db8::1", "ipv4:gw", "a b.example.org", "*.example.org", "@", "C=", "XX=1", "C=CH, O", "keyid:", "keyid:#0", "asn1dn:#3000ff", "2001:db8::zz", "192.0.2.0/24", "user@", strings.Repeat("a", 3000), "CN=" + strings.Repeat("a", 3000)} {
		if got, err := ParseIdentity(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

func TestDistinguishedNamesAreEqualByMeaning(t *testing.T) {
	a := id(t, "C=CH, O=Example Org, CN=gw.example.org")
	for _, same := range []string{"C=ch,O=example  org,CN=GW.example.org", "/C=CH/O=Example Org/CN=gw.example.org", "2.5.4.6=CH, O=Example Org, CN=gw.example.org"} {
		if !id(t, same).Equal(a) {
			t.Errorf("%q is another name", same)
		}
	}
	for _, other := range []string{"O=Example Org, C=CH, CN=gw.example.org", "C=CH, O=ExampleOrg, CN=gw.example.org", "C=CH, O=Example Org", "C=CH, O=Example Org, CN=gw.example.org, OU=x", "C=CH, O=Example Org + CN=gw.example.org", "C=CH, O=Example Org, OU=gw.example.org"} {
		if id(t, other).Equal(a) {
			t.Errorf("%q is the same name", other)
		}
	}
	// An authority may write UTF8String where we write PrintableString.
	utf8, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("gw")}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !(Identity{message.IDDERASN1DN, string(utf8)}).Equal(id(t, "CN=gw")) {
		t.Error("the encoding of a string makes another name")
	}
	if id(t, "Carol@example.org").Equal(id(t, "carol@example.org")) || !id(t, "carol@Example.org").Equal(id(t, "carol@example.ORG")) {
		t.Error("of a mail address only the host is without case")
	}
	if id(t, "fqdn:192.0.2.1").Equal(id(t, "192.0.2.1")) {
		t.Error("identities of two types are equal")
	}
	escaped := id(t, `O=Example\, Ltd\+, CN=a\=b\/c`)
	if again := id(t, escaped.String()); again != escaped {
		t.Errorf("%q becomes %q", escaped.String(), again.String())
	}
}

func TestPatternsMatchWhatTheySay(t *testing.T) {
	for _, c := range []struct{ pattern, yes, no string }{
		{"%any", "gw.example.org 192.0.2.1 C=CH,O=x", ""},
		{"gw.example.org", "GW.example.org", "gw2.example.org"},
		{"*.example.org", "a.example.org a.b.Example.org", "example.org xexample.org a.example.org.net carol@a.example.org"},
		{"*@example.org", "carol@example.org", "carol@a.example.org example.org"},
		{"192.0.2.0/24", "192.0.2.7", "192.0.3.7 fqdn:192.0.2.7"},
		{"2001:db8::/32", "2001:db8:1::1", "192.0.2.7"},
		{"C=CH,O=Example,CN=*", "C=CH,O=Example,CN=x c=ch,o=example,CN=y", "C=CH,O=Other,CN=x C=CH,O=Example C=CH,O=Example,CN=x,OU=y"},
	} {
		p := pattern(t, c.pattern)
		for _, s := range strings.Fields(c.yes) {
			if !p.Matches(id(t, s)) {
				t.Errorf("%s does not match %s", c.pattern, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if p.Matches(id(t, s)) {
				t.Errorf("%s matches %s", c.pattern, s)
			}
		}
		if p.Matches(Identity{}) {
			t.Errorf("%s matches no identity at all", c.pattern)
		}
		if again, err := ParsePattern(p.String()); err != nil || again.String() != p.String() {
			t.Errorf("%s is written %s", c.pattern, p)
		}
	}
	order := []string{"%any", "*.org", "*.example.org", "a.example.org"}
	for i := 1; i < len(order); i++ {
		if pattern(t, order[i]).Specificity() <= pattern(t, order[i-1]).Specificity() {
			t.Errorf("%s is not narrower than %s", order[i], order[i-1])
		}
	}
}

func TestPatternsAreReadAsTheyAreWritten(t *testing.T) {
	for _, s := range []string{
		"fqdn:#612F", "fqdn:#612f3234", "fqdn:%any", "fqdn:a/b", "keyid:a/b", "keyid:192.0.2.0/24", "keyid:*.example.org", "keyid:@*.example.org", "keyid:*@example.org",
		"keyid:%any", "keyid:*", "keyid:CN=*", "*.#6120", "a/b@example.org", "@a/b", "email:*@a=b", "fqdn:*.a=b", "*.example.org.", "fqdn:#2a2e6578616d706c65", "email:#2a4061",
		"ipv6:#00000000000000000000ffffc0000201", "::ffff:192.0.2.0/120", "ipv4:192.0.2.0/24", "CN=*, O=\\*", "CN=*, O=\\#00", "asn1dn:CN=*",
	} {
		p := pattern(t, s)
		if again, err := ParsePattern(p.String()); err != nil || !sameSet(again, p) {
			t.Errorf("%q is written %q, which is another pattern: %v", s, p, err)
		}
	}
	for _, exact := range []string{"fqdn:%any", "keyid:*", "keyid:*.example.org", "keyid:192.0.2.0/24", "keyid:CN=*", "a/b@example.org"} {
		if _, ok := pattern(t, exact).Exact(); !ok {
			t.Errorf("%q matches more than one identity", exact)
		}
	}
	for _, bad := range []string{"*.", "@*.", "*..", "fqdn:*.", "*@", "*.a\u00a0.", "*.a\n.", "192.0.2.0/33", "ipv4:2001:db8::/32", "fqdn:192.0.2.0/24*", "email:*.example.org", "ipv4:*.example.org", "ipv4:@*.example.org", "192.0.2.1/24", "a.*.org", "", "**@x", "O=*, CN=" + strings.Repeat("a", 3000)} {
		if p, err := ParsePattern(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, p)
		}
	}
	if i, err := ParseIdentity("%any"); err == nil {
		t.Errorf("%%any is taken for the identity %v", i)
	}
}

// sameSet says that two patterns match the same, however they are written.
func sameSet(a, b Pattern) bool { return a.kind == b.kind && a.id == b.id && a.net == b.net }

func FuzzIdentity(f *testing.F) {
	for _, s := range []string{"fqdn:#612F", "keyid:%any", "*.#6120", "fqdn:*.a=b", "CN=*, O=\\ x", "192.0.2.0/24", "192.0.2.1", "gw.example.org", "@@c@example.org", "C=CH, O=Example\\, x + OU=y, CN=gw", "keyid:#00", "keyid:#20", "keyid:#2061", "fqdn:#6120", "#2A", "/C=CH/CN=x", "asn1dn:#3000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePattern(s); err == nil {
			if again, err := ParsePattern(p.String()); err != nil || !sameSet(again, p) {
				t.Fatalf("pattern %q is written %q, which is another: %v", s, p.String(), err)
			}
		}
		i, err := ParseIdentity(s)
		if err != nil {
			return
		}
		again, err := ParseIdentity(i.String())
		if err != nil || !again.Equal(i) {
			t.Fatalf("%q is written %q, which is %q: %v", s, i.String(), again.Data, err)
		}
		if !ExactPattern(i).Matches(i) || i.Canonical().Canonical() != i.Canonical() {
			t.Fatalf("%q does not match itself", s)
		}
	})
}

// FuzzName gives arbitrary bytes as a peer's ID payload.
func FuzzName(f *testing.F) {
	dn, _ := ParseIdentity("C=CH, O=Example, CN=gw")
	f.Add(uint8(message.IDDERASN1DN), dn.Data)
	f.Add(uint8(message.IDFQDN), "gw")
	like, _ := ParsePattern("C=CH, O=*, CN=*")
	f.Fuzz(func(t *testing.T, kind uint8, data string) {
		i := Identity{message.IDType(kind), data}
		_ = i.String()
		if i.Canonical().Canonical() != i.Canonical() {
			t.Fatal("canonical form is not stable")
		}
		like.Matches(i)
	})
}
