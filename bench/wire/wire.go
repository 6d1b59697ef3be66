package wire

import (
	"encoding/binary"
	"net"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
)

// Offsets in the sender's frames.
const (
	l2 = 14
	l3 = 20
	// espLen and ivLen are what stands before the sealed text, icvLen what stands after it.
	espLen, ivLen, icvLen = 8, 8, 16
)

const (
	protoUDP = 17
	protoESP = 50
)

// wire is a kind of frame, as the sink expects it.
type wire struct {
	proto  uint8
	length int // with the Ethernet header
}

// sealedSize is the length of the ESP packet around an inner packet of size bytes.
func sealedSize(size int) int { return l3 + espLen + ivLen + (size+2+3)&^3 + icvLen }

// expected is what leaves the gateway.
func expected(decrypt bool, size int) wire {
	if decrypt {
		return wire{protoUDP, l2 + size}
	}
	return wire{protoESP, l2 + sealedSize(size)}
}

// offered is what the sender sends.
func offered(decrypt bool, size int) wire { return expected(!decrypt, size) }

// ipv4 writes an IPv4 header without options.
func ipv4(b []byte, total int, proto byte, src, dst [4]byte) {
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	b[8], b[9] = 64, proto
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:l3], 0))
}

// inner returns an inner UDP packet of size bytes; flow sets its addresses and source port.
func inner(size, flow int) []byte {
	b := make([]byte, size)
	host := byte(1 + flow%200)
	ipv4(b, size, protoUDP, [4]byte{203, 0, 113, host}, [4]byte{198, 18, 0, host})
	u := b[l3:]
	binary.BigEndian.PutUint16(u[0:], uint16(10000+flow))
	binary.BigEndian.PutUint16(u[2:], 5500)
	binary.BigEndian.PutUint16(u[4:], uint16(size-l3))
	for i := 8; i < len(u); i++ {
		u[i] = byte(flow*7 + i*13)
	}
	return b
}

// ethernet writes the link header of IPv4.
func ethernet(b []byte, dst, src net.HardwareAddr) {
	copy(b, dst)
	copy(b[6:], src)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
}

// sealer makes the sender's ESP packets, one sequence number each.
type sealer struct {
	key    aesgcm.Key
	salt   [4]byte
	inners [][]byte
	outer  [l3]byte
	seq    uint64
	ops    [64]aesgcm.Op
}

// flows is the number of different inner packets.
const flows = 256

func newSealer(keymat []byte, size int) (*sealer, error) {
	key, err := aesgcm.NewKey(keymat[:len(keymat)-4])
	if err != nil {
		return nil, err
	}
	s := &sealer{key: key, salt: [4]byte(keymat[len(keymat)-4:])}
	for f := range flows {
		s.inners = append(s.inners, trailed(inner(size, f)))
	}
	ipv4(s.outer[:], sealedSize(size), protoESP, [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2})
	return s, nil
}

// trailed appends padding, its length and the next header, IPv4 (RFC 4303, 2.4 to 2.6).
func trailed(b []byte) []byte {
	pad := (4 - (len(b)+2)%4) % 4
	for i := range pad {
		b = append(b, byte(i+1))
	}
	return append(b, byte(pad), 4)
}

// seal fills frames, whose link headers stand, with the next packets. At most len(s.ops) frames.
func (s *sealer) seal(frames [][]byte) {
	for i, f := range frames {
		s.seq++
		text := s.inners[s.seq%flows]
		p := f[l2:]
		copy(p, s.outer[:])
		e := p[l3:]
		binary.BigEndian.PutUint32(e, spi)
		binary.BigEndian.PutUint32(e[4:], uint32(s.seq))
		binary.BigEndian.PutUint64(e[espLen:], s.seq)
		body := e[espLen+ivLen:]
		copy(body, text)
		op := &s.ops[i]
		op.Key = &s.key
		copy(op.Nonce[:], s.salt[:])
		copy(op.Nonce[4:], e[espLen:espLen+ivLen])
		copy(op.AAD[:], e[:espLen])
		op.AADLen = espLen
		op.Buf = body[:len(text)+icvLen]
	}
	aesgcm.Seal(s.ops[:len(frames)])
}
