package message

import (
	"encoding/binary"
	"iter"
)

// Message is one IKE message. A parsed one has the clear payloads, and behind them the SK or SKF payload, opaque; Open
// replaces that by what is inside.
type Message struct {
	Header   Header
	Payloads []Payload
	Raw      []byte // the datagram that was parsed, from the header on; Open decrypts in it

	clear  int         // payloads that stood outside of SK; all of them while the message is not open
	opened bool        // Open or a Reassembler has verified and decrypted
	head   []byte      // the datagram up to and with the header of SK or of the first SKF; set by opening
	first  PayloadType // of the protected chain
	inner  []byte      // the protected chain, decrypted
}

// Parse reads a datagram that has no non-ESP marker: the header and the whole chain of clear payloads. SK or SKF come last
// and stay opaque. Errors are *Error.
func Parse(b []byte) (*Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	m := &Message{Header: h, Raw: b}
	m.Payloads, err = parseChain(h.NextPayload, b[HeaderLen:], HeaderLen, true)
	if err != nil {
		return nil, err
	}
	m.clear = len(m.Payloads)
	return m, nil
}

// ParsePayloads reads a decrypted chain of payloads, the first of which has type first.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	return parseChain(first, b, 0, false)
}

// parseChain reads payloads until the chain says that it ends, which must be where the bytes end. Offset is b's place in
// the datagram; SK and SKF note where their body begins.
func parseChain(next PayloadType, b []byte, offset int, outer bool) ([]Payload, error) {
	var payloads []Payload
	for next != TypeNone {
		if len(payloads) == PayloadsMax {
			return nil, tooMany("more than %d payloads", PayloadsMax)
		}
		if len(b) < payloadHeaderLen {
			return nil, syntaxError("%v payload of %d bytes", next, len(b))
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < payloadHeaderLen || length > len(b) {
			return nil, syntaxError("%v payload of %d bytes in %d bytes", next, length, len(b))
		}
		following, critical := PayloadType(b[0]), b[1]&0x80 != 0
		body := b[payloadHeaderLen:length:length]
		if next == TypeEncrypted || next == TypeEncryptedFragment {
			if !outer {
				return nil, syntaxError("%v inside of another", next)
			}
			if length != len(b) {
				return nil, syntaxError("%v is not the last payload", next) // RFC 7296, 3.14
			}
			p, err := parseEncrypted(next, following, body, offset+payloadHeaderLen)
			if err != nil {
				return nil, err
			}
			return append(payloads, p), nil
		}
		p, err := parseBody(next, critical, body)
		if err != nil {
			return nil, err
		}
		payloads = append(payloads, p)
		b, offset, next = b[length:], offset+length, following
	}
	if len(b) != 0 {
		return nil, syntaxError("%d bytes after the last payload", len(b))
	}
	return payloads, nil
}

func parseBody(t PayloadType, critical bool, b []byte) (Payload, error) {
	switch t {
	case TypeSA:
		return parseSA(b)
	case TypeKE:
		return parseKE(b)
	case TypeIDi, TypeIDr:
		return parseID(b, t == TypeIDr)
	case TypeCert:
		return parseCert(b)
	case TypeCertReq:
		return parseCertReq(b)
	case TypeAuth:
		return parseAuth(b)
	case TypeNonce:
		return parseNonce(b)
	case TypeNotify:
		return parseNotify(b)
	case TypeDelete:
		return parseDelete(b)
	case TypeVendorID:
		return &VendorID{Data: b}, nil
	case TypeTSi, TypeTSr:
		return parseTS(b, t == TypeTSr)
	case TypeConfig:
		return parseConfig(b)
	case TypeEAP:
		return &EAP{Data: b}, nil
	}
	if critical { // RFC 7296, 2.5
		return nil, &Error{Notify: UnsupportedCriticalPayload, Data: []byte{byte(t)}, Reason: ReasonCritical, Detail: t.String()}
	}
	return &Unknown{PayloadType: t, Data: b}, nil
}

// Append appends the clear message; lengths and the chain's types are computed, whatever the header says of them.
func (m *Message) Append(b []byte) []byte {
	start := len(b)
	h := m.Header
	h.NextPayload = firstType(m.Payloads)
	b = h.Append(b)
	b = appendChain(b, m.Payloads)
	binary.BigEndian.PutUint32(b[start+24:], uint32(len(b)-start))
	return b
}

func firstType(payloads []Payload) PayloadType {
	if len(payloads) == 0 {
		return TypeNone
	}
	return payloads[0].Type()
}

func appendChain(b []byte, payloads []Payload) []byte {
	for i, p := range payloads {
		start := len(b)
		critical := byte(0) // RFC 7296, 3.2: cleared for every type of that document
		if u, ok := p.(*Unknown); ok && u.Critical {
			critical = 0x80
		}
		b = append(b, byte(firstType(payloads[i+1:])), critical, 0, 0)
		b = p.AppendBody(b)
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b
}

// Opened says whether the message was protected and has been verified and decrypted.
func (m *Message) Opened() bool { return m.opened }

// Clear returns the payloads that stood outside of SK.
func (m *Message) Clear() []Payload { return m.Payloads[:m.clear] }

// Payload returns the first payload of a type, or nil.
func (m *Message) Payload(t PayloadType) Payload {
	for _, p := range m.Payloads {
		if p.Type() == t {
			return p
		}
	}
	return nil
}

// First returns the first payload of a Go type; for *ID and *TS, whose Go type serves two payload types, use
// Message.Payload.
func First[P Payload](m *Message) (p P, ok bool) {
	for _, payload := range m.Payloads {
		if p, ok = payload.(P); ok {
			return p, true
		}
	}
	return p, false
}

// All yields the payloads of a Go type in their order.
func All[P Payload](m *Message) iter.Seq[P] {
	return func(yield func(P) bool) {
		for _, payload := range m.Payloads {
			if p, ok := payload.(P); ok && !yield(p) {
				return
			}
		}
	}
}

// Notify returns the first notification of a type, or nil.
func (m *Message) Notify(t NotifyType) *Notify {
	for n := range All[*Notify](m) {
		if n.Notify == t {
			return n
		}
	}
	return nil
}

// ErrorNotify returns the first notification that reports an error, or nil.
func (m *Message) ErrorNotify() *Notify {
	for n := range All[*Notify](m) {
		if n.Notify.IsError() {
			return n
		}
	}
	return nil
}
