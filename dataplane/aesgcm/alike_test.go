package aesgcm

import (
	"bytes"
	"crypto/cipher"
	"math/rand/v2"
	"testing"
)

// alikeRun is a number of packets in a row with one key, one length of text and one of additional data.
type alikeRun struct{ count, key, length, aadLen int }

// sealAndOpenRuns seals a batch of runs, compares each packet with crypto/cipher's, damages some anywhere in text or tag, and opens them: those alone
// fail, and are wiped. A key of nil has no oracle, and its packets fail.
func sealAndOpenRuns(t *testing.T, r *rand.Rand, im *implementation, keys []*Key, refs []cipher.AEAD, runs []alikeRun) {
	t.Helper()
	var ops []Op
	var frames, texts, wants [][]byte
	for _, run := range runs {
		for range run.count {
			nonce, aad, text := randomBytes(r, NonceSize), randomBytes(r, AADMax), randomBytes(r, run.length)
			frame, buf := framed(text, r.IntN(2)*slack)
			op := opOf(keys[run.key], nonce, aad, buf)
			op.AADLen = uint8(run.aadLen)
			var want []byte
			if keys[run.key] != nil && run.aadLen <= AADMax {
				want = refs[run.key].Seal(nil, nonce, text, aad[:run.aadLen])
			}
			ops, frames, texts, wants = append(ops, op), append(frames, frame), append(texts, text), append(wants, want)
		}
	}
	bad := make([]bool, len(ops))
	im.seal(ops)
	for i := range ops {
		buf := ops[i].Buf
		if ops[i].OK != (wants[i] != nil) || ops[i].OK && !bytes.Equal(buf, wants[i]) || !ops[i].OK && !allZero(buf) {
			t.Fatalf("%v: packet %d: OK = %v, and not sealed as it should be", runs, i, ops[i].OK)
		}
		checkCanaries(t, frames[i], buf)
		if bad[i] = wants[i] == nil || r.IntN(8) == 0; bad[i] {
			buf[r.IntN(len(buf))] ^= 1 << r.IntN(8)
		}
		ops[i].OK = bad[i]
	}
	im.open(ops)
	for i := range ops {
		switch buf, n := ops[i].Buf, len(texts[i]); {
		case ops[i].OK == bad[i]:
			t.Fatalf("%v: packet %d: OK = %v, damaged = %v", runs, i, ops[i].OK, bad[i])
		case !bad[i] && (!bytes.Equal(buf[:n], texts[i]) || !bytes.Equal(buf[n:], wants[i][n:]) && !allZero(buf[n:])):
			t.Fatalf("%v: packet %d is opened to something else", runs, i)
		case bad[i] && !allZero(buf):
			t.Fatalf("%v: packet %d is refused, but not wiped", runs, i)
		}
		checkCanaries(t, frames[i], ops[i].Buf)
	}
}

func keysOfAllSizes(t *testing.T, r *rand.Rand, im *implementation) (keys []*Key, refs []cipher.AEAD) {
	for _, size := range []int{16, 24, 32, 16} {
		raw := randomBytes(r, size)
		keys, refs = append(keys, newKey(t, im, raw)), append(refs, oracle(t, raw))
	}
	return append(keys, nil), append(refs, nil)
}

// TestPacketsAlike works on packets that are alike, and so may be taken together: of every short length, with every key size, so many that they fill
// a number of fours, and one to three more.
func TestPacketsAlike(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(14, 14))
		keys, refs := keysOfAllSizes(t, r, im)
		for key := range 3 {
			for n := range 180 {
				sealAndOpenRuns(t, r, im, keys, refs, []alikeRun{{4 + (n+5*key)%14, key, n, []int{12, 8, 0, 5, 12, 1}[n%6]}})
			}
		}
	})
}

// TestRunsOfPacketsAlike works on batches in which what packets have in common changes anywhere: the key, the number of blocks, only the
// last block's length, the additional data's length; and on packets between them that cannot be worked on.
func TestRunsOfPacketsAlike(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(15, 15))
		keys, refs := keysOfAllSizes(t, r, im)
		for range 300 {
			run := alikeRun{key: r.IntN(4), length: r.IntN(190), aadLen: 12}
			var runs []alikeRun
			for total := 0; total < 64; total += run.count {
				switch r.IntN(6) {
				case 0:
					run.key = r.IntN(len(keys))
				case 1:
					run.length = []int{0, 1, 15, 16, 17, 64, 68, 80, 81, 128, 129, 144, 145, 159, 160, 161, 176, 177, 500}[r.IntN(19)]
				case 2:
					run.length ^= 1
				case 3:
					run.aadLen = r.IntN(AADMax + 2)
				}
				run.count = 1 + r.IntN(14)
				runs = append(runs, run)
			}
			sealAndOpenRuns(t, r, im, keys, refs, runs)
		}
	})
}

