package message

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// samples are payloads beside their bodies, written down from the figures of RFC 7296, 3.3 to 3.16.
var samples = []struct {
	name    string
	payload Payload
	body    string
}{
	{"IKE proposal without SPI, AES-GCM with a key length", &SA{Proposals: []Proposal{{
		Number: 1, Protocol: ProtocolIKE, SPI: []byte{}, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESGCM16, KeyLen: 256}, {Type: TransformPRF, ID: PRFHMACSHA2384}, {Type: TransformKE, ID: KECurve25519},
		}}}},
		"00 00 0024 01 01 00 03  03 00 000c 01 00 0014 800e 0100  03 00 0008 02 00 0006  00 00 0008 04 00 001f"},
	{"two ESP proposals, numbered", &SA{Proposals: []Proposal{
		{Number: 1, Protocol: ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrChaCha20Poly1305}, {Type: TransformESN, ID: ESNYes}, {Type: TransformESN, ID: ESNNo}}},
		{Number: 2, Protocol: ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESCBC, KeyLen: 128}, {Type: TransformInteg, ID: AuthHMACSHA2256128}}}}},
		`02 00 0024 01 03 04 03 01020304  03 00 0008 01 00 001c  03 00 0008 05 00 0001  00 00 0008 05 00 0000
		 00 00 0020 02 03 04 02 01020304  03 00 000c 01 00 000c 800e 0080  00 00 0008 03 00 000c`},
	{"additional key exchange", &SA{Proposals: []Proposal{{
		Number: 7, Protocol: ProtocolIKE, SPI: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Transforms: []Transform{{Type: TransformADDKE, ID: KEMLKEM768}}}}},
		"00 00 0018 07 01 08 01 0102030405060708  00 00 0008 06 00 0024"},
	{"KE", &KE{Method: KECurve25519, Data: []byte{9, 8, 7}}, "001f 0000 090807"},
	{"IDi address", &ID{IDType: IDIPv4Addr, Data: []byte{192, 0, 2, 1}}, "01 000000 c0000201"},
	{"IDr name", &ID{Responder: true, IDType: IDFQDN, Data: []byte("gw")}, "02 000000 6777"},
	{"ID keeps its reserved bytes, because AUTH covers them", &ID{IDType: IDKeyID, Reserved: [3]byte{1, 2, 3}, Data: []byte{5}}, "0b 010203 05"},
	{"CERT", &Cert{Encoding: CertX509Signature, Data: []byte{0x30, 0}}, "04 3000"},
	{"CERTREQ for any", &CertReq{Encoding: CertX509Signature, Authorities: []byte{}}, "04"},
	{"CERTREQ", &CertReq{Encoding: CertX509Signature, Authorities: bytes.Repeat([]byte{0xab}, 20)}, "04" + strings.Repeat("ab", 20)},
	{"AUTH", &Auth{Method: AuthDigitalSignature, Data: []byte{1, 2}}, "0e 000000 0102"},
	{"nonce", &Nonce{Data: bytes.Repeat([]byte{7}, 16)}, strings.Repeat("07", 16)},
	{"notify about the message", &Notify{SPI: []byte{}, Notify: NoProposalChosen, Data: []byte{}}, "00 00 000e"},
	{"notify about a child", &Notify{Protocol: ProtocolESP, SPI: []byte{1, 2, 3, 4}, Notify: RekeySA, Data: []byte{}}, "03 04 4009 01020304"},
	{"notify with data", &Notify{SPI: []byte{}, Notify: InvalidKEPayload, Data: []byte{0, 31}}, "00 00 0011 001f"},
	{"delete of the IKE SA", &Delete{Protocol: ProtocolIKE}, "01 00 0000"},
	{"delete of children", &Delete{Protocol: ProtocolESP, SPIs: []uint32{0x01020304, 0xfffffffe}}, "03 04 0002 01020304 fffffffe"},
	{"vendor ID", &VendorID{Data: []byte("x")}, "78"},
	{"TSi of both families", &TS{Selectors: []TrafficSelector{
		{Protocol: 6, StartPort: 80, EndPort: 443, Start: netip.MustParseAddr("192.0.2.0"), End: netip.MustParseAddr("192.0.2.255")},
		{EndPort: 65535, Start: netip.MustParseAddr("2001:db8::"), End: netip.MustParseAddr("2001:db8::ffff")}}},
		`02 000000 07 06 0010 0050 01bb c0000200 c00002ff
		 08 00 0028 0000 ffff 20010db8000000000000000000000000 20010db800000000000000000000ffff`},
	{"TSr opaque", &TS{Responder: true, Selectors: []TrafficSelector{
		{Protocol: 1, StartPort: 65535, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.1")}}},
		"01 000000 07 01 0010 ffff 0000 c0000201 c0000201"},
	{"CP request", &Config{Config: ConfigRequest, Attributes: []ConfigAttribute{{Type: InternalIPv4Address, Value: []byte{}}, {Type: InternalIPv4DNS, Value: []byte{192, 0, 2, 53}}}},
		"01 000000 0001 0000 0003 0004 c0000235"},
	{"EAP", &EAP{Data: []byte{1, 1, 0, 5, 1}}, "0101000501"},
	{"unknown", &Unknown{PayloadType: 200, Data: []byte{1}}, "01"},
}

func TestPayloadsHaveTheBytesOfTheRFC(t *testing.T) {
	for _, s := range samples {
		body := unhex(t, s.body)
		if got := s.payload.AppendBody([]byte{0xee}); !bytes.Equal(got[1:], body) || got[0] != 0xee {
			t.Errorf("%s: appended\n%x, want\n%x", s.name, got[1:], body)
		}
		got, err := parseBody(s.payload.Type(), false, body)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if !reflect.DeepEqual(got, s.payload) {
			t.Errorf("%s: parsed\n%+v, want\n%+v", s.name, got, s.payload)
		}
	}
}

func allPayloads() []Payload {
	var all []Payload
	for _, s := range samples {
		all = append(all, s.payload)
	}
	return all
}

func sampleMessage() *Message {
	return &Message{
		Header:   Header{InitiatorSPI: 0x0102030405060708, ResponderSPI: 0x1112131415161718, Exchange: IKESAInit, Flags: Initiator, MessageID: 5},
		Payloads: allPayloads(),
	}
}

func TestHeaderHasTheBytesOfTheRFC(t *testing.T) {
	h := Header{InitiatorSPI: 0x0102030405060708, ResponderSPI: 0x1112131415161718, NextPayload: TypeSA, Exchange: IKESAInit, Flags: Initiator | Response, MessageID: 0x21222324, Length: 28}
	want := unhex(t, "0102030405060708 1112131415161718 21 20 22 28 21222324 0000001c")
	if got := h.Append(nil); !bytes.Equal(got, want) {
		t.Fatalf("%x, want %x", got, want)
	}
	if got, err := ParseHeader(want); err != nil || got != h {
		t.Fatalf("%+v %v", got, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseHeader(want); _, _ = ParseHeader(want[:20]) }); n != 0 {
		t.Errorf("%v allocations for the server's first look", n)
	}
	for name, c := range map[string]struct {
		at     int
		to     byte
		reason string
		notify NotifyType
	}{
		"version 3":     {17, 0x30, ReasonHigherVersion, InvalidMajorVersion},
		"version 1":     {17, 0x10, ReasonLowerVersion, 0},
		"longer length": {27, 29, ReasonLength, 0},
		"length 0":      {27, 0, ReasonLength, 0},
		"huge length":   {24, 0xff, ReasonLength, 0},
	} {
		b := bytes.Clone(want)
		b[c.at] = c.to
		_, err := ParseHeader(b)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.reason || e.Notify != c.notify {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A minor version and the reserved flags are ignored (RFC 7296, 2.5 and 3.1).
	b := bytes.Clone(want)
	b[17], b[19] = 0x2f, 0xff
	if _, err := ParseHeader(b); err != nil {
		t.Error(err)
	}
	clear(b[:8])
	if _, err := ParseHeader(b); !errors.Is(err, errZeroSPI) {
		t.Error(err)
	}
}

func TestMessageKeepsItsPayloads(t *testing.T) {
	m := sampleMessage()
	raw := m.Append([]byte("before"))[len("before"):]
	got, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Payloads, m.Payloads) {
		t.Fatalf("%+v", got.Payloads)
	}
	if again := got.Append(nil); !bytes.Equal(again, raw) {
		t.Fatal("a parsed message is appended differently")
	}
	if got.Header.MessageID != 5 || got.Header.NextPayload != TypeSA {
		t.Errorf("%+v", got.Header)
	}
}

func TestEveryStrictPrefixFails(t *testing.T) {
	raw := sampleMessage().Append(nil)
	for n := range raw {
		if _, err := Parse(raw[:n]); err == nil {
			t.Fatalf("%d of %d bytes pass", n, len(raw))
		}
		if n < HeaderLen {
			continue
		}
		b := bytes.Clone(raw[:n])
		binary.BigEndian.PutUint32(b[24:], uint32(n))
		if _, err := Parse(b); err == nil {
			t.Fatalf("%d of %d bytes pass, with the header's length corrected", n, len(raw))
		}
	}
}

// TestEveryStrictPrefixOfABodyFails holds for payloads that say how long they are; the others end in opaque bytes.
func TestEveryStrictPrefixOfABodyFails(t *testing.T) {
	open := map[PayloadType]int{ // where opaque bytes begin that may be shorter or none
		TypeKE: 5, TypeCert: 2, TypeAuth: 5, TypeVendorID: 0, TypeEAP: 0, 200: 0, TypeCertReq: 1, TypeConfig: 4, TypeIDr: 5, TypeNotify: 4,
	}
	for _, s := range samples {
		body := unhex(t, s.body)
		for n := range body {
			if from, ok := open[s.payload.Type()]; ok && n >= from {
				continue
			}
			if _, err := parseBody(s.payload.Type(), false, body[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes pass", s.name, n, len(body))
			}
		}
	}
}

// chain returns a clear message around bytes that stand after the header.
func chain(first PayloadType, payloads string, t testing.TB) []byte {
	b := Header{InitiatorSPI: 1, NextPayload: first, Exchange: IKESAInit, Flags: Initiator}.Append(nil)
	b = append(b, unhex(t, payloads)...)
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	return b
}

func TestMalformedPayloadsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name   string
		first  PayloadType
		bytes  string
		notify NotifyType
		reason string
	}{
		{"payload length zero does not loop", TypeNonce, "28 00 0000", InvalidSyntax, ReasonSyntax},
		{"payload length three", TypeNonce, "00 00 0003", InvalidSyntax, ReasonSyntax},
		{"payload longer than the message", TypeNonce, "00 00 00ff", InvalidSyntax, ReasonSyntax},
		{"bytes after the last payload", TypeVendorID, "00 00 0004 00", InvalidSyntax, ReasonSyntax},
		{"bytes after no payload", TypeNone, "00", InvalidSyntax, ReasonSyntax},
		{"unknown critical payload", 200, "00 80 0004", UnsupportedCriticalPayload, ReasonCritical},
		{"unknown payload that is not critical", 200, "00 00 0004", 0, ""},
		{"a known payload's critical bit is ignored", TypeVendorID, "00 80 0004", 0, ""},
		{"SK before another payload", TypeEncrypted, "28 00 0005 00 00 00 0004", InvalidSyntax, ReasonSyntax},
		{"fragment 0", TypeEncryptedFragment, "00 00 0008 0000 0001", 0, ReasonFragment},
		{"fragment above its total", TypeEncryptedFragment, "00 00 0008 0003 0002", 0, ReasonFragment},
		{"second fragment names a payload", TypeEncryptedFragment, "21 00 0008 0002 0002", 0, ReasonFragment},
		{"fragment without its numbers", TypeEncryptedFragment, "00 00 0007 000001", InvalidSyntax, ReasonSyntax},
		{"SA without proposals", TypeSA, "00 00 0004", InvalidSyntax, ReasonSyntax},
		{"proposal length zero", TypeSA, "00 00 000c 00 00 0000 01 01 00 00", InvalidSyntax, ReasonSyntax},
		{"last proposal says more follow", TypeSA, "00 00 000c 02 00 0008 01 01 00 00", InvalidSyntax, ReasonSyntax},
		{"proposal numbers jump", TypeSA, "00 00 0014 02 00 0008 01 01 00 00 00 00 0008 03 01 00 00", InvalidSyntax, ReasonSyntax},
		{"ESP proposal without SPI", TypeSA, "00 00 000c 00 00 0008 01 03 00 00", InvalidSyntax, ReasonSyntax},
		{"SPI longer than its proposal", TypeSA, "00 00 000c 00 00 0008 01 09 ff 00", InvalidSyntax, ReasonSyntax},
		{"transform length zero", TypeSA, "00 00 0014 00 00 0010 01 01 00 01 00 00 0000 01 00 0014", InvalidSyntax, ReasonSyntax},
		{"fewer transforms than said", TypeSA, "00 00 0014 00 00 0010 01 01 00 02 03 00 0008 01 00 0014", InvalidSyntax, ReasonSyntax},
		{"more transforms than said", TypeSA, "00 00 001c 00 00 0018 01 01 00 01 00 00 0008 01 00 0014 00 00 0008 01 00 0014", InvalidSyntax, ReasonSyntax},
		{"attribute that ends early", TypeSA, "00 00 0016 00 00 0012 01 01 00 01 00 00 000a 01 00 0014 800e", InvalidSyntax, ReasonSyntax},
		{"attribute longer than its transform", TypeSA, "00 00 0018 00 00 0014 01 01 00 01 00 00 000c 01 00 0014 000e ffff", InvalidSyntax, ReasonSyntax},
		{"KE without a value", TypeKE, "00 00 0008 001f 0000", InvalidSyntax, ReasonSyntax},
		{"IPv4 identity of five bytes", TypeIDi, "00 00 000d 01 000000 0102030405", InvalidSyntax, ReasonSyntax},
		{"empty name", TypeIDr, "00 00 0008 02 000000", InvalidSyntax, ReasonSyntax},
		{"CERTREQ with a cut hash", TypeCertReq, "00 00 0008 04 010203", InvalidSyntax, ReasonSyntax},
		{"nonce of 15 bytes", TypeNonce, "00 00 0013" + strings.Repeat("00", 15), InvalidSyntax, ReasonSyntax},
		{"nonce of 257 bytes", TypeNonce, "00 00 0105" + strings.Repeat("00", 257), InvalidSyntax, ReasonSyntax},
		{"notify's SPI runs out", TypeNotify, "00 00 0009 03 04 4009 01", InvalidSyntax, ReasonSyntax},
		{"delete of the IKE SA with an SPI", TypeDelete, "00 00 0010 01 08 0001 0102030405060708", InvalidSyntax, ReasonSyntax},
		{"delete says more than it has", TypeDelete, "00 00 000c 03 04 ffff 01020304", InvalidSyntax, ReasonSyntax},
		{"delete of an unknown protocol", TypeDelete, "00 00 0008 09 00 0000", InvalidSyntax, ReasonSyntax},
		{"no selector", TypeTSi, "00 00 0008 00 000000", InvalidSyntax, ReasonTooMany},
		{"selector length zero", TypeTSi, "00 00 0018 01 000000 07 00 0000 0000 ffff c0000200 c00002ff", InvalidSyntax, ReasonSyntax},
		{"selector that ends before it starts", TypeTSi, "00 00 0018 01 000000 07 00 0010 0000 ffff c00002ff c0000200", InvalidSyntax, ReasonSyntax},
		{"ports that end before they start", TypeTSi, "00 00 0018 01 000000 07 00 0010 0002 0001 c0000200 c00002ff", InvalidSyntax, ReasonSyntax},
		{"IPv6 selector of an IPv4 length", TypeTSi, "00 00 0018 01 000000 08 00 0010 0000 ffff c0000200 c00002ff", InvalidSyntax, ReasonSyntax},
		{"selectors left over", TypeTSi, "00 00 0028 01 000000 07 00 0010 0000 ffff c0000200 c00002ff 07 00 0010 0000 ffff c0000200 c00002ff", InvalidSyntax, ReasonSyntax},
		{"selector of an unknown type is skipped", TypeTSi, "00 00 0010 01 000000 0a 00 0008 00000000", 0, ""},
		{"CP attribute longer than the payload", TypeConfig, "00 00 000c 01 000000 0001 0004", InvalidSyntax, ReasonSyntax},
		{"CP address of three bytes", TypeConfig, "00 00 000f 01 000000 0001 0003 010203", InvalidSyntax, ReasonSyntax},
	} {
		_, err := Parse(chain(c.first, c.bytes, t))
		var e *Error
		switch errors.As(err, &e); {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.reason != "" && (e == nil || e.Reason != c.reason || e.Notify != c.notify):
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
}

func TestTransformWithUnknownAttributeIsMarked(t *testing.T) {
	for name, c := range map[string]struct {
		attributes string
		want       Transform
	}{
		"key length":         {"800e0080", Transform{KeyLen: 128}},
		"key length twice":   {"800e0080 800e0100", Transform{KeyLen: 256, Unrecognized: true}},
		"key length of zero": {"800e0000", Transform{Unrecognized: true}},
		"unknown fixed":      {"800f0001", Transform{Unrecognized: true}},
		"unknown variable":   {"000f0002 abcd 800e0080", Transform{KeyLen: 128, Unrecognized: true}},
	} {
		got, err := parseTransform(unhex(t, "00 00 0000 01 00 0014"+c.attributes))
		c.want.Type, c.want.ID = TransformEncr, EncrAESGCM16
		if err != nil || got != c.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func repeat[T any](n int, v T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

func TestLimitsHoldAtTheirEdge(t *testing.T) {
	proposals := func(n int) Payload {
		sa := &SA{Proposals: repeat(n, Proposal{Protocol: ProtocolIKE})}
		for i := range sa.Proposals {
			sa.Proposals[i].Number = uint8(i + 1)
		}
		return sa
	}
	address := netip.MustParseAddr("192.0.2.1")
	attributes := func(n int) []byte {
		b := unhex(t, "00 00 0000 01 00 0014")
		return append(b, bytes.Repeat(unhex(t, "800f0001"), n)...)
	}
	for _, c := range []struct {
		name string
		most int
		make func(n int) []Payload
	}{
		{"payloads", PayloadsMax, func(n int) []Payload { return repeat[Payload](n, &VendorID{Data: []byte{1}}) }},
		{"proposals", ProposalsMax, func(n int) []Payload { return []Payload{proposals(n)} }},
		{"transforms", TransformsMax, func(n int) []Payload {
			return []Payload{&SA{Proposals: []Proposal{{Number: 1, Protocol: ProtocolIKE, Transforms: repeat(n, Transform{Type: 1, ID: 20})}}}}
		}},
		{"selectors", SelectorsMax, func(n int) []Payload {
			return []Payload{&TS{Selectors: repeat(n, TrafficSelector{EndPort: 65535, Start: address, End: address})}}
		}},
		{"deletes", DeletesMax, func(n int) []Payload { return []Payload{&Delete{Protocol: ProtocolESP, SPIs: make([]uint32, n)}} }},
		{"configuration", ConfigMax, func(n int) []Payload {
			return []Payload{&Config{Config: ConfigReply, Attributes: repeat(n, ConfigAttribute{Type: InternalIPv4Address})}}
		}},
		{"certificate", CertificateMax, func(n int) []Payload { return []Payload{&Cert{Encoding: 4, Data: make([]byte, n)}} }},
		{"authorities", AuthorityMax, func(n int) []Payload { return []Payload{&CertReq{Encoding: 1, Authorities: make([]byte, n)}} }},
		{"identity", IdentityMax, func(n int) []Payload { return []Payload{&ID{IDType: IDKeyID, Data: make([]byte, n)}} }},
		{"signature", AuthMax, func(n int) []Payload { return []Payload{&Auth{Method: 1, Data: make([]byte, n)}} }},
		{"public value", KeyExchangeMax, func(n int) []Payload { return []Payload{&KE{Method: 1, Data: make([]byte, n)}} }},
	} {
		m := sampleMessage()
		m.Payloads = c.make(c.most)
		if _, err := Parse(m.Append(nil)); err != nil {
			t.Errorf("%s: %d: %v", c.name, c.most, err)
		}
		m.Payloads = c.make(c.most + 1)
		var e *Error
		if _, err := Parse(m.Append(nil)); !errors.As(err, &e) || e.Reason != ReasonTooMany {
			t.Errorf("%s: %d: %v", c.name, c.most+1, err)
		}
	}
	if _, err := parseTransform(attributes(AttributesMax)); err != nil {
		t.Error(err)
	}
	if _, err := parseTransform(attributes(AttributesMax + 1)); err == nil {
		t.Error("too many attributes pass")
	}
}

func TestSelectorsPrint(t *testing.T) {
	for want, s := range map[string]TrafficSelector{
		"192.0.2.0/24":                   SelectorOf(netip.MustParsePrefix("192.0.2.7/24")),
		"0.0.0.0/0":                      SelectorOf(netip.MustParsePrefix("0.0.0.0/0")),
		"2001:db8::/33":                  SelectorOf(netip.MustParsePrefix("2001:db8::/33")),
		"::/0":                           SelectorOf(netip.MustParsePrefix("::/0")),
		"192.0.2.1..192.0.2.2":           {EndPort: 65535, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.2")},
		"192.0.2.1/32[tcp/80-443]":       {Protocol: 6, StartPort: 80, EndPort: 443, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.1")},
		"192.0.2.1/32[udp/53]":           {Protocol: 17, StartPort: 53, EndPort: 53, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.1")},
		"192.0.2.1/32[icmp/opaque]":      {Protocol: 1, StartPort: 65535, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.1")},
		"2001:db8::1/128[icmpv6]":        {Protocol: 58, EndPort: 65535, Start: netip.MustParseAddr("2001:db8::1"), End: netip.MustParseAddr("2001:db8::1")},
		"192.0.2.128..192.0.3.1[any/22]": {StartPort: 22, EndPort: 22, Start: netip.MustParseAddr("192.0.2.128"), End: netip.MustParseAddr("192.0.3.1")},
	} {
		if got := s.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
