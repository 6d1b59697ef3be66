// Package aesgcm seals and opens batches of packets with AES-GCM (NIST SP
// 800-38D) for ESP (RFC 4106): 96-bit nonces, 128-bit tags, at most 12 bytes of
// additional data.
//
// A key is expanded once, when it is installed. A batch is a slice of [Op]; its
// packets may use different keys and have different lengths, and are worked on
// in place.
//
// # Contract
//
// Every implementation behind [Seal] and [Open] keeps it:
//
//   - Op.Buf is the text followed by 16 tag bytes. Seal encrypts the text in place
//     and writes the tag. Open verifies the tag, decrypts the text in place and
//     leaves the tag's bytes as they were or wiped.
//   - Op.OK says whether the operation was done. If it is false, every byte of Buf is
//     zero: neither plaintext nor unverified keystream is left behind.
//   - Nothing outside Buf is read or written: it may end where memory ends. Partial blocks
//     are read whole and masked, but what is read too far is the tag, which is part of Buf.
//     A line behind Buf may be prefetched, which cannot fault.
//   - No two ops of a batch share bytes of Buf. Keys may be shared.
//   - Time depends on the lengths, on which neighbours share a Key and, for Open, on which ops fail; never on
//     what a key holds, on texts, or on where in a tag the first wrong byte stands.
//   - No call allocates.
//
// What is not handled: nonce uniqueness (the caller's generator sees to it; a
// repeated pair of key and nonce gives both texts and the authentication key
// away) and limits on the data under one key.
package aesgcm

const (
	// NonceSize is the length of a nonce in bytes: 4 of salt and 8 of IV (RFC 4106, 4).
	NonceSize = 12
	// TagSize is the length of a tag in bytes.
	TagSize = 16
	// AADMax is the largest length of additional data: SPI and 64-bit sequence number (RFC 4106, 5).
	AADMax = 12
)

// Op is one packet to seal or to open.
type Op struct {
	// Key is the expanded key. Many ops may share it. A nil or zeroed key fails the op.
	Key *Key
	// Nonce is salt and IV.
	Nonce [NonceSize]byte
	// AAD holds AADLen bytes of additional data.
	AAD    [AADMax]byte
	AADLen uint8
	// OK is the result.
	OK bool
	// match has a bit for each byte of the tag that was as it should be, the first one's the lowest, where assembly opened the op.
	match uint16
	// Buf is the text followed by TagSize bytes. Shorter buffers fail the op.
	Buf []byte
}

// Seal encrypts each op's text in place and writes its tag.
func Seal(ops []Op) { active.seal(ops) }

// Open verifies each op's tag and decrypts its text in place.
func Open(ops []Op) { active.open(ops) }

// OpenTruncated is Open for tags of which the first n bytes were sent (SP 800-38D, 7.2); n is 8, 12 or 16. The bytes of Buf behind them may be
// anything, and are left so or wiped. Seal makes such tags, as the beginning of whole ones.
func OpenTruncated(ops []Op, n int) { active.openTruncated(ops, n) }
