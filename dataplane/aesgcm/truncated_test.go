package aesgcm

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestTruncatedTags: what was sent of a tag decides, whatever stands behind it; and one bad packet does not spoil its neighbours.
func TestTruncatedTags(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(7, 8))
		raw := randomBytes(r, 32)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		for length := 0; length <= 1500; length += 1 + 6*(length/300) {
			for _, sent := range []int{8, 12, TagSize} {
				ops := make([]Op, 3)
				frames, texts, bad := make([][]byte, 3), make([][]byte, 3), make([]int, 3)
				for i := range ops {
					nonce, aad := randomBytes(r, NonceSize), randomBytes(r, AADMax)
					texts[i] = randomBytes(r, length+i)
					var buf []byte
					frames[i], buf = framed(texts[i], slack)
					copy(buf, ref.Seal(nil, nonce, texts[i], aad))
					copy(buf[len(texts[i])+sent:], randomBytes(r, TagSize-sent))
					if bad[i] = r.IntN(2); bad[i] == 1 {
						buf[r.IntN(len(texts[i])+sent)] ^= 1 << r.IntN(8)
					}
					ops[i] = opOf(key, nonce, aad, buf)
					ops[i].OK = bad[i] == 1
				}
				im.openTruncated(ops, sent)
				for i := range ops {
					switch buf := ops[i].Buf; {
					case ops[i].OK != (bad[i] == 0):
						t.Fatalf("%d bytes, %d of the tag: OK = %v, damaged = %v", length+i, sent, ops[i].OK, bad[i] == 1)
					case ops[i].OK && !bytes.Equal(buf[:length+i], texts[i]):
						t.Fatalf("%d bytes, %d of the tag: opened to something else", length+i, sent)
					case !ops[i].OK && !allZero(buf):
						t.Fatalf("%d bytes, %d of the tag: refused but not wiped", length+i, sent)
					}
					checkCanaries(t, frames[i], ops[i].Buf)
				}
			}
		}
		// Without a key, and too short, after an op that went well in the same place.
		ops := []Op{opOf(key, nil, nil, make([]byte, 20))}
		im.seal(ops)
		im.openTruncated(ops, 8)
		if !ops[0].OK {
			t.Fatal("not opened")
		}
		for _, change := range []func(*Op){func(op *Op) { op.Key = nil }, func(op *Op) { op.Key = new(Key) }, func(op *Op) { op.Buf = op.Buf[:TagSize-1] }} {
			op := ops[0]
			change(&op)
			if one := []Op{op}; true {
				if im.openTruncated(one, 8); one[0].OK {
					t.Error("opened what cannot be worked on")
				}
			}
		}
		im.openTruncated(nil, 8)
		if n := testing.AllocsPerRun(10, func() { im.openTruncated(ops, 12) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
