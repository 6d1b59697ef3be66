package auth

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"sallyport/ike/message"
)

// Identity is an IKE identity (RFC 7296, 3.5) in comparable form: Data holds the
// payload's bytes. The zero Identity is none at all.
type Identity struct {
	Type message.IDType
	Data string
}

// IdentityOf is the identity that a payload carries.
func IdentityOf(p *message.ID) Identity { return Identity{p.IDType, string(p.Data)} }

// AddressIdentity is what an end calls itself that has no other name.
func AddressIdentity(a netip.Addr) Identity {
	a = a.Unmap()
	t := message.IDIPv4Addr
	if a.Is6() {
		t = message.IDIPv6Addr
	}
	return Identity{t, string(a.AsSlice())}
}

// ParseIdentity reads an identity as swanctl.conf writes it: an address, a name with
// or without "@" before it, an e-mail address, a distinguished name ("C=CH, O=Example,
// CN=gw"), "@#0a0b" and "keyid:..." for a key ID; or any of them behind the word for
// its type: "fqdn:", "email:", "asn1dn:", "ipv4:", "ipv6:", "keyid:". After such a word
// "#" begins hexadecimal bytes.
func ParseIdentity(s string) (Identity, error) {
	s = strings.TrimSpace(s)
	switch word, rest, ok := strings.Cut(s, ":"); {
	case s == "":
		return Identity{}, fmt.Errorf("an identity is empty")
	case s == anyWord:
		return Identity{}, fmt.Errorf("%s stands for every identity, not for one", anyWord)
	case ok && typeWords[word] != 0:
		return typedIdentity(typeWords[word], rest)
	case strings.Contains(s, "="):
		return typedIdentity(message.IDDERASN1DN, s)
	case strings.HasPrefix(s, "@#"):
		return typedIdentity(message.IDKeyID, s[1:])
	case strings.HasPrefix(s, "@@"):
		return typedIdentity(message.IDRFC822Addr, s[2:])
	case strings.HasPrefix(s, "@"):
		return typedIdentity(message.IDFQDN, s[1:])
	case strings.Contains(s, "@"):
		return typedIdentity(message.IDRFC822Addr, s)
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return AddressIdentity(a), nil
	}
	if strings.ContainsAny(s, ":/") {
		return Identity{}, fmt.Errorf("identity %q is neither an address nor a name; a key ID is written keyid:%s", s, s)
	}
	return typedIdentity(message.IDFQDN, s)
}

var typeWords = map[string]message.IDType{
	"ipv4": message.IDIPv4Addr, "ipv6": message.IDIPv6Addr,
	"fqdn": message.IDFQDN, "dns": message.IDFQDN,
	"email": message.IDRFC822Addr, "rfc822": message.IDRFC822Addr, "userfqdn": message.IDRFC822Addr,
	"asn1dn": message.IDDERASN1DN, "keyid": message.IDKeyID,
}

// typedIdentity reads the text of an identity whose type is known.
func typedIdentity(t message.IDType, s string) (Identity, error) {
	if digits, ok := strings.CutPrefix(s, "#"); ok {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return Identity{}, fmt.Errorf("identity %q: %w", s, err)
		}
		return checkedIdentity(Identity{t, string(b)})
	}
	switch t {
	case message.IDIPv4Addr, message.IDIPv6Addr:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4() != (t == message.IDIPv4Addr) {
			return Identity{}, fmt.Errorf("identity %q is not an address of its type", s)
		}
		return AddressIdentity(a), nil
	case message.IDDERASN1DN:
		der, err := encodeName(s)
		if err != nil {
			return Identity{}, fmt.Errorf("identity %q: %w", s, err)
		}
		return checkedIdentity(Identity{t, string(der)})
	case message.IDFQDN:
		if strings.ContainsAny(s, "*@") || strings.ContainsFunc(s, blank) {
			return Identity{}, fmt.Errorf("identity %q is not a host's name", s)
		}
	case message.IDRFC822Addr:
		if user, host, ok := strings.Cut(s, "@"); !ok || user == "" || host == "" || strings.Contains(s, "*") || strings.ContainsFunc(s, blank) {
			return Identity{}, fmt.Errorf("identity %q is not an e-mail address", s)
		}
	}
	return checkedIdentity(Identity{t, s})
}

