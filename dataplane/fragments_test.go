package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"sallyport/dataplane/packet"
)

// split cuts a frame's IP packet into fragments with at most size bytes of data, a multiple of 8, whether or not it may be
// fragmented, with identification id.
func split(frame []byte, size, id int) (out [][]byte) {
	ip := frame[14:]
	header := 20
	if ip[0]>>4 == 6 {
		header = 40
	}
	data := ip[header:]
	for at := 0; at < len(data); at += size {
		end := min(at+size, len(data))
		f := append([]byte{}, frame[:14+header]...)
		h := f[14:]
		if header == 20 {
			word := uint16(at / 8)
			if end < len(data) {
				word |= 0x2000
			}
			binary.BigEndian.PutUint16(h[2:], uint16(20+end-at))
			binary.BigEndian.PutUint16(h[4:], uint16(id))
			binary.BigEndian.PutUint16(h[6:], word)
			h[10], h[11] = 0, 0
			binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:20], 0))
		} else {
			word := uint16(at)
			if end < len(data) {
				word |= 1
			}
			binary.BigEndian.PutUint16(h[4:], uint16(8+end-at))
			x := []byte{h[6], 0, 0, 0, 0, 0, 0, 0}
			h[6] = packet.ProtoFragment
			binary.BigEndian.PutUint16(x[2:], word)
			binary.BigEndian.PutUint32(x[4:], uint32(id))
			f = append(f, x...)
		}
		out = append(out, append(f, data[at:end]...))
	}
	return out
}

func shuffled(list [][]byte, seed uint64) [][]byte {
	rand.New(rand.NewPCG(seed, 5)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestOuterFragmentsArePutTogether cuts ESP packets up on their way, raw and in UDP, over IPv4 and IPv6, and lets the fragments arrive in
// any order, on any queue of any worker, mixed with those of other packets and with whole ones.
func TestOuterFragmentsArePutTogether(t *testing.T) {
	for _, o := range []options{
		{}, {outer6: true}, {encap: true}, {outer6: true, encap: true}, {workers: 2, queues: 2}, {workers: 3, queues: 3, outer6: true, encap: true},
	} {
		o.esn, o.window, o.mtu, o.ring = true, 1024, 3700, 512
		t.Run(fmt.Sprintf("v6=%v/udp=%v/workers=%d", o.outer6, o.encap, max(o.workers, 1)), func(t *testing.T) {
			a, b := newRig(t, o)
			var sent, arriving [][]byte
			for i, size := range []int{100, 600, 1000, 1480, 1500, 2100, 3000, 3600} {
				sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64))
				a.inject(inside, sent[i])
				for _, f := range a.drain(outside) {
					if i == 3 {
						arriving = append(arriving, f)
					} else {
						arriving = append(arriving, split(f, []int{16, 64, 256, 512, 512, 1024, 1440, 2048}[i], 700+i)...)
					}
				}
			}
			for seed := range uint64(3) {
				if seed > 0 { // the same packets again would be replays: others
					sent, arriving = nil, nil
					for i := range 12 {
						sent = append(sent, udp4("198.51.100.5", "198.51.100.200", 900+i, 64))
						a.inject(inside, sent[i])
						arriving = append(arriving, split(a.drain(outside)[0], 400, int(seed)*100+i)...)
					}
				}
				b.inject(outside, shuffled(arriving, seed)...)
				compare(t, sent, b.drain(inside))
			}
			if d := b.dropped(); len(d) != 0 {
				t.Errorf("dropped: %v", d)
			}
			s := b.Stats().Total
			if s.Reassembled != 7+2*12 || s.Merged == 0 {
				t.Errorf("%d datagrams put together, %d fragments merged", s.Reassembled, s.Merged)
			}
			a.settled()
			b.settled()
		})
	}
}

