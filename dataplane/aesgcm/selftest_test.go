package aesgcm

import "testing"

// TestSelfTestAnswer computes the chain with crypto/cipher.
func TestSelfTestAnswer(t *testing.T) {
	tag, ok := selfTestTag(&generic)
	if !ok || tag != selfTestAnswer {
		t.Errorf("the chain ends in %x (ok = %v), the constant is %x", tag, ok, selfTestAnswer)
	}
}

// TestSupportedIsAvailable: an implementation that fails its test at start is left out
// without a word on a user's machine, but not here.
func TestSupportedIsAvailable(t *testing.T) {
	for _, im := range implementations {
		t.Logf("%s: supported = %v, available = %v", im.name, im.supported, im.available)
		if im.supported != im.available {
			t.Errorf("%s does not give known answers", im.name)
		}
	}
}
