package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
)

// nonce is what must never come twice under one key: SPI, which stands for the key here, and IV of an ESP packet over IPv4.
func nonce(t *testing.T, frame []byte) (n [12]byte) {
	t.Helper()
	if len(frame) < 50 || frame[23] != packet.ProtoESP {
		t.Fatalf("no ESP packet over IPv4: %x", frame[:min(len(frame), 60)])
	}
	copy(n[:4], frame[34:38])
	copy(n[4:], frame[42:50])
	return n
}

// TestNoNonceTwiceWhoeverSends changes at random who sends and how: the worker that owns the association, the association that the
// tunnel is bound to, there and back as with a failover, and the addresses it goes between. SPI and IV of every packet differ.
func TestNoNonceTwiceWhoeverSends(t *testing.T) {
	const seed, rounds = 1, 300
	a := newGateway(t, sideA, sideB, options{workers: 3, queues: 3})
	a.tunnel(sideA, sideB, options{workers: 3, queues: 3, esn: true}, 0x1001, 0x2001)
	standby := sad.Params{
		Name: "standby", SPI: 0x1002, Suite: transform.AES128GCM16, Keymat: keymat(transform.AES128GCM16, 2),
		Local: sideA.outer4, Remote: sideB.outer4, ESN: true,
	}
	second, err := a.Install(standby)
	if err != nil {
		t.Fatal(err)
	}
	handles := []sad.Handle{sad.Handle(a.sad.Bound(0)), second}
	r, seen, bound := rand.New(rand.NewPCG(seed, 0)), map[[12]byte]bool{}, map[uint32]bool{}
	for range rounds {
		switch h := handles[r.IntN(2)]; r.IntN(4) {
		case 0:
			a.sad.RequestMove(h, r.IntN(3))
		case 1:
			err = a.Bind(0, h)
		case 2:
			remote := []netip.Addr{sideB.outer4, netip.MustParseAddr("203.0.113.2")}[r.IntN(2)]
			err = a.UpdateEndpoints(h, netip.AddrPortFrom(sideA.outer4, 0), netip.AddrPortFrom(remote, 0), false)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range r.IntN(6) {
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 60+r.IntN(200), 64))
		}
		for _, f := range a.drain(outside) {
			n := nonce(t, f)
			if seen[n] {
				t.Fatalf("after %d packets SPI and IV %x came again", len(seen), n)
			}
			seen[n], bound[binary.BigEndian.Uint32(n[:])] = true, true
		}
	}
	if len(seen) < rounds || len(bound) != 2 || a.Stats().Total.HandedIn == 0 {
		t.Errorf("%d packets by %d associations, %d handed over: the test shows nothing", len(seen), len(bound), a.Stats().Total.HandedIn)
	}
	a.settled()
}

