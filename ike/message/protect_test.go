package message

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// aead is a Protector like those of AES-GCM, with padding to blocks so that lengths move in steps as they do for CBC.
type aead struct {
	cipher.AEAD
	block int
	count uint64
}

func newAEAD(block int) *aead {
	b, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err)
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return &aead{AEAD: g, block: block}
}

func (a *aead) IVLen() int { return 8 }

func (a *aead) BodyLen(n int) int { return 8 + (n/a.block+1)*a.block + 16 }

func (a *aead) Seal(packet []byte, body, n int) error {
	a.count++
	binary.BigEndian.PutUint64(packet[body:], a.count)
	nonce := make([]byte, 12)
	copy(nonce[4:], packet[body:body+8])
	plain := packet[body+8 : len(packet)-16]
	plain[len(plain)-1] = byte(len(plain) - n - 1)
	a.AEAD.Seal(plain[:0], nonce, plain, packet[:body])
	return nil
}

func (a *aead) Open(packet []byte, body int) ([]byte, error) {
	if len(packet)-body < 8+1+16 {
		return nil, ErrIntegrity
	}
	nonce := make([]byte, 12)
	copy(nonce[4:], packet[body:body+8])
	plain, err := a.AEAD.Open(nil, nonce, packet[body+8:], packet[:body]) // not in place: packet stays as it is on failure
	if err != nil {
		return nil, ErrIntegrity
	}
	plain = append(packet[body+8:body+8], plain...)
	pad := int(plain[len(plain)-1])
	if pad+1 > len(plain) {
		return nil, ErrIntegrity
	}
	return plain[:len(plain)-1-pad], nil
}

var protectedHeader = Header{InitiatorSPI: 1, ResponderSPI: 2, Exchange: IKEAuth, Flags: Initiator, MessageID: 1}

