package packet

import "encoding/binary"

// interfaceAt is where, in a frame between the workers and the kernel, the number of a virtual interface stands: at the end of
// the destination's link address, which a TUN device has none of.
const interfaceAt = 4

// InterfaceMAC is the link address that stands for a virtual interface, 0 for none.
func InterfaceMAC(n uint16) (mac [6]byte) {
	binary.BigEndian.PutUint16(mac[interfaceAt:], n)
	return mac
}

// InterfaceOf returns the number of the virtual interface that a frame from or for the kernel belongs to. The frame has at least
// a link header.
func InterfaceOf(frame []byte) uint16 { return binary.BigEndian.Uint16(frame[interfaceAt:]) }
