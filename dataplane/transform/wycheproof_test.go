package transform

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// vectors is a file of the project.
type vectors struct {
	TestGroups []struct {
		IvSize, KeySize, TagSize int
		Tests                    []struct {
			TcID                                        int
			Key, Iv, Aad, Msg, Ct, Tag, Result, Comment string
		}
	}
}

func wycheproofFile(t *testing.T, name string) (v vectors) {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestWycheproofAEAD runs the project's vectors whose additional data has the shape of ESP: 8 bytes, or 12 with an extended sequence number.
// A truncated tag is the beginning of the whole one (SP 800-38D, 7.1).
func TestWycheproofAEAD(t *testing.T) {
	for _, c := range []struct {
		file  string
		least int
		of    func(keyBits int) []Suite
	}{
		{"chacha20_poly1305_test.json", 40, func(int) []Suite { return []Suite{ChaCha20Poly1305} }},
		{"aes_gcm_test.json", 15, func(bits int) []Suite {
			return map[int][]Suite{
				128: {AES128GCM16, AES128GCM12, AES128GCM8}, 192: {AES192GCM16, AES192GCM12, AES192GCM8}, 256: {AES256GCM16, AES256GCM12, AES256GCM8},
			}[bits]
		}},
	} {
		ran := 0
		for _, g := range wycheproofFile(t, c.file).TestGroups {
			for _, v := range g.Tests {
				aad, iv := unhex(t, v.Aad), unhex(t, v.Iv)
				if len(iv) != 12 || g.TagSize != 128 || len(aad) != 8 && len(aad) != 12 {
					continue
				}
				for _, s := range c.of(g.KeySize) {
					ran++
					op := Op{Key: newKey(t, s, append(unhex(t, v.Key), iv[:4]...))}
					op.Packet = append(op.Packet, aad[:4]...)
					if op.ESN = len(aad) == 12; op.ESN {
						op.SeqHi = binary.BigEndian.Uint32(aad[4:])
					}
					op.Packet = append(op.Packet, aad[len(aad)-4:]...)
					op.Packet = append(op.Packet, iv[4:]...)
					op.Packet = append(op.Packet, unhex(t, v.Ct)...)
					op.Packet = append(op.Packet, unhex(t, v.Tag)[:s.Info().ICVLen]...)
					op.Counter = binary.BigEndian.Uint64(iv[4:])
					openAndSeal(t, fmt.Sprintf("%s, vector %d (%s, %s)", s, v.TcID, v.Result, v.Comment), op, unhex(t, v.Msg), v.Result == "valid")
				}
			}
		}
		if ran < c.least {
			t.Errorf("%s: only %d vectors have the shape of ESP", c.file, ran)
		}
	}
}

// TestWycheproofHMAC takes messages for packets without encryption: the MAC of one, truncated as RFC 4868 says, is its ICV.
func TestWycheproofHMAC(t *testing.T) {
	for _, s := range []Suite{NullSHA256, NullSHA384, NullSHA512} {
		info := s.Info()
		ran := 0
		for _, g := range wycheproofFile(t, fmt.Sprintf("hmac_%s_test.json", info.Name[len("null-"):])).TestGroups {
			for _, v := range g.Tests {
				msg := unhex(t, v.Msg)
				if g.KeySize != 8*info.KeyLen || g.TagSize != 8*info.ICVLen || len(msg) < headerLen {
					continue
				}
				ran++
				op := Op{Key: newKey(t, s, unhex(t, v.Key)), Packet: append(bytes.Clone(msg), unhex(t, v.Tag)...)}
				openAndSeal(t, fmt.Sprintf("%s, vector %d (%s, %s)", s, v.TcID, v.Result, v.Comment), op, msg[headerLen:], v.Result == "valid")
			}
		}
		if ran < 40 {
			t.Errorf("%s: only %d vectors have its lengths", s, ran)
		}
	}
}

// openAndSeal opens a packet, and seals what came out of it to the same bytes, if it is valid.
func openAndSeal(t *testing.T, name string, op Op, text []byte, valid bool) {
	t.Helper()
	b, sealed, info := new(Batch), bytes.Clone(op.Packet), op.Key.Suite().Info()
	ops := []Op{op}
	if b.Open(ops); ops[0].OK != valid {
		t.Errorf("%s: OK = %v", name, ops[0].OK)
		return
	}
	if !valid {
		return
	}
	if !bytes.Equal(op.Packet[headerLen+info.IVLen:len(op.Packet)-info.ICVLen], text) {
		t.Errorf("%s: opened to something else", name)
	}
	clear(op.Packet[len(op.Packet)-info.ICVLen:])
	if b.Seal(ops); !bytes.Equal(op.Packet, sealed) {
		t.Errorf("%s: sealed to something else", name)
	}
}