// TestEveryNeighbour works on packets of every number of registers of four blocks, up to one group and three more, behind packets of every such number, with
// the same key, another one, and keys of other sizes: what is left to do for one is done while the next one begins.
func TestEveryNeighbour(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(17, 17))
		keys, refs := keysOfAllSizes(t, r, im)
		// With additional data and lengths, n registers have 4n-5 to 4n-2 blocks of text.
		length := func(registers int) int { return max(0, 16*(4*registers-2)-r.IntN(64)) }
		for a := 1; a <= 13; a++ {
			for b := 1; b <= 13; b++ {
				for k := range 16 {
					one, other := alikeRun{1, k / 4, length(a), 8}, alikeRun{1, k % 4, length(b), 12}
					sealAndOpenRuns(t, r, im, keys, refs, []alikeRun{one, other, one, other, other})
					if b > 4 { // it learns powers of its key that only a first group of five needs
						five := alikeRun{1, k % 4, length(9 + 4*(a&1)), 8}
						sealAndOpenRuns(t, r, im, keys, refs, []alikeRun{one, other, five})
						if a < 3 && k < 4 {
							sealAndOpenRuns(t, r, im, keys, refs, []alikeRun{other, five})
						}
					}
				}
			}
		}
	})
}

// TestOneWrongByteAmongPacketsAlike damages every byte of one packet's buffer, nonce and additional data, in each place of a four: it alone is refused.
func TestOneWrongByteAmongPacketsAlike(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(16, 16))
		for i, length := range []int{1, 20, 44, 64, 68, 90, 100, 128, 132, 150} {
			key := newKey(t, im, randomBytes(r, []int{16, 24, 32}[i%3]))
			const count = 8
			var sealed [count]Op
			texts := make([][]byte, count)
			for k := range sealed {
				texts[k] = randomBytes(r, length)
				_, buf := framed(texts[k], 0)
				sealed[k] = opOf(key, randomBytes(r, NonceSize), randomBytes(r, AADMax), buf)
			}
			im.seal(sealed[:])
			for at := range length + TagSize + NonceSize + AADMax {
				wrong := at % count
				ops := sealed
				for k := range ops {
					ops[k].Buf, ops[k].OK = bytes.Clone(sealed[k].Buf), k == wrong
				}
				switch op := &ops[wrong]; {
				case at < len(op.Buf):
					op.Buf[at] ^= 0x10
				case at < len(op.Buf)+NonceSize:
					op.Nonce[at-len(op.Buf)] ^= 0x10
				default:
					op.AAD[at-len(op.Buf)-NonceSize] ^= 0x10
				}
				im.open(ops[:])
				for k := range ops {
					if ops[k].OK != (k != wrong) || k == wrong && !allZero(ops[k].Buf) || k != wrong && !bytes.Equal(ops[k].Buf[:length], texts[k]) {
						t.Fatalf("%d bytes, wrong byte %d of packet %d: packet %d: OK = %v", length, at, wrong, k, ops[k].OK)
					}
				}
			}
		}
	})
}

// TestPacketsAlikeTouchNothingElse puts packets that are alike at both edges of readable memory.
func TestPacketsAlikeTouchNothingElse(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		area := guarded(t)
		key := newKey(t, im, make([]byte, 16))
		var ops [8]Op
		for n := range 180 {
			// In the middle but for one packet at either edge, which is another one of a four each time.
			size := n + TagSize
			for k := range ops {
				ops[k] = opOf(key, []byte{byte(k)}, nil, area[(k+1)*size:(k+2)*size])
			}
			ops[n%4].Buf, ops[4+n/4%4].Buf = area[:size], area[len(area)-size:]
			for _, call := range []func([]Op){im.seal, im.open} {
				call(ops[:])
				for k := range ops {
					if !ops[k].OK {
						t.Fatalf("%d bytes: packet %d failed", n, k)
					}
				}
			}
		}
	})
}
