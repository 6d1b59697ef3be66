package aesgcm

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// TestWycheproof runs the project's AES-GCM vectors whose shapes ESP has: 96-bit
// nonces, 128-bit tags, at most 12 bytes of additional data.
func TestWycheproof(t *testing.T) {
	raw, err := fs.ReadFile(wycheproof.TestVectors, "aes_gcm_test.json")
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
	eachImplementation(t, func(t *testing.T, im *implementation) {
		ran := 0
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				if g.IvSize != 96 || g.TagSize != 128 || len(v.Aad) > 2*AADMax {
					continue
				}
				ran++
				text, sealed := unhex(t, v.Msg), append(unhex(t, v.Ct), unhex(t, v.Tag)...)
				key := newKey(t, im, unhex(t, v.Key))
				buf := bytes.Clone(sealed)
				ops := []Op{opOf(key, unhex(t, v.Iv), unhex(t, v.Aad), buf)}
				im.open(ops)
				if ops[0].OK != (v.Result == "valid") {
					t.Errorf("vector %d (%s, %s): OK = %v", v.TcID, v.Result, v.Comment, ops[0].OK)
					continue
				}
				if !ops[0].OK {
					if !allZero(buf) {
						t.Errorf("vector %d: refused, but not wiped", v.TcID)
					}
					continue
				}
				if !bytes.Equal(buf[:len(text)], text) {
					t.Errorf("vector %d: opened to something else", v.TcID)
				}
				im.seal(ops)
				if !bytes.Equal(buf, sealed) {
					t.Errorf("vector %d: sealed to something else", v.TcID)
				}
			}
		}
		if ran < 100 {
			t.Errorf("only %d vectors have a shape that ESP uses", ran)
		}
	})
}
