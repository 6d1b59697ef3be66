package aesgcm

//go:generate go run -C ../../tools/asmgen . ../../dataplane/aesgcm

// The assembly takes the ops from the first on and returns how many of them went well. It
// sets OK, and leaves the buffers of those that did not go well to be wiped.

//go:noescape
func sealAESNI(ops *Op, n int) (done int)

//go:noescape
func openAESNI(ops *Op, n int) (done int)

//go:noescape
func sealVAES(ops *Op, n int) (done int)

//go:noescape
func openVAES(ops *Op, n int) (done int)

// subWord is AES's S-box on each byte of w.
func subWord(w uint32) uint32

// encryptBlock encrypts one block in place, with the round keys of a key.
//
//go:noescape
func encryptBlock(key *Key, block *[16]byte)

// multiply multiplies x by h; both have reversed bytes, and h is divided by x.
//
//go:noescape
func multiply(x, h *[16]byte)

// overBatch completes a function in assembly.
func overBatch(call func(ops *Op, n int) (done int)) func([]Op) {
	return func(ops []Op) {
		if len(ops) == 0 || call(&ops[0], len(ops)) == len(ops) {
			return
		}
		for i := range ops {
			if !ops[i].OK {
				fail(&ops[i])
			}
		}
	}
}
