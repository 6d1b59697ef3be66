package message

import "fmt"

// PayloadType is the kind of a payload, RFC 7296, 3.2.
type PayloadType uint8

// The payload types. Names are "Type" + RFC 7296's notation where the struct has the plain name.
const (
	TypeNone              PayloadType = 0
	TypeSA                PayloadType = 33
	TypeKE                PayloadType = 34
	TypeIDi               PayloadType = 35
	TypeIDr               PayloadType = 36
	TypeCert              PayloadType = 37
	TypeCertReq           PayloadType = 38
	TypeAuth              PayloadType = 39
	TypeNonce             PayloadType = 40
	TypeNotify            PayloadType = 41
	TypeDelete            PayloadType = 42
	TypeVendorID          PayloadType = 43
	TypeTSi               PayloadType = 44
	TypeTSr               PayloadType = 45
	TypeEncrypted         PayloadType = 46
	TypeConfig            PayloadType = 47
	TypeEAP               PayloadType = 48
	TypeEncryptedFragment PayloadType = 53
)

var payloadNames = map[PayloadType]string{
	TypeNone: "none", TypeSA: "SA", TypeKE: "KE", TypeIDi: "IDi", TypeIDr: "IDr", TypeCert: "CERT",
	TypeCertReq: "CERTREQ", TypeAuth: "AUTH", TypeNonce: "Nonce", TypeNotify: "N", TypeDelete: "D",
	TypeVendorID: "V", TypeTSi: "TSi", TypeTSr: "TSr", TypeEncrypted: "SK", TypeConfig: "CP", TypeEAP: "EAP",
	TypeEncryptedFragment: "SKF",
}

// String returns RFC 7296's notation.
func (t PayloadType) String() string {
	if name, ok := payloadNames[t]; ok {
		return name
	}
	return fmt.Sprintf("payload %d", uint8(t))
}

// Payload is one payload of a message.
type Payload interface {
	Type() PayloadType
	// AppendBody appends what follows the generic payload header.
	AppendBody(b []byte) []byte
}

// Unknown is a payload of a type that is not understood and need not be. It is kept for the log only.
type Unknown struct {
	PayloadType PayloadType
	Critical    bool
	Data        []byte
}

func (p *Unknown) Type() PayloadType          { return p.PayloadType }
func (p *Unknown) AppendBody(b []byte) []byte { return append(b, p.Data...) }
