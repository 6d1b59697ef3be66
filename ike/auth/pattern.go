package auth

import (
	"fmt"
	"net/netip"
	"strings"

	"sallyport/ike/message"
)

// Pattern is a set of identities: one of them, all of them ("%any", the zero Pattern),
// the hosts below a domain ("*.example.org"), the mail addresses of a host
// ("*@example.org"), the addresses of a prefix ("192.0.2.0/24"), or the distinguished
// names that agree but for attributes whose value is "*". It is comparable.
type Pattern struct {
	kind    patternKind
	id      Identity // exact: canonical; subtree and mail: what must stand at the end; name: canonical, "*" for any value
	net     netip.Prefix
	text    Identity // exact: as written, to be sent
	written string   // subtree, mail and name: what was parsed
}

// anyWord is how swanctl.conf writes the pattern of all identities.
const anyWord = "%any"

type patternKind uint8

const (
	anyIdentity patternKind = iota
	exactIdentity
	hostsBelow
	mailAt
	addressIn
	nameLike
)

// ExactPattern matches one identity only.
func ExactPattern(id Identity) Pattern {
	return Pattern{kind: exactIdentity, id: id.Canonical(), text: id}
}

// ParsePattern reads a pattern; what has no wildcard in it is read as ParseIdentity does.
func ParsePattern(s string) (Pattern, error) {
	s = strings.TrimSpace(s)
	t, bare := message.IDType(0), s
	if word, rest, ok := strings.Cut(s, ":"); ok && typeWords[word] != 0 {
		t, bare = typeWords[word], rest
	}
	may := func(want message.IDType) bool { return t == 0 || t == want }
	switch {
	case s == anyWord || s == "*":
		return Pattern{}, nil
	case strings.Contains(bare, "=") && strings.Contains(bare, "*") && may(message.IDDERASN1DN):
		id, err := typedIdentity(message.IDDERASN1DN, bare)
		if err != nil {
			return Pattern{}, err
		}
		return Pattern{kind: nameLike, id: id.Canonical(), written: s}, nil
	case strings.HasPrefix(bare, "*.") && may(message.IDFQDN), strings.HasPrefix(s, "@*."):
		return endsWith(hostsBelow, message.IDFQDN, strings.TrimPrefix(bare, "@")[1:], s)
	case strings.HasPrefix(bare, "*@") && may(message.IDRFC822Addr):
		return endsWith(mailAt, message.IDRFC822Addr, bare[1:], s)
	case strings.Contains(bare, "/") && !strings.ContainsAny(bare, "=@") && (may(message.IDIPv4Addr) || may(message.IDIPv6Addr)):
		p, err := netip.ParsePrefix(bare)
		if err != nil || p.Masked() != p || t != 0 && p.Addr().Is4() != (t == message.IDIPv4Addr) {
			return Pattern{}, fmt.Errorf("identity %q is not a prefix of addresses", s)
		}
		return Pattern{kind: addressIn, net: p}, nil
	}
	id, err := ParseIdentity(s)
	if err != nil {
		return Pattern{}, err
	}
	return ExactPattern(id), nil
}

// endsWith is the pattern, written so, of identities of a type that have something in front of that end.
func endsWith(kind patternKind, t message.IDType, end, written string) (Pattern, error) {
	const something = "any"
	id, err := typedIdentity(t, something+end)
	if err == nil && id.Data == something+"." {
		err = fmt.Errorf("identity %q names no domain", written)
	}
	if err != nil {
		return Pattern{}, err
	}
	return Pattern{kind: kind, id: Identity{id.Type, id.Canonical().Data[len(something):]}, written: written}, nil
}

// IsAny says that every identity matches.
func (p Pattern) IsAny() bool { return p.kind == anyIdentity }

// Exact returns the one identity that matches, as it was written; ok is false if there
// may be others.
func (p Pattern) Exact() (id Identity, ok bool) { return p.text, p.kind == exactIdentity }

// Matches says whether the identity is in the set.
func (p Pattern) Matches(id Identity) bool {
	switch p.kind {
	case anyIdentity:
		return !id.IsZero()
	case exactIdentity:
		return id.Type == p.id.Type && id.Canonical() == p.id
	case hostsBelow, mailAt:
		c := id.Canonical()
		return c.Type == p.id.Type && len(c.Data) > len(p.id.Data) && strings.HasSuffix(c.Data, p.id.Data)
	case addressIn:
		a, ok := id.address()
		return ok && p.net.Contains(a)
	}
	if id.Type != message.IDDERASN1DN {
		return false
	}
	want, err := parseName(p.id.Data)
	if err != nil {
		return false
	}
	have, err := parseName(id.Canonical().Data)
	return err == nil && want.like(have)
}

// like compares canonical names, "*" of the receiver standing for any value.
func (n name) like(other name) bool {
	if len(n) != len(other) {
		return false
	}
	for i, relative := range n {
		if len(relative) != len(other[i]) {
			return false
		}
		for j, a := range relative {
			b := other[i][j]
			if a.oid != b.oid || a.value != "*" && (a.tag != b.tag || a.value != b.value) {
				return false
			}
		}
	}
	return true
}

func (id Identity) address() (netip.Addr, bool) {
	if id.Type != message.IDIPv4Addr && id.Type != message.IDIPv6Addr {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice([]byte(id.Data))
}

// Specificity orders patterns that match one identity: 0 for all identities, more for
// fewer, and the most for one. Among sets of a kind the one inside of the other is higher.
func (p Pattern) Specificity() int {
	switch p.kind {
	case anyIdentity:
		return 0
	case exactIdentity:
		return 1 << 16
	case addressIn:
		return 1 + p.net.Bits()
	case nameLike:
		n, _ := parseName(p.id.Data)
		s := 1
		for _, relative := range n {
			for _, a := range relative {
				if a.value != "*" {
					s++
				}
			}
		}
		return s
	}
	return len(p.id.Data)
}

// String writes the pattern as ParsePattern reads it.
func (p Pattern) String() string {
	switch p.kind {
	case anyIdentity:
		return anyWord
	case exactIdentity:
		if back, err := ParsePattern(p.text.String()); err != nil || back.kind != exactIdentity || back.id != p.id {
			return p.text.hex()
		}
		return p.text.String()
	case addressIn:
		return p.net.String()
	}
	return p.written
}
