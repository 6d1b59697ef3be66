package message

import "fmt"

// IDType is the form of an identity, RFC 7296, 3.5.
type IDType uint8

const (
	IDIPv4Addr   IDType = 1
	IDFQDN       IDType = 2
	IDRFC822Addr IDType = 3
	IDIPv6Addr   IDType = 5
	IDDERASN1DN  IDType = 9
	IDDERASN1GN  IDType = 10
	IDKeyID      IDType = 11
	IDNull       IDType = 13 // RFC 7619
)

// String returns RFC 7296's name.
func (t IDType) String() string {
	switch t {
	case IDIPv4Addr:
		return "ID_IPV4_ADDR"
	case IDFQDN:
		return "ID_FQDN"
	case IDRFC822Addr:
		return "ID_RFC822_ADDR"
	case IDIPv6Addr:
		return "ID_IPV6_ADDR"
	case IDDERASN1DN:
		return "ID_DER_ASN1_DN"
	case IDDERASN1GN:
		return "ID_DER_ASN1_GN"
	case IDKeyID:
		return "ID_KEY_ID"
	case IDNull:
		return "ID_NULL"
	}
	return fmt.Sprintf("identity type %d", uint8(t))
}

// ID is an IDi or IDr payload.
type ID struct {
	Responder bool // IDr
	IDType    IDType
	Reserved  [3]byte // as sent: AUTH covers them (RFC 7296, 2.15). Ours are zero
	Data      []byte
}

func (p *ID) Type() PayloadType {
	if p.Responder {
		return TypeIDr
	}
	return TypeIDi
}

// AppendBody appends what AUTH covers as "RestOfIDPayload" (RFC 7296, 2.15).
func (p *ID) AppendBody(b []byte) []byte {
	b = append(b, byte(p.IDType), p.Reserved[0], p.Reserved[1], p.Reserved[2])
	return append(b, p.Data...)
}

func parseID(b []byte, responder bool) (*ID, error) {
	if len(b) < 4 {
		return nil, syntaxError("ID of %d bytes", len(b))
	}
	id := &ID{Responder: responder, IDType: IDType(b[0]), Reserved: [3]byte(b[1:4]), Data: b[4:]}
	if len(id.Data) > IdentityMax {
		return nil, tooMany("identity of %d bytes", len(id.Data))
	}
	want := -1
	switch id.IDType {
	case IDIPv4Addr:
		want = 4
	case IDIPv6Addr:
		want = 16
	}
	if want >= 0 && len(id.Data) != want || len(id.Data) == 0 && id.IDType != IDNull {
		return nil, syntaxError("%v of %d bytes", id.IDType, len(id.Data))
	}
	return id, nil
}