func datagrams(t testing.TB, p Protector, payloads []Payload, fragmentMax int) [][]byte {
	t.Helper()
	b, err := AppendProtected(nil, protectedHeader, payloads, p, fragmentMax)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parsed(t testing.TB, b []byte) *Message {
	t.Helper()
	m, err := Parse(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProtectedMessageOpensToItsPayloads(t *testing.T) {
	for _, block := range []int{1, 16} {
		p := newAEAD(block)
		for n := range 100 {
			payloads := []Payload{&VendorID{Data: bytes.Repeat([]byte{byte(n)}, n)}, &Notify{SPI: []byte{}, Notify: InitialContact, Data: []byte{}}}
			if n == 0 {
				payloads = nil // liveness: an empty SK
			}
			b := datagrams(t, p, payloads, 0)
			if len(b) != 1 {
				t.Fatal(len(b), "datagrams")
			}
			m := parsed(t, b[0])
			if err := m.Open(p); err != nil {
				t.Fatal(err)
			}
			if len(payloads) != len(m.Payloads) || len(payloads) > 0 && !reflect.DeepEqual(m.Payloads, payloads) {
				t.Fatalf("%+v", m.Payloads)
			}
			if !m.Opened() || len(m.Clear()) != 0 {
				t.Error("not marked as opened")
			}
			if err := m.Open(p); err == nil {
				t.Error("opened twice")
			}
		}
	}
}

func TestEveryChangedBitFailsAndChangesNothing(t *testing.T) {
	p := newAEAD(1)
	raw := datagrams(t, p, []Payload{&VendorID{Data: []byte("abc")}}, 0)[0]
	for bit := range len(raw) * 8 {
		b := bytes.Clone(raw)
		b[bit/8] ^= 0x80 >> (bit % 8)
		m, err := Parse(b)
		if err != nil {
			continue
		}
		changed := bytes.Clone(b)
		if err := m.Open(p); err == nil {
			t.Fatalf("bit %d", bit)
		}
		if !bytes.Equal(b, changed) || m.Opened() {
			t.Fatalf("bit %d: a forged message left traces", bit)
		}
	}
}

func bigPayloads(n int) []Payload {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return []Payload{&ID{IDType: IDFQDN, Data: []byte("gw")}, &Cert{Encoding: CertX509Signature, Data: data}}
}

func TestFragmentsFitAndComeTogetherInEveryOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, block := range []int{1, 16} {
		p := newAEAD(block)
		for _, fragmentMax := range []int{100, 101, 115, 576, 1232} {
			for n := 1; n < 4000; n += 61 + random.IntN(50) {
				payloads := bigPayloads(n)
				b, err := AppendProtected(nil, protectedHeader, payloads, p, fragmentMax)
				if err != nil {
					if n > 1000 && fragmentMax < 200 {
						continue // more than FragmentsMax
					}
					t.Fatal(err)
				}
				var r Reassembler
				var whole *Message
				order := random.Perm(len(b))
				for i, at := range order {
					if len(b[at]) > fragmentMax {
						t.Fatalf("%d bytes, allowed are %d", len(b[at]), fragmentMax)
					}
					m := parsed(t, b[at])
					if len(b) == 1 {
						if whole = m; m.Open(p) != nil {
							t.Fatal("does not open")
						}
						continue
					}
					got, err := r.Add(time.Time{}.Add(1), m, p)
					if err != nil {
						t.Fatal(err)
					}
					if (got != nil) != (i == len(order)-1) {
						t.Fatalf("fragment %d of %d: %v", i+1, len(order), got)
					}
					if _, err := r.Add(time.Time{}.Add(1), parsed(t, b[at]), p); got == nil && !errors.Is(err, &Error{Reason: ReasonFragmentStale}) {
						t.Fatalf("duplicate: %v", err)
					}
					whole = got
				}
				if !reflect.DeepEqual(whole.Payloads, payloads) {
					t.Fatalf("fragmentMax %d, %d bytes: payloads differ", fragmentMax, n)
				}
				if len(b) > 1 && len(b[0]) < fragmentMax-block {
					t.Errorf("fragment of %d bytes wastes room below %d", len(b[0]), fragmentMax)
				}
			}
		}
	}
}

// TestIntermediateOctetsAreTheSameWholeOrInFragments: both sides must feed AUTH the same bytes, however they travelled.
func TestIntermediateOctetsAreTheSameWholeOrInFragments(t *testing.T) {
	p := newAEAD(16)
	payloads := []Payload{&KE{Method: KEMLKEM768, Data: bytes.Repeat([]byte{3}, 1184)}}
	h := protectedHeader
	h.Exchange = IKEIntermediate
	sent := AppendIntermediate(nil, h, payloads)

	// RFC 9242, 3.3.2: lengths without IV, padding and checksum; the payload is SK, whatever it travelled as.
	want := h
	want.NextPayload, want.Length = TypeEncrypted, 28+4+4+4+1184
	byHand := want.Append(nil)
	byHand = append(byHand, byte(TypeKE), 0, (4+4+4+1184)>>8, (4+4+4+1184)&0xff)
	byHand = appendChain(byHand, payloads)
	if !bytes.Equal(sent, byHand) {
		t.Fatalf("sender\n%x, want\n%x", sent, byHand)
	}
	for _, fragmentMax := range []int{0, 600} {
		b, err := AppendProtected(nil, h, payloads, p, fragmentMax)
		if err != nil {
			t.Fatal(err)
		}
		var whole *Message
		var r Reassembler
		for i := len(b) - 1; i >= 0; i-- {
			m := parsed(t, b[i])
			if fragmentMax == 0 {
				if err := m.Open(p); err != nil {
					t.Fatal(err)
				}
				whole = m
			} else if whole, err = r.Add(time.Now(), m, p); err != nil {
				t.Fatal(err)
			}
		}
		if got := whole.AppendIntermediate([]byte{}); !bytes.Equal(got, sent) {
			t.Fatalf("fragmentMax %d: receiver\n%x, want\n%x", fragmentMax, got[:40], sent[:40])
		}
	}
}

func TestReassemblerIsBounded(t *testing.T) {
	p := newAEAD(1)
	now := time.Now()
	fragment := func(number, total uint16, id uint32, n int) *Message {
		h := protectedHeader
		h.MessageID = id
		first := TypeNone
		if number == 1 {
			first = TypeVendorID
		}
		raw, err := seal(h, TypeEncryptedFragment, first, number, total, make([]byte, n), p)
		if err != nil {
			t.Fatal(err)
		}
		return parsed(t, raw)
	}
	reason := func(r *Reassembler, m *Message) string {
		t.Helper()
		whole, err := r.Add(now, m, p)
		if whole != nil {
			t.Fatal("complete")
		}
		var e *Error
		if err == nil {
			return ""
		}
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		return e.Reason
	}

	t.Run("forged fragments leave no trace", func(t *testing.T) {
		var r Reassembler
		if got := reason(&r, fragment(1, 3, 1, 10)); got != "" {
			t.Fatal(got)
		}
		before := r
		for _, forged := range []*Message{fragment(2, 3, 1, 10), fragment(2, 9, 1, 10), fragment(1, 3, 7, 10)} {
			forged.Raw[len(forged.Raw)-1] ^= 1
			if got := reason(&r, forged); got != ReasonIntegrity {
				t.Fatal(got)
			}
			if !reflect.DeepEqual(r, before) {
				t.Fatal("a forged fragment changed what is kept")
			}
		}
	})
	t.Run("a larger total starts again, a smaller one is dropped", func(t *testing.T) {
		var r Reassembler
		_ = reason(&r, fragment(1, 3, 1, 10))
		_ = reason(&r, fragment(2, 3, 1, 10))
		if got := reason(&r, fragment(3, 4, 1, 10)); got != "" || r.have != 1 || r.total != 4 || r.bytes != 10 {
			t.Fatalf("%q %+v", got, r)
		}
		if got := reason(&r, fragment(3, 3, 1, 10)); got != ReasonFragmentStale || r.have != 1 {
			t.Fatalf("%q %+v", got, r)
		}
	})
	t.Run("too many fragments", func(t *testing.T) {
		var r Reassembler
		if got := reason(&r, fragment(1, FragmentsMax+1, 1, 10)); got != ReasonFragmentLimit || r.Pending() {
			t.Fatal(got)
		}
	})
	t.Run("too many bytes", func(t *testing.T) {
		var r Reassembler
		for i := range uint16(FragmentsMax) {
			if got := reason(&r, fragment(i+1, FragmentsMax, 1, 2000)); got != "" {
				if got != ReasonFragmentLimit || int(i) != ReassembledMax/2000 || r.Pending() {
					t.Fatal(i, got)
				}
				return
			}
		}
		t.Fatal("no limit")
	})
	t.Run("time", func(t *testing.T) {
		var r Reassembler
		_ = reason(&r, fragment(1, 2, 1, 10))
		if !r.Pending() || !r.Deadline().Equal(now.Add(ReassemblyTimeout)) {
			t.Fatal(r.Deadline())
		}
		r.Expire(r.Deadline().Add(-1))
		if !r.Pending() {
			t.Fatal("too early")
		}
		r.Expire(r.Deadline())
		if r.Pending() {
			t.Fatal("kept")
		}
	})
	t.Run("another message takes the place", func(t *testing.T) {
		var r Reassembler
		_ = reason(&r, fragment(1, 2, 1, 10))
		_ = reason(&r, fragment(1, 2, 2, 10))
		if r.header.MessageID != 2 || r.have != 1 {
			t.Fatalf("%+v", r)
		}
	})
	t.Run("empty fragment", func(t *testing.T) {
		var r Reassembler
		if got := reason(&r, fragment(2, 3, 1, 0)); got != ReasonFragment || r.Pending() {
			t.Fatal(got)
		}
	})
	t.Run("payloads beside the fragment", func(t *testing.T) {
		var r Reassembler
		m := fragment(1, 2, 1, 10)
		m.Payloads = append([]Payload{&VendorID{}}, m.Payloads...)
		if got := reason(&r, m); got != ReasonUnprotected {
			t.Fatal(got)
		}
	})
}

func TestMessageTooLongIsRefused(t *testing.T) {
	p := newAEAD(1)
	for _, c := range []struct{ n, fragmentMax int }{{70000, 0}, {70000, 1200}, {MessageMax, 0}, {60000, 500}, {100, 50}} {
		if _, err := AppendProtected(nil, protectedHeader, []Payload{&VendorID{Data: make([]byte, c.n)}}, p, c.fragmentMax); err == nil {
			t.Errorf("%d bytes in fragments of %d", c.n, c.fragmentMax)
		}
	}
}

func TestOpenedMessageWithMalformedPayloadsKeepsNone(t *testing.T) {
	p := newAEAD(1)
	raw, err := seal(protectedHeader, TypeEncrypted, TypeSA, 0, 0, []byte{0, 0, 0, 9}, p)
	if err != nil {
		t.Fatal(err)
	}
	m := parsed(t, raw)
	var e *Error
	if err := m.Open(p); !errors.As(err, &e) || e.Notify != InvalidSyntax || !m.Opened() || len(m.Payloads) != 0 {
		t.Fatalf("%v %+v", err, m)
	}
}
