package message

// Nonce is Ni or Nr.
type Nonce struct{ Data []byte }

func (p *Nonce) Type() PayloadType          { return TypeNonce }
func (p *Nonce) AppendBody(b []byte) []byte { return append(b, p.Data...) }

func parseNonce(b []byte) (*Nonce, error) {
	if len(b) < NonceMin || len(b) > NonceMax { // RFC 7296, 3.9
		return nil, syntaxError("nonce of %d bytes", len(b))
	}
	return &Nonce{Data: b}, nil
}
