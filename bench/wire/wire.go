package wire

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"slices"

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

// expected is an inner packet, decrypted or encrypted.
func expected(decrypt bool, size int) wire {
	if decrypt {
		return wire{protoUDP, l2 + size}
	}
	return wire{protoESP, l2 + sealedSize(size)}
}

// ipv4 writes an IPv4 header without options.
func ipv4(b []byte, total int, proto byte, src, dst [4]byte) {
	clear(b[:l3])
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

// flows is the number of different inner packets of one size.
const flows = 256

// traffic is what the sender sends.
type traffic struct {
	decrypt bool
	sizes   []int // of the inner packets, in turn
	tunnels int   // each with an inner destination, a key and an SPI of its own
}

func (t traffic) wires(decrypted bool) []wire {
	var all []wire
	for _, size := range t.sizes {
		if w := expected(decrypted, size); !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// expected is what leaves the gateway, offered what the sender sends.
func (t traffic) expected() []wire { return t.wires(t.decrypt) }
func (t traffic) offered() []wire  { return t.wires(!t.decrypt) }

// tunnel is one association of the sender's, of AES-128-GCM.
type tunnel struct {
	keymat []byte // key and salt (RFC 4106, 8.1)
	key    aesgcm.Key
	seq    uint64
}

func newTunnels(n int) ([]tunnel, error) {
	all := make([]tunnel, n)
	for i := range all {
		t := &all[i]
		t.keymat = make([]byte, keymatSize)
		rand.Read(t.keymat)
		var err error
		if t.key, err = aesgcm.NewKey(t.keymat[:keymatSize-4]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// remoteOf is the destination of a tunnel's inner packets, where there are several tunnels.
func remoteOf(tunnel int) [4]byte {
	return [4]byte{198, byte(18 + tunnel>>16), byte(tunnel >> 8), byte(tunnel)}
}

// source makes the sender's frames: cleartext, or for decryption ESP sealed afresh, with one more sequence number each.
type source struct {
	traffic
	link    [l2]byte
	tunnels []tunnel
	texts   [][flows][]byte // inner packets by place in sizes
	number  uint64
	ops     [64]aesgcm.Op
}

// A time stamp stands behind the UDP header, mark behind that.
const (
	stampAt = l3 + 8
	mark    = 0x5a11b07
)

func newSource(t traffic, tunnels []tunnel, dst, src net.HardwareAddr) *source {
	s := &source{traffic: t, tunnels: tunnels}
	ethernet(s.link[:], dst, src)
	for _, size := range t.sizes {
		var texts [flows][]byte
		for f := range texts {
			texts[f] = inner(size, f)
			if size >= stampAt+12 {
				binary.LittleEndian.PutUint32(texts[f][stampAt+8:], mark)
			}
			if t.decrypt {
				texts[f] = trailed(texts[f])
			}
		}
		s.texts = append(s.texts, texts)
	}
	return s
}

// fill makes the next frames, at most len(s.ops), and sets their lengths. Unless at is nil, it holds the
// times that are written into them, which takes inner packets of 40 bytes.
func (s *source) fill(frames [][]byte, at []int64) {
	for i, f := range frames {
		n := s.number
		s.number++
		text := s.texts[(n+n/flows)%uint64(len(s.sizes))][n%flows]
		t := &s.tunnels[n%uint64(len(s.tunnels))]
		at0 := l2
		if s.decrypt {
			at0 += l3 + espLen + ivLen
		}
		length := at0 + len(text)
		if s.decrypt {
			length += icvLen
		}
		f = f[:length]
		frames[i] = f
		copy(f, s.link[:])
		ip := f[at0:]
		copy(ip, text)
		if len(s.tunnels) > 1 {
			remote := remoteOf(int(n % uint64(len(s.tunnels))))
			copy(ip[16:], remote[:])
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], packet.Checksum(ip[:l3], 0))
		}
		if at != nil {
			binary.LittleEndian.PutUint64(ip[stampAt:], uint64(at[i]))
		}
		if !s.decrypt {
			continue
		}
		t.seq++
		ipv4(f[l2:], length-l2, protoESP, [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2})
		e := f[l2+l3:]
		binary.BigEndian.PutUint32(e, spi+uint32(n%uint64(len(s.tunnels))))
		binary.BigEndian.PutUint32(e[4:], uint32(t.seq))
		binary.BigEndian.PutUint64(e[espLen:], t.seq)
		op := &s.ops[i]
		op.Key = &t.key
		copy(op.Nonce[:], t.keymat[keymatSize-4:])
		copy(op.Nonce[4:], e[espLen:espLen+ivLen])
		copy(op.AAD[:], e[:espLen])
		op.AADLen = espLen
		op.Buf = ip
	}
	if s.decrypt {
		aesgcm.Seal(s.ops[:len(frames)])
	}
}

// trailed appends padding, its length and the next header, IPv4 (RFC 4303, 2.4 to 2.6).
func trailed(b []byte) []byte {
	pad := (4 - (len(b)+2)%4) % 4
	for i := range pad {
		b = append(b, byte(i+1))
	}
	return append(b, byte(pad), 4)
}
