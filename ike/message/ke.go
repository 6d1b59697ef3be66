package message

import "encoding/binary"

// KE is one key exchange: a public value, or a KEM's ciphertext.
type KE struct {
	Method uint16 // transform ID of type KE
	Data   []byte
}

func (p *KE) Type() PayloadType { return TypeKE }

func (p *KE) AppendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, p.Method)
	b = append(b, 0, 0)
	return append(b, p.Data...)
}

func parseKE(b []byte) (*KE, error) {
	if len(b) < 5 {
		return nil, syntaxError("KE of %d bytes", len(b))
	}
	if len(b)-4 > KeyExchangeMax {
		return nil, tooMany("KE of %d bytes", len(b))
	}
	return &KE{Method: binary.BigEndian.Uint16(b), Data: b[4:]}, nil
}