// TestTakeOverBeginsBehindTheReservation has another gateway go on with an association, as after a failover: it begins behind the
// numbers that the first one had reserved, whether that had used them up or not, and not at all where none is left.
func TestTakeOverBeginsBehindTheReservation(t *testing.T) {
	o, reserved := options{noBind: true}, uint64(64)
	p := sad.Params{
		Name: "moved", SPI: 0x3001, Suite: transform.AES128GCM16, Local: sideA.outer4, Remote: sideB.outer4, ESN: true,
	}
	seen := map[[12]byte]bool{}
	for life := range 3 {
		g := newGateway(t, sideA, sideB, o)
		g.tunnel(sideA, sideB, o, 0x1001, 0x2001)
		p.Keymat, p.Sequence = keymat(p.Suite, 3), uint64(life)*reserved
		h, err := g.Install(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Bind(0, h); err != nil {
			t.Fatal(err)
		}
		g.inject(inside, repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 40+life*12)...)
		for _, f := range g.drain(outside) {
			n := nonce(t, f)
			if iv := binary.BigEndian.Uint64(n[4:]); seen[n] || iv <= p.Sequence || iv > p.Sequence+reserved {
				t.Fatalf("life %d sends number %d, again: %v", life, iv, seen[n])
			}
			seen[n] = true
		}
		g.settled()
	}
	if len(seen) != 40+52+64 {
		t.Errorf("%d packets were sent", len(seen))
	}
	g := newGateway(t, sideA, sideB, o)
	g.tunnel(sideA, sideB, o, 0x1001, 0x2001)
	p.Keymat, p.Sequence, p.ESN = keymat(p.Suite, 3), 1<<32-1, false
	h, err := g.Install(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Bind(0, h); err != nil {
		t.Fatal(err)
	}
	g.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if got := g.drain(outside); len(got) != 0 || g.dropped()["sequence-exhausted"] != 1 {
		t.Errorf("%d packets left with no number left: %v", len(got), g.dropped())
	}
	g.settled()
}

// TestUnauthenticPlaintextIsNowhere opens packets whose ICV is wrong, of every suite that encrypts, from one of ours and between good
// ones. What was in them is not in any frame afterwards, and did not leave.
func TestUnauthenticPlaintextIsNowhere(t *testing.T) {
	mark := []byte("plaintext that nobody vouches for")
	for _, suite := range transform.List() {
		if !suite.Info().Encrypts() {
			continue
		}
		t.Run(suite.String(), func(t *testing.T) {
			for _, length := range []int{80, 1380} {
				o := options{suite: suite, esn: true}
				a, b := newRig(t, o)
				secret := udp4("198.51.100.5", "198.51.100.200", length, 64)
				for at := 42; at+len(mark) <= len(secret); at += len(mark) {
					copy(secret[at:], mark)
				}
				a.inject(inside, udp4("198.51.100.5", "198.51.100.200", length, 64), secret, udp4("198.51.100.5", "198.51.100.200", length, 64))
				esp := a.drain(outside)
				if len(esp) != 3 {
					t.Fatalf("%d packets sealed", len(esp))
				}
				// In one batch: the neighbours are opened together with it.
				good := bytes.Clone(esp[1])
				esp[1][len(esp[1])-1] ^= 1
				for _, f := range esp {
					if !b.queues[outside][0].Inject(f) {
						t.Fatal("the queue took no frame")
					}
				}
				b.run()
				if got := b.drain(inside); len(got) != 2 || b.dropped()["bad-icv"] != 1 {
					t.Fatalf("%d packets passed: %v", len(got), b.dropped())
				}
				if at := bytes.Index(b.Mem(), mark); at >= 0 {
					t.Errorf("%d bytes: the plaintext lies %d bytes into packet memory", length, at)
				}
				// The packet itself is as good as before: the test would see its plaintext.
				b.inject(outside, good)
				if b.drain(inside); !bytes.Contains(b.Mem(), mark) {
					t.Error("the plaintext of a packet that is authentic is not there, either: the test shows nothing")
				}
				a.settled()
				b.settled()
			}
		})
	}
}

// TestUDPChecksumOverIPv6 holds the checksum of ESP in UDP against one computed word by word where it is asked for, and against zero
// where not (RFC 6935); the receiver takes both, and a wrong one too, since the ICV says more.
func TestUDPChecksumOverIPv6(t *testing.T) {
	for _, asked := range []bool{true, false} {
		for _, suite := range []transform.Suite{transform.AES128GCM16, transform.ChaCha20Poly1305} {
			o := options{outer6: true, encap: true, suite: suite, params: func(p *sad.Params) { p.UDPChecksum = asked }}
			a, b := newRig(t, o)
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64), udp4("198.51.100.5", "198.51.100.200", 101, 64), udp6("2001:db8:a::5", "2001:db8:b::5", 333, 64))
			esp := a.drain(outside)
			if len(esp) != 3 {
				t.Fatalf("%d packets sealed", len(esp))
			}
			for _, f := range esp {
				udp := f[54:]
				if sum := binary.BigEndian.Uint16(udp[6:]); !asked {
					if sum != 0 {
						t.Errorf("%s: checksum %#x is not asked for", suite, sum)
					}
				} else if sum == 0 || naiveUDPSum(f[22:54], udp) != 0xffff {
					t.Errorf("%s: checksum %#x is wrong", suite, sum)
				}
			}
			esp[2][60] ^= 0x55
			b.inject(outside, esp...)
			if got := b.drain(inside); len(got) != 3 {
				t.Errorf("%d packets arrived: %v", len(got), b.dropped())
			}
			a.settled()
			b.settled()
		}
	}
}

// naiveUDPSum adds the pseudo-header of IPv6 (RFC 8200, 8.1) and a UDP datagram; 0xffff if the checksum is right.
func naiveUDPSum(addresses, udp []byte) uint16 {
	all := append(bytes.Clone(addresses), 0, 0, byte(len(udp)>>8), byte(len(udp)), 0, 0, 0, packet.ProtoUDP)
	return craft.Sum(append(all, udp...))
}
