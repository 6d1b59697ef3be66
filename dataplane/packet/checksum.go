package packet

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Sum adds the bytes of b, as big-endian 16-bit words, to the one's complement
// sum (RFC 1071) and returns it folded to 16 bits, not complemented. An odd last
// byte counts as the high half of a word. To sum several pieces, all but the
// last must have even lengths.
func Sum(b []byte, sum uint32) uint32 {
	// The sum does not depend on byte order but for one swap of the result
	// (RFC 1071, 2 (B)), so eight bytes are added at a time as they lie in memory.
	var acc, carry uint64
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	// The rest is under eight bytes, so this last addition may carry once more.
	var tail uint64
	for k, c := range b {
		tail |= uint64(c) << (8 * k)
	}
	acc, carry = bits.Add64(acc, tail, carry)
	folded := acc>>32 + acc&0xffffffff + carry
	folded = folded>>32 + folded&0xffffffff
	folded = folded>>16 + folded&0xffff
	folded = folded>>16 + folded&0xffff
	folded = folded>>16 + folded&0xffff
	return uint32(fold(uint64(bits.ReverseBytes16(uint16(folded))) + uint64(sum)))
}

// Checksum returns the Internet checksum (RFC 1071) of b: the complement of
// Sum(b, sum). Over data that contains its own correct checksum it is 0.
func Checksum(b []byte, sum uint32) uint16 { return ^uint16(Sum(b, sum)) }

// PseudoSum returns the sum of the pseudo-header that TCP, UDP (RFC 9293, 3.1) and every
// upper layer over IPv6 (RFC 8200, 8.1) put in front of their checksum. src
// and dst are addresses of one family, 4 or 16 bytes; length is that of the
// upper-layer header and data.
func PseudoSum(src, dst []byte, proto uint8, length uint32) uint32 {
	return Sum(dst, Sum(src, uint32(proto)+length>>16+length&0xffff))
}

// ChecksumUpdate16 returns what the checksum check becomes when the 16-bit word
// old of its data changes to new: RFC 1624, 3, equation 3. A
// value that lies at an odd offset is given with its bytes swapped.
func ChecksumUpdate16(check, old, new uint16) uint16 {
	return ^fold(uint64(^check) + uint64(^old) + uint64(new))
}

// ChecksumUpdate32 is [ChecksumUpdate16] for a 32-bit value at an even offset.
func ChecksumUpdate32(check uint16, old, new uint32) uint16 {
	return ^fold(uint64(^check) + uint64(^old>>16) + uint64(^old&0xffff) + uint64(new>>16) + uint64(new&0xffff))
}

// Complement returns the checksum of data whose one's complement sum is known, not folded.
func Complement(sum uint32) uint16 { return ^fold(uint64(sum)) }

// PlainSum says whether the checksum of an IPv4 header without options is right, of which a, b and c are the words that [ParsePlain]
// reads.
func PlainSum(a, b, c uint64) bool { return AllOnes(a>>16, b, c<<16) }

// AllOnes says whether the one's complement sum of all 16-bit words in a, b and c, which are not all zero, is all ones, as that of a header with the right
// checksum is, in either byte order (RFC 1071, 2 (B)).
//
// Such a sum is a remainder modulo 65535, to which 2^16 is 1: so what is carried out of 64 bits counts as 1, words may stand at any place in
// theirs, and the sum is all ones if 65535 divides it.
func AllOnes(a, b, c uint64) bool {
	sum, carry := bits.Add64(a, b, 0)
	sum, carry = bits.Add64(sum, c, carry)
	sum, carry = bits.Add64(sum, 0, carry)
	// The product with the inverse of an odd divisor, modulo 2^64, is the quotient if nothing remains, and otherwise more than any.
	const (
		largest = math.MaxUint64 / 65535
		inverse = math.MaxUint64 - largest + 1
	)
	return (sum+carry)*inverse <= largest
}

// fold adds the 16-bit halves of a one's complement sum below 2^33 until one is left.
func fold(sum uint64) uint16 {
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}
