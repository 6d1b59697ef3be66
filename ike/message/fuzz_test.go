package message

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
	"time"
)

func seedMessages(f *testing.F) [][]byte {
	p := newAEAD(1)
	all := [][]byte{sampleMessage().Append(nil)}
	for _, payload := range allPayloads() {
		m := sampleMessage()
		m.Payloads = []Payload{payload}
		all = append(all, m.Append(nil))
		sealed, err := AppendProtected(nil, protectedHeader, m.Payloads, p, 80)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, sealed...)
	}
	return all
}

// fixLength writes the length that a datagram has into its header, so that the fuzzer gets past the first check.
func fixLength(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= HeaderLen {
		binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	}
	return b
}

// FuzzParse: nothing panics, what is accepted is appended to the same bytes' meaning, and Check never panics on it.
func FuzzParse(f *testing.F) {
	for _, raw := range seedMessages(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(fixLength(b))
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		_ = Check(m)
		for _, p := range m.Payloads {
			switch p := p.(type) {
			case *Encrypted, *EncryptedFragment:
				return // Append does not know what is inside
			case *TS:
				if p.Skipped > 0 {
					return
				}
			case *SA:
				for _, proposal := range p.Proposals {
					for _, t := range proposal.Transforms {
						if t.Unrecognized {
							return
						}
					}
				}
			}
		}
		again, err := Parse(m.Append(nil))
		if err != nil {
			t.Fatalf("%v from %x", err, b)
		}
		if !reflect.DeepEqual(again.Payloads, m.Payloads) {
			t.Fatalf("%+v\nbecomes\n%+v", m.Payloads, again.Payloads)
		}
	})
}

// FuzzPayload feeds one payload's parser.
func FuzzPayload(f *testing.F) {
	for _, p := range allPayloads() {
		f.Add(byte(p.Type()), p.AppendBody(nil))
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		p, err := parseBody(PayloadType(kind), true, b)
		if err != nil {
			return
		}
		if ts, ok := p.(*TS); ok {
			for _, s := range ts.Selectors {
				_ = s.String()
			}
		}
		if again, err := parseBody(PayloadType(kind), true, p.AppendBody([]byte{})); err == nil && !reflect.DeepEqual(again, p) && !lossy(p) {
			t.Fatalf("%+v\nbecomes\n%+v", p, again)
		}
	})
}

// lossy payloads held something that is not kept.
func lossy(p Payload) bool {
	if ts, ok := p.(*TS); ok {
		return ts.Skipped > 0
	}
	if sa, ok := p.(*SA); ok {
		for _, proposal := range sa.Proposals {
			for _, t := range proposal.Transforms {
				if t.Unrecognized {
					return true
				}
			}
		}
	}
	return false
}

// FuzzReassembler lets an authenticated peer send fragments as it likes: memory stays bounded and nothing panics.
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{1, 2, 5, 0, 2, 2, 9, 0})
	f.Add([]byte{1, 3, 200, 0, 3, 3, 200, 0, 2, 3, 200, 0, 1, 4, 1, 1})
	p := newAEAD(1)
	f.Fuzz(func(t *testing.T, script []byte) {
		var r Reassembler
		now := time.Now()
		for ; len(script) >= 4; script = script[4:] {
			h := protectedHeader
			h.MessageID = uint32(script[3] & 3)
			first := TypeNone
			if script[0] == 1 {
				first = TypeVendorID
			}
			raw, err := seal(h, TypeEncryptedFragment, first, uint16(script[0]), uint16(script[1]), make([]byte, 8*int(script[2])), p)
			if err != nil {
				t.Fatal(err)
			}
			if script[3]&0x80 != 0 {
				raw[len(raw)-1] ^= 1
			}
			if script[3]&0x40 != 0 {
				now = now.Add(time.Minute)
			}
			m, err := Parse(raw)
			if err != nil {
				continue
			}
			before := r.bytes
			whole, err := r.Add(now, m, p)
			if script[3]&0x80 != 0 && (whole != nil || err == nil || r.bytes > before) {
				t.Fatal("a forged fragment was taken")
			}
			if whole != nil && r.Pending() {
				t.Fatal("fragments remain")
			}
			if r.bytes > ReassembledMax || len(r.pieces) > FragmentsMax {
				t.Fatal("unbounded")
			}
		}
	})
}
