package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// name is a distinguished name (RFC 5280, 4.1.2.4): a row of relative names, each a set
// of attributes.
type name [][]attribute

type attribute struct {
	oid   string // content bytes of the OBJECT IDENTIFIER
	tag   casn1.Tag
	value string // content bytes as encoded
}

// attributeTypes are the attributes that have a word. Where two words mean one type, the
// first is written.
var attributeTypes = []struct {
	word string
	oid  asn1.ObjectIdentifier
}{
	{"C", asn1.ObjectIdentifier{2, 5, 4, 6}},
	{"ST", asn1.ObjectIdentifier{2, 5, 4, 8}}, {"S", asn1.ObjectIdentifier{2, 5, 4, 8}},
	{"L", asn1.ObjectIdentifier{2, 5, 4, 7}},
	{"O", asn1.ObjectIdentifier{2, 5, 4, 10}},
	{"OU", asn1.ObjectIdentifier{2, 5, 4, 11}},
	{"CN", asn1.ObjectIdentifier{2, 5, 4, 3}},
	{"serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}}, {"SN", asn1.ObjectIdentifier{2, 5, 4, 5}},
	{"SURNAME", asn1.ObjectIdentifier{2, 5, 4, 4}},
	{"T", asn1.ObjectIdentifier{2, 5, 4, 12}}, {"title", asn1.ObjectIdentifier{2, 5, 4, 12}},
	{"D", asn1.ObjectIdentifier{2, 5, 4, 13}},
	{"STREET", asn1.ObjectIdentifier{2, 5, 4, 9}},
	{"postalCode", asn1.ObjectIdentifier{2, 5, 4, 17}},
	{"N", asn1.ObjectIdentifier{2, 5, 4, 41}},
	{"G", asn1.ObjectIdentifier{2, 5, 4, 42}}, {"givenName", asn1.ObjectIdentifier{2, 5, 4, 42}}, {"GN", asn1.ObjectIdentifier{2, 5, 4, 42}},
	{"I", asn1.ObjectIdentifier{2, 5, 4, 43}},
	{"dnQualifier", asn1.ObjectIdentifier{2, 5, 4, 46}},
	{"organizationIdentifier", asn1.ObjectIdentifier{2, 5, 4, 97}},
	{"E", oidEmail}, {"Email", oidEmail}, {"emailAddress", oidEmail},
	{"DC", oidDomainComponent},
	{"UID", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}},
}

var (
	oidEmail           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

var errName = errors.New("not a distinguished name")

// attributesMax bounds a name; real ones have a dozen attributes at most.
const attributesMax = 64

// parseName reads a DER name, strictly to its end.
func parseName(der string) (name, error) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() {
		return nil, errName
	}
	var n name
	count := 0
	for !seq.Empty() {
		var set cryptobyte.String
		if !seq.ReadASN1(&set, casn1.SET) || set.Empty() {
			return nil, errName
		}
		var relative []attribute
		for !set.Empty() {
			var pair, oid, value cryptobyte.String
			var tag casn1.Tag
			if !set.ReadASN1(&pair, casn1.SEQUENCE) || !pair.ReadASN1(&oid, casn1.OBJECT_IDENTIFIER) || len(oid) == 0 ||
				!pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return nil, errName
			}
			if count++; count > attributesMax {
				return nil, errName
			}
			relative = append(relative, attribute{string(oid), tag, string(value)})
		}
		n = append(n, relative)
	}
	return n, nil
}

// text is the value as UTF-8, if it is a string of a kind that has a meaning as such.
func (a attribute) text() (string, bool) {
	switch a.tag {
	case casn1.PrintableString, casn1.IA5String:
		for i := range len(a.value) {
			if a.value[i] >= 0x80 {
				return "", false
			}
		}
		return a.value, true
	case casn1.UTF8String:
		return a.value, utf8.ValidString(a.value)
	case casn1.T61String: // in practice Latin-1
		r := make([]rune, len(a.value))
		for i := range len(a.value) {
			r[i] = rune(a.value[i])
		}
		return string(r), true
	case casn1.Tag(30): // BMPString
		if len(a.value)%2 != 0 {
			return "", false
		}
		r := make([]rune, 0, len(a.value)/2)
		for i := 0; i < len(a.value); i += 2 {
			r = append(r, rune(a.value[i])<<8|rune(a.value[i+1]))
		}
		return string(r), true
	}
	return "", false
}

// folded is the value as names are compared: without regard to case and with runs of
// spaces as one (RFC 5280, 7.1; LDAP's caseIgnoreMatch without its Unicode tables, so
// beyond ASCII only equal letters are equal).
func (a attribute) folded() (string, bool) {
	s, ok := a.text()
	if !ok {
		return "", false
	}
	return lowerASCII(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")), true
}

// canonical is the name in one encoding for all that mean the same.
func (n name) canonical() string {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, relative := range n {
			b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
				for _, a := range relative {
					value, tag := a.value, a.tag
					if s, ok := a.folded(); ok {
						value, tag = s, casn1.UTF8String
					}
					addAttribute(b, []byte(a.oid), tag, value)
				}
			})
		}
	})
	return string(b.BytesOrPanic())
}

func addAttribute(b *cryptobyte.Builder, oid []byte, tag casn1.Tag, value string) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	})
}

