package transform

import (
	"bytes"
	"reflect"
	"testing"
	"unsafe"

	"sallyport/dataplane/aesgcm"
	"sallyport/tools/asmlayout"
)

// TestGeneratorKnowsTheLayout: assembly elsewhere copies the beginning of a run into an op.
func TestGeneratorKnowsTheLayout(t *testing.T) {
	var run GCMRun
	var op aesgcm.Op
	if unsafe.Offsetof(run.salt)-unsafe.Offsetof(run.key) != unsafe.Offsetof(op.Nonce)-unsafe.Offsetof(op.Key) {
		t.Error("the salt is not behind the key as in an op")
	}
	var key Key
	asmlayout.Check(t, "layout.go", map[string]uintptr{
		"keySalt": unsafe.Offsetof(key.gcm) + unsafe.Offsetof(key.gcm.Extra), "keyKind": unsafe.Offsetof(key.gcm) + unsafe.Offsetof(key.gcm.Extra) + extraKind, "kindGCM": uintptr(KindGCM),
	})
	if unsafe.Offsetof(key.gcm) != 0 {
		t.Error("a run's key does not begin the key")
	}
	asmlayout.Check(t, "records.go", map[string]uintptr{"gcmRunSPI": unsafe.Offsetof(run.spi), "gcmRunAADLen": unsafe.Offsetof(run.aadLen), "transformSize": unsafe.Sizeof(key)})
}

// TestKeyIsPlain: keys lie in memory that the collector does not look into, one behind another on cache lines.
func TestKeyIsPlain(t *testing.T) {
	var check func(reflect.Type)
	check = func(x reflect.Type) {
		switch x.Kind() {
		case reflect.Struct:
			for i := range x.NumField() {
				check(x.Field(i).Type)
			}
		case reflect.Array:
			check(x.Elem())
		case reflect.Uint8, reflect.Uint32:
		default:
			t.Errorf("a key holds a %s", x)
		}
	}
	check(reflect.TypeFor[Key]())
	if n := unsafe.Sizeof(Key{}); n%64 != 0 {
		t.Errorf("a key has %d bytes", n)
	}
}

// TestZeroLeavesNothing looks at every byte of a key, and at what it had handles of.
func TestZeroLeavesNothing(t *testing.T) {
	for _, s := range List() {
		before := ciphers.Len() + macKeys.Len()
		k := newKey(t, s, bytes.Repeat([]byte{0x5a}, s.Info().KeyLen))
		raw := unsafe.Slice((*byte)(unsafe.Pointer(k)), unsafe.Sizeof(*k))
		k.Zero()
		k.Zero()
		if len(bytes.Trim(raw, "\x00")) > 0 {
			t.Errorf("%s: %x is left", s, raw)
		}
		if after := ciphers.Len() + macKeys.Len(); after != before {
			t.Errorf("%s: %d handles, %d before", s, after, before)
		}
	}
}
