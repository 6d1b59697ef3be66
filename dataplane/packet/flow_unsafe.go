package packet

import (
	"encoding/binary"
	"unsafe"
)

// Rest returns what a flow is besides its addresses, as one number: ports, flags, version and protocol. The fields lie
// behind each other, eight bytes aligned to eight, which a test holds.
//
// All machines that this runs on are little-endian, as the BPF object is.
func (f *Flow) Rest() uint64 { return *(*uint64)(unsafe.Pointer(&f.SrcPort)) }

// setRest sets what Rest returns.
func (f *Flow) setRest(rest uint64) { *(*uint64)(unsafe.Pointer(&f.SrcPort)) = rest }

// RestOf returns the Rest of a flow of these fields.
func RestOf(srcPort, dstPort uint16, flags Flags, version, proto uint8) uint64 {
	return uint64(srcPort) | uint64(dstPort)<<16 | uint64(flags)<<32 | uint64(version)<<48 | uint64(proto)<<56
}

// Set6 makes f a flow between two addresses of IPv6, as they stand one behind the other in a header, whose Rest is given.
func (f *Flow) Set6(addresses *[32]byte, rest uint64) {
	f.Src.Hi, f.Src.Lo = binary.BigEndian.Uint64(addresses[0:]), binary.BigEndian.Uint64(addresses[8:])
	f.Dst.Hi, f.Dst.Lo = binary.BigEndian.Uint64(addresses[16:]), binary.BigEndian.Uint64(addresses[24:])
	f.setRest(rest)
}

// Set4 makes f a flow between two addresses of IPv4, whose Rest is given. It goes word by word: a whole Flow would be put together
// elsewhere and copied.
func (f *Flow) Set4(src, dst uint32, rest uint64) {
	f.Src.Hi, f.Src.Lo = 0, uint64(src)
	f.Dst.Hi, f.Dst.Lo = 0, uint64(dst)
	f.setRest(rest)
}
