package message

import "encoding/binary"

// Encrypted is an SK payload that has not been opened.
type Encrypted struct {
	First PayloadType // of the chain inside
	Body  []byte      // IV, ciphertext and checksum, in the datagram
	start int         // offset of Body in the datagram
}

// EncryptedFragment is an SKF payload that has not been opened, RFC 7383, 2.5.
type EncryptedFragment struct {
	First  PayloadType // of the whole chain, in fragment 1; none in the others
	Number uint16      // from 1
	Total  uint16
	Body   []byte
	start  int
}

func (p *Encrypted) Type() PayloadType          { return TypeEncrypted }
func (p *Encrypted) AppendBody(b []byte) []byte { return append(b, p.Body...) }

func (p *EncryptedFragment) Type() PayloadType { return TypeEncryptedFragment }

func (p *EncryptedFragment) AppendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, p.Number)
	b = binary.BigEndian.AppendUint16(b, p.Total)
	return append(b, p.Body...)
}

func parseEncrypted(t, first PayloadType, b []byte, offset int) (Payload, error) {
	if t == TypeEncrypted {
		return &Encrypted{First: first, Body: b, start: offset}, nil
	}
	if len(b) < fragmentLen {
		return nil, syntaxError("SKF of %d bytes", len(b))
	}
	p := &EncryptedFragment{
		First: first, Number: binary.BigEndian.Uint16(b), Total: binary.BigEndian.Uint16(b[2:]),
		Body: b[fragmentLen:], start: offset + fragmentLen,
	}
	// RFC 7383, 2.5: numbers begin with 1, and only the first fragment names the first payload.
	if p.Number == 0 || p.Number > p.Total || (p.Number != 1 && first != TypeNone) {
		return nil, &Error{Reason: ReasonFragment, Detail: "number, total or next payload"}
	}
	return p, nil
}

// Protector protects one direction of an IKE SA. A packet is everything from the IKE header to the end of the SK or
// SKF payload; body is the offset at which IV, ciphertext, padding and checksum begin. What stands before it is
// authenticated.
type Protector interface {
	// IVLen is the length of the IV in bytes.
	IVLen() int
	// BodyLen is the length of the body for n bytes of payloads: IV, padding and checksum included. It never falls
	// as n grows.
	BodyLen(n int) int
	// Seal encrypts in place. The n bytes of payloads stand at packet[body+IVLen():]; all lengths in the packet are
	// final and len(packet) = body + BodyLen(n).
	Seal(packet []byte, body, n int) error
	// Open verifies and decrypts in place, and returns the payloads without padding: a slice of packet.
	// A wrong checksum, or a body too short to have one, is ErrIntegrity, and packet is then unchanged.
	Open(packet []byte, body int) ([]byte, error)
}

// AppendProtected appends the datagram that protects payloads in an SK payload, or, where that is longer than
// fragmentMax bytes, the datagrams of its fragments. FragmentMax counts from the IKE header to the end, without the
// non-ESP marker; 0 never fragments. Lengths and types are computed, whatever h says of them.
func AppendProtected(b [][]byte, h Header, payloads []Payload, p Protector, fragmentMax int) ([][]byte, error) {
	chain := appendChain(make([]byte, 0, 512), payloads)
	first := firstType(payloads)
	if len(chain) > MessageMax { // also keeps every payload's length within its 16 bits
		return b, tooMany("%d bytes of payloads", len(chain))
	}
	if whole := ProtectedLen(p, len(chain)); fragmentMax == 0 || whole <= fragmentMax {
		if whole > MessageMax {
			return b, tooMany("message of %d bytes", whole)
		}
		packet, err := seal(h, TypeEncrypted, first, 0, 0, chain, p)
		if err != nil {
			return b, err
		}
		return append(b, packet), nil
	}
	size := fragmentSize(p, fragmentMax)
	if size <= 0 {
		return b, &Error{Reason: ReasonFragmentLimit, Detail: "no room for a fragment"}
	}
	total := (len(chain) + size - 1) / size
	if total > FragmentsMax {
		return b, &Error{Reason: ReasonFragmentLimit, Detail: "message too long for its fragments"}
	}
	for number := 1; number <= total; number++ {
		piece := chain[:min(size, len(chain))]
		packet, err := seal(h, TypeEncryptedFragment, first, uint16(number), uint16(total), piece, p)
		if err != nil {
			return b, err
		}
		b, chain, first = append(b, packet), chain[len(piece):], TypeNone
	}
	return b, nil
}