// String writes the name as ParseIdentity reads it.
func (n name) String() string {
	var b strings.Builder
	for i, relative := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, a := range relative {
			if j > 0 {
				b.WriteString(" + ")
			}
			b.WriteString(attributeWord(a.oid))
			b.WriteByte('=')
			s, ok := a.text()
			if !ok || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				fmt.Fprintf(&b, "#%x", a.value)
				continue
			}
			for k, r := range s {
				if strings.ContainsRune(`,+\/`, r) || k == 0 && (r == ' ' || r == '#') || r == ' ' && k == len(s)-1 {
					b.WriteByte('\\')
				}
				b.WriteRune(r)
			}
		}
	}
	return b.String()
}

func attributeWord(content string) string {
	oid := decodeOID(content)
	for _, t := range attributeTypes {
		if t.oid.Equal(oid) {
			return t.word
		}
	}
	if oid == nil {
		return "OID." + hex.EncodeToString([]byte(content))
	}
	return oid.String()
}

func decodeOID(content string) asn1.ObjectIdentifier {
	var b cryptobyte.Builder
	b.AddASN1(casn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(content)) })
	der, err := b.Bytes()
	if err != nil {
		return nil
	}
	s := cryptobyte.String(der)
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return nil
	}
	return oid
}

// encodeName makes DER of a written name: attributes between commas or slashes,
// several of one relative name joined with "+", a backslash before what would divide.
func encodeName(s string) ([]byte, error) {
	relatives, err := splitName(s)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	var fault error
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, relative := range relatives {
			b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
				for _, pair := range relative {
					if e := addWritten(b, pair[0], pair[1]); e != nil {
						fault = e
					}
				}
			})
		}
	})
	if fault != nil {
		return nil, fault
	}
	return b.Bytes()
}

func addWritten(b *cryptobyte.Builder, word, value string) error {
	oid, err := attributeOID(word)
	if err != nil {
		return err
	}
	content, err := asn1.Marshal(oid)
	if err != nil || len(content) < 3 || content[1] >= 0x80 {
		return fmt.Errorf("attribute type %q", word)
	}
	tag := casn1.UTF8String
	switch {
	case oid.Equal(oidEmail), oid.Equal(oidDomainComponent):
		tag = casn1.IA5String
	case printableString(value): // as certificate authorities encode it
		tag = casn1.PrintableString
	}
	addAttribute(b, content[2:], tag, value)
	return nil
}

func attributeOID(word string) (asn1.ObjectIdentifier, error) {
	for _, t := range attributeTypes {
		if strings.EqualFold(t.word, word) {
			return t.oid, nil
		}
	}
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(strings.TrimPrefix(word, "OID."), ".") {
		v := 0
		if _, err := fmt.Sscanf(part, "%d", &v); err != nil || fmt.Sprint(v) != part {
			return nil, fmt.Errorf("unknown attribute %q in a distinguished name", word)
		}
		oid = append(oid, v)
	}
	if len(oid) < 2 {
		return nil, fmt.Errorf("unknown attribute %q in a distinguished name", word)
	}
	return oid, nil
}

func printableString(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(" '()+,-./:=?", c) >= 0) {
			return false
		}
	}
	return true
}

// splitName divides a written name into relative names of word and value.
func splitName(s string) ([][][2]string, error) {
	var all [][][2]string
	var relative [][2]string
	var word string
	var cur []byte
	keep := 0 // cur up to here ends in no space that may be trimmed
	inValue, slashes := false, strings.HasPrefix(s, "/")
	flush := func(endOfRelative bool) error {
		if !inValue {
			if len(strings.TrimSpace(string(cur))) > 0 || !endOfRelative {
				return fmt.Errorf("%q has no value", strings.TrimSpace(string(cur)))
			}
			cur, keep = cur[:0], 0
			return nil
		}
		for len(cur) > keep && cur[len(cur)-1] == ' ' {
			cur = cur[:len(cur)-1]
		}
		if len(cur) == 0 || !utf8.Valid(cur) {
			return fmt.Errorf("attribute %s has no value", word)
		}
		relative = append(relative, [2]string{word, string(cur)})
		if endOfRelative {
			all, relative = append(all, relative), nil
		}
		cur, keep, inValue = cur[:0], 0, false
		return nil
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		var err error
		switch {
		case c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("the last backslash has nothing behind it")
			}
			cur = append(cur, s[i])
			keep = len(cur)
		case c == '=' && !inValue:
			word, inValue = strings.TrimSpace(string(cur)), true
			cur, keep = cur[:0], 0
		case c == ',' && !slashes, c == '/' && slashes, c == ';' && !slashes:
			err = flush(true)
		case c == '+' && inValue && startsAttribute(s[i+1:]):
			err = flush(false)
		case c == ' ' && len(cur) == 0:
		default:
			cur = append(cur, c)
			if c != ' ' {
				keep = len(cur)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if err := flush(true); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errName
	}
	return all, nil
}

// startsAttribute says whether "word=" follows, so that a plus sign inside of a value
// stays one.
func startsAttribute(s string) bool {
	word, _, ok := strings.Cut(strings.TrimLeft(s, " "), "=")
	if !ok {
		return false
	}
	_, err := attributeOID(strings.TrimSpace(word))
	return err == nil
}
