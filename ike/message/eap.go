package message

// EAP carries an EAP message; its inside is not looked at here.
type EAP struct{ Data []byte }

func (p *EAP) Type() PayloadType          { return TypeEAP }
func (p *EAP) AppendBody(b []byte) []byte { return append(b, p.Data...) }