// TestFragmentsOfTheKernelsDatagrams sends fragmented IKE, and fragmented UDP to another port, the first one last: all go to the kernel as
// they came.
func TestFragmentsOfTheKernelsDatagrams(t *testing.T) {
	for _, port := range []int{500, 4500, 53} {
		_, b := newRig(t, options{ike: true})
		f := udp4("192.0.2.1", "192.0.2.2", 3000, 64)
		binary.BigEndian.PutUint16(f[14+20+2:], uint16(port))
		copy(f[14+28:], []byte{0, 0, 0, 0})
		list := split(f, 1000, 9)
		list = append(list[1:], list[0])
		list = append(list, list[0]) // a copy, late
		// The rig has no TUN: what is for the kernel is dropped as such.
		b.inject(outside, list...)
		if want := map[string]uint64{"no-route": 4}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("port %d: dropped %v", port, b.dropped())
		}
		b.settled()
	}
}

// TestBadOuterFragmentsEndByName sends fragments that never make a datagram, between those of good ones.
func TestBadOuterFragmentsEndByName(t *testing.T) {
	word := func(f []byte, w uint16) []byte { // the IPv4 fragment word
		f = append([]byte{}, f...)
		binary.BigEndian.PutUint16(f[20:], w)
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], packet.Checksum(f[14:34], 0))
		return f
	}
	spi := func(f []byte, spi byte) []byte {
		f = append([]byte{}, f...)
		copy(f[34:], []byte{0, 0, spi, 7})
		return f
	}
	for _, c := range []struct {
		name string
		want map[string]uint64
		bad  func(l [][]byte, whole []byte) [][]byte // of three fragments of 400 bytes
	}{
		{"overlap", map[string]uint64{"fragment-overlap": 3}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{l[0], word(l[1], 0x2000|49), l[2]} }},
		{"copies", map[string]uint64{"duplicate-fragment": 2, "stopped": 2}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{l[0], l[1], l[0], l[1]} }},
		{"unknown SPI", map[string]uint64{"no-association": 2, "stopped": 1}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{l[1], spi(l[0], 9), l[2]} }},
		{"reserved SPI", map[string]uint64{"reserved-spi": 1}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{spi(l[0], 0)} }},
		{"no multiple of 8", map[string]uint64{"bad-fragment": 1}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{word(l[2], 0x2000|100)} }},
		{"two ends", map[string]uint64{"bad-fragment": 2}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{l[2], word(l[1], 200)} }},
		{"too large", map[string]uint64{"fragment-too-large": 2}, func(l [][]byte, _ []byte) [][]byte { return [][]byte{l[0], word(l[1], 0x2000|500)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newRig(t, options{esn: true})
			one := func() []byte {
				a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1000, 64))
				return a.drain(outside)[0]
			}
			whole := one()
			for _, f := range c.bad(split(whole, 400, 70), whole) {
				b.inject(outside, f)
			}
			b.inject(outside, split(one(), 400, 71)...)
			if n := len(b.drain(inside)); n != 1 {
				t.Errorf("%d good packets arrived", n)
			}
			b.group.Drain()
			if got := b.dropped(); !reflect.DeepEqual(got, c.want) {
				if rest := got["no-association"]; c.name != "unknown SPI" || rest < 2 {
					t.Errorf("dropped %v, want %v", got, c.want)
				}
			}
			b.settled()
		})
	}
	t.Run("tiny", func(t *testing.T) {
		a, b := newRig(t, options{encap: true})
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1000, 64))
		b.inject(outside, split(a.drain(outside)[0], 8, 70)[0])
		if want := map[string]uint64{"tiny-fragment": 1}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("dropped %v", b.dropped())
		}
		b.settled()
	})
	t.Run("time", func(t *testing.T) {
		a, b := newRig(t, options{workers: 2, queues: 2})
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1000, 64))
		l := split(a.drain(outside)[0], 400, 70)
		b.inject(outside, l[0], l[2])
		b.now += 3e9
		b.run()
		b.inject(outside, l[1])
		if want := map[string]uint64{"fragment-timeout": 2}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("dropped %v", b.dropped())
		}
		b.group.Drain()
		b.settled()
	})
}