// ProtectedLen is the length of a datagram that protects n bytes of payloads in an SK payload.
func ProtectedLen(p Protector, n int) int { return HeaderLen + payloadHeaderLen + p.BodyLen(n) }

// NotifyLen is the length of a Notify payload without SPI and data.
const NotifyLen = payloadHeaderLen + 4

// fragmentSize returns how many bytes of payloads fit a fragment of fragmentMax bytes.
func fragmentSize(p Protector, fragmentMax int) int {
	room := fragmentMax - HeaderLen - payloadHeaderLen - fragmentLen
	size := room
	for size > 0 && p.BodyLen(size) > room {
		size--
	}
	return size
}

func seal(h Header, t, first PayloadType, number, total uint16, chain []byte, p Protector) ([]byte, error) {
	body := HeaderLen + payloadHeaderLen
	if t == TypeEncryptedFragment {
		body += fragmentLen
	}
	packet := make([]byte, body+p.BodyLen(len(chain)))
	h.NextPayload, h.Length = t, uint32(len(packet))
	h.Append(packet[:0])
	packet[HeaderLen] = byte(first)
	binary.BigEndian.PutUint16(packet[HeaderLen+2:], uint16(len(packet)-HeaderLen))
	if t == TypeEncryptedFragment {
		binary.BigEndian.PutUint16(packet[body-4:], number)
		binary.BigEndian.PutUint16(packet[body-2:], total)
	}
	copy(packet[body+p.IVLen():], chain)
	return packet, p.Seal(packet, body, len(chain))
}

// Fragment returns number and total if the message is an unopened fragment.
func (m *Message) Fragment() (number, total uint16, ok bool) {
	if f := m.fragment(); f != nil {
		return f.Number, f.Total, true
	}
	return 0, 0, false
}

func (m *Message) fragment() *EncryptedFragment {
	if len(m.Payloads) == 0 || m.opened {
		return nil
	}
	f, _ := m.Payloads[len(m.Payloads)-1].(*EncryptedFragment)
	return f
}

// Open verifies the SK payload, decrypts it in place in Raw, and replaces it by the payloads inside. When it fails with
// ErrIntegrity the message is unchanged. A message whose checksum is right but whose payloads are malformed is
// opened: the error's notify may be sent protected.
func (m *Message) Open(p Protector) error {
	if len(m.Payloads) == 0 || m.opened {
		return &Error{Reason: ReasonNotProtected}
	}
	sk, ok := m.Payloads[len(m.Payloads)-1].(*Encrypted)
	if !ok {
		return &Error{Reason: ReasonNotProtected}
	}
	inner, err := p.Open(m.Raw, sk.start)
	if err != nil {
		return err
	}
	return m.open(m.Raw[:sk.start:sk.start], sk.First, inner)
}

func (m *Message) open(head []byte, first PayloadType, inner []byte) error {
	m.clear = len(m.Payloads) - 1
	m.Payloads = m.Payloads[:m.clear]
	m.opened, m.head, m.first, m.inner = true, head, first, inner
	payloads, err := ParsePayloads(first, inner)
	if err != nil {
		return err
	}
	m.Payloads = append(m.Payloads, payloads...)
	return nil
}

// AppendIntermediate appends what AUTH covers of an opened IKE_INTERMEDIATE message (RFC 9242, 3.3.2): the bytes up to and
// with the SK payload's header, both lengths as if there were no IV, padding and checksum, then the decrypted payloads.
// A message that came in fragments counts as if it had not.
func (m *Message) AppendIntermediate(b []byte) []byte {
	start, sk := len(b), len(m.head)-payloadHeaderLen
	b = append(b, m.head...)
	if m.clear == 0 {
		b[start+16] = byte(TypeEncrypted)
	}
	b[start+sk] = byte(m.first)
	binary.BigEndian.PutUint16(b[start+sk+2:], uint16(payloadHeaderLen+len(m.inner)))
	binary.BigEndian.PutUint32(b[start+24:], uint32(len(m.head)+len(m.inner)))
	return append(b, m.inner...)
}

// AppendIntermediate appends what AUTH covers of an IKE_INTERMEDIATE message that is sent with these payloads.
func AppendIntermediate(b []byte, h Header, payloads []Payload) []byte {
	inner := appendChain(nil, payloads)
	h.NextPayload, h.Length = TypeEncrypted, uint32(HeaderLen+payloadHeaderLen+len(inner))
	b = h.Append(b)
	b = append(b, byte(firstType(payloads)), 0, 0, 0)
	binary.BigEndian.PutUint16(b[len(b)-2:], uint16(payloadHeaderLen+len(inner)))
	return append(b, inner...)
}
