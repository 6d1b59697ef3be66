package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
)

// What a fuzzed gateway is told to do: an operation octet, a length of two octets, and so many octets of data.
const (
	fuzzRaw       = iota // a frame as it is, to a port
	fuzzHeader           // a frame whose IPv4 header checksum is made right
	fuzzESP              // a plaintext with trailer, authentic, in ESP
	fuzzInner            // an inner packet whose header checksum is made right, authentic, with a right trailer
	fuzzUDP              // UDP payload to port 4500 of the endpoint, with a right IP header
	fuzzTime             // time passes: data is in units of 10 ms
	fuzzNeighbour        // the neighbours of one port come or go
	fuzzMove             // associations move to another worker
	fuzzRebind           // the tunnel loses its outbound association, or gets it back
	fuzzOperations
)

func fuzzOp(op byte, port int, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{op | byte(port)<<7}, uint16(len(data))), data...)
}

// FuzzGateway feeds a gateway of two workers whatever comes, from both sides, also inside authentic ESP, while
// neighbours and owners change. Nothing may panic, every packet must be accounted for and
// every frame must come home.
func FuzzGateway(f *testing.F) {
	o := options{esn: true, workers: 2, queues: 2, ring: 64}
	outer := func(src, dst netip.Addr, proto byte, payload []byte) []byte {
		return craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, craft.IP(src, dst, proto, payload))
	}
	esp, err := craft.NewESP(0x1001, keymat(transform.AES128GCM16, 0x1001), true)
	if err != nil {
		f.Fatal(err)
	}
	in4, in6 := udp4("198.51.100.5", "198.51.100.200", 100, 64), udp6("2001:db8:a::5", "2001:db8:b::5", 100, 64)
	back4, back6 := udp4("198.51.100.200", "198.51.100.5", 100, 64), udp6("2001:db8:b::5", "2001:db8:a::5", 100, 1)
	good := outer(sideA.outer4, sideB.outer4, craft.ESPv, esp.Carry(1, in4[14:]))
	for _, seed := range [][]byte{
		fuzzOp(fuzzRaw, outside, good), fuzzOp(fuzzRaw, inside, back4), fuzzOp(fuzzHeader, inside, back6),
		fuzzOp(fuzzRaw, outside, back4), fuzzOp(fuzzRaw, outside, in6), fuzzOp(fuzzRaw, inside, craft.Tag(back4, 7)),
		fuzzOp(fuzzInner, 0, in6[14:]), fuzzOp(fuzzESP, 0, craft.Trailer(in4[14:], 9, craft.NextIPv4)),
		fuzzOp(fuzzESP, 0, craft.Trailer(nil, 0, craft.NextNone)), fuzzOp(fuzzESP, 0, []byte{0, 4}),
		append(fuzzOp(fuzzNeighbour, outside, nil), append(fuzzOp(fuzzRaw, inside, back4), fuzzOp(fuzzTime, 0, make([]byte, 200))...)...),
		append(fuzzOp(fuzzMove, 0, []byte{1}), append(fuzzOp(fuzzRaw, inside, back4), fuzzOp(fuzzRaw, outside, good)...)...),
		append(fuzzOp(fuzzRebind, 0, nil), fuzzOp(fuzzInner, 0, udp4("198.51.100.5", "198.51.100.200", 300, 2)[14:])...),
		fuzzOp(fuzzUDP, 0, []byte{0xff}), fuzzOp(fuzzUDP, 0, nil), fuzzOp(fuzzUDP, 0, make([]byte, 40)),
		fuzzOp(fuzzHeader, outside, outer(sideA.outer4, sideB.outer4, craft.UDPv, []byte{0x11, 0x94, 0x11, 0x94})),
		fuzzOp(fuzzHeader, outside, outer(sideA.outer6, sideB.outer6, craft.UDPv, []byte{0x11, 0x94, 0x11, 0x94, 0, 4})),
		fuzzOp(fuzzRaw, inside, udp4("198.51.100.200", "198.51.100.5", 1499, 64)), fuzzOp(fuzzRaw, inside, make([]byte, 14)),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := newGateway(t, sideB, sideA, o)
		b.tunnel(sideB, sideA, o, 0x2001, 0x1001)
		known, generation, missing, bound := b.tables.FIB, uint32(1), [2]bool{}, b.sad.Bound(0)
		b.run() // fills the rings
		arrived, seq := uint64(0), uint64(100)
		arrive := func(port int, frame []byte) {
			if len(frame) > 0 && len(frame) <= packet.LenMax && b.queues[port][int(seq)%2].Inject(frame) {
				arrived++
			}
		}
		for steps := 0; len(data) >= 3 && steps < 100; steps++ {
			op, port := data[0]&0x7f%fuzzOperations, int(data[0]>>7)
			n := min(int(binary.BigEndian.Uint16(data[1:])), len(data)-3)
			arg := append([]byte{}, data[3:3+n]...)
			data = data[3+n:]
			seq++
			switch op {
			case fuzzRaw:
				arrive(port, arg)
			case fuzzHeader:
				if len(arg) > 14 {
					craft.FixIPv4(arg[14:])
				}
				arrive(port, arg)
			case fuzzESP:
				arrive(outside, outer(sideA.outer4, sideB.outer4, craft.ESPv, esp.Seal(seq, arg)))
			case fuzzInner:
				if n > 0 {
					arrive(outside, outer(sideA.outer4, sideB.outer4, craft.ESPv, esp.Carry(seq, craft.FixIPv4(arg))))
				}
			case fuzzUDP:
				u := craft.UDP(sideA.outer4, sideB.outer4, 4500, 4500, arg)
				arrive(outside, outer(sideA.outer4, sideB.outer4, craft.UDPv, u))
			case fuzzTime:
				b.now += int64(n) * 1e7
			case fuzzNeighbour:
				missing[port] = !missing[port]
				b.tables.FIB = known
				if generation++; missing[port] {
					b.tables.FIB = fib.Build(generation, []fib.Entry{
						{Prefix: sideB.inner4, Hop: fib.Hop{Kind: fib.Unresolved, Port: inside, MTU: 1500}},
						{Prefix: netip.PrefixFrom(sideA.outer4, 32), Hop: fib.Hop{Kind: fib.Unresolved, Port: outside, MTU: 1280}},
						{Prefix: sideB.inner6, Hop: fib.Hop{Kind: fib.Failed, Port: inside, MTU: 1500}},
					})
				}
				b.publishTables()
			case fuzzMove:
				b.Associations(func(x *sad.Info) bool {
					b.sad.RequestMove(x.Handle, (n+port)%2)
					return true
				})
			case fuzzRebind:
				if b.sad.Bound(0) != 0 {
					b.sad.Bind(0, 0)
				} else {
					b.sad.Bind(0, bound)
				}
			}
			if steps%3 == 0 {
				b.run()
			}
		}
		b.run()
		for _, w := range b.queues {
			for _, q := range w {
				q.Drain(func(frame []byte) {
					if len(frame) < 34 {
						t.Errorf("a frame of %d bytes left", len(frame))
					}
				})
			}
		}
		// Parked packets end when their time is over.
		b.now += 3e9
		b.run()
		if s := b.Stats().Total; s.Received != arrived {
			t.Errorf("%d packets received of %d", s.Received, arrived)
		}
		b.settled()
	})
}
