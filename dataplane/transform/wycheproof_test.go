package transform

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// TestWycheproofChaCha20Poly1305 runs the project's vectors whose additional data has
// the shape of ESP: 8 bytes, or 12 with an extended sequence number.
func TestWycheproofChaCha20Poly1305(t *testing.T) {
	raw, err := fs.ReadFile(wycheproof.TestVectors, "chacha20_poly1305_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			IvSize, TagSize int
			Tests           []struct {
				TcID                                        int
				Key, Iv, Aad, Msg, Ct, Tag, Result, Comment string
			}
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	ran := 0
	b := new(Batch)
	for _, g := range file.TestGroups {
		for _, v := range g.Tests {
			aad, iv := unhex(t, v.Aad), unhex(t, v.Iv)
			if len(iv) != 12 || g.TagSize != 128 || len(aad) != 8 && len(aad) != 12 {
				continue
			}
			ran++
			op := Op{Key: newKey(t, ChaCha20Poly1305, append(unhex(t, v.Key), iv[:4]...))}
			op.Packet = append(op.Packet, aad[:4]...)
			if op.ESN = len(aad) == 12; op.ESN {
				op.SeqHi = binary.BigEndian.Uint32(aad[4:])
			}
			op.Packet = append(op.Packet, aad[len(aad)-4:]...)
			op.Packet = append(op.Packet, iv[4:]...)
			op.Packet = append(op.Packet, unhex(t, v.Ct)...)
			op.Packet = append(op.Packet, unhex(t, v.Tag)...)
			sealed := bytes.Clone(op.Packet)
			ops := []Op{op}
			b.Open(ops)
			if ops[0].OK != (v.Result == "valid") {
				t.Errorf("vector %d (%s, %s): OK = %v", v.TcID, v.Result, v.Comment, ops[0].OK)
				continue
			}
			if !ops[0].OK {
				continue
			}
			if msg := unhex(t, v.Msg); !bytes.Equal(op.Packet[16:16+len(msg)], msg) {
				t.Errorf("vector %d: opened to something else", v.TcID)
			}
			ops[0].Counter = binary.BigEndian.Uint64(iv[4:])
			if b.Seal(ops); !bytes.Equal(op.Packet, sealed) {
				t.Errorf("vector %d: sealed to something else", v.TcID)
			}
		}
	}
	if ran < 40 {
		t.Errorf("only %d vectors have the shape of ESP", ran)
	}
}