func checkedIdentity(id Identity) (Identity, error) {
	n, want := len(id.Data), -1
	switch id.Type {
	case message.IDIPv4Addr:
		want = 4
	case message.IDIPv6Addr:
		want = 16
	case message.IDDERASN1DN:
		if n, err := parseName(id.Data); err != nil || len(n) == 0 {
			return Identity{}, errName
		}
	case message.IDFQDN:
		if strings.HasPrefix(id.Data, ".") || strings.Contains(id.Data, "..") {
			return Identity{}, fmt.Errorf("identity %q is not a host's name: a label is empty", id.Data)
		}
	}
	if n == 0 || n > message.IdentityMax || want >= 0 && n != want {
		return Identity{}, fmt.Errorf("an identity of type %v has %d bytes", id.Type, n)
	}
	return id, nil
}

// IsZero says that there is no identity.
func (id Identity) IsZero() bool { return id == Identity{} }

// String writes the identity as ParseIdentity reads it: with the type's word where the
// text alone would be read otherwise, in hexadecimal where any text would.
func (id Identity) String() string {
	text := ""
	switch id.Type {
	case 0:
		return "none"
	case message.IDIPv4Addr, message.IDIPv6Addr:
		if a, ok := id.address(); ok {
			text = a.String()
		}
	case message.IDFQDN, message.IDRFC822Addr, message.IDKeyID:
		if printable(id.Data) {
			text = id.Data
		}
	case message.IDDERASN1DN:
		if n, err := parseName(id.Data); err == nil {
			text = n.String()
		}
	}
	for _, written := range []string{text, wordOf(id.Type) + ":" + text} {
		if back, err := ParseIdentity(written); err == nil && back.Equal(id) {
			return written
		}
	}
	return id.hex()
}

// hex writes the identity so that only its bytes count.
func (id Identity) hex() string { return fmt.Sprintf("%s:#%x", wordOf(id.Type), id.Data) }

func wordOf(t message.IDType) string {
	switch t {
	case message.IDIPv4Addr:
		return "ipv4"
	case message.IDIPv6Addr:
		return "ipv6"
	case message.IDFQDN:
		return "fqdn"
	case message.IDRFC822Addr:
		return "email"
	case message.IDDERASN1DN:
		return "asn1dn"
	case message.IDKeyID:
		return "keyid"
	}
	return fmt.Sprintf("type%d", uint8(t))
}

// printable says that a value may stand in a line of text.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// blank says what no name of a host or of a mailbox has in it.
func blank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Canonical makes identities that mean the same equal as values, so that they may be
// keys of a map: names of hosts in lower case, distinguished names in one encoding
// with case and spaces folded (RFC 5280, 7.1). It is for comparing, not for sending.
func (id Identity) Canonical() Identity {
	switch id.Type {
	case message.IDFQDN:
		return Identity{id.Type, lowerASCII(strings.TrimRight(id.Data, "."))}
	case message.IDRFC822Addr: // RFC 5280, 7.5: the local part is the mail host's business
		if at := strings.LastIndexByte(id.Data, '@'); at >= 0 {
			return Identity{id.Type, id.Data[:at] + lowerASCII(id.Data[at:])}
		}
	case message.IDDERASN1DN:
		if n, err := parseName(id.Data); err == nil {
			return Identity{id.Type, n.canonical()}
		}
	}
	return id
}

// Equal says whether the two are one identity.
func (id Identity) Equal(other Identity) bool {
	return id == other || id.Type == other.Type && id.Canonical() == other.Canonical()
}

// lowerASCII leaves bytes beyond ASCII alone: names of hosts have none, and folding
// them could make two names one.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
