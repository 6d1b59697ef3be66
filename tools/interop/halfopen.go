package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// leaveHalfOpen sends a gateway so many valid IKE_SA_INIT requests, from another address each,
// whose exchange nobody will go on with. They are written by hand: what judges the gateway shares nothing with it.
func leaveHalfOpen(from *testbed.Namespace, to string, count int) error {
	if err := from.Up("lo"); err != nil {
		return err
	}
	for i := range count {
		request, err := saInitRequest()
		if err != nil {
			return err
		}
		conn, err := rig.Dial(from, "udp", net.JoinHostPort(to, "500"), nil)
		if err != nil {
			return fmt.Errorf("half-open exchange %d: %w", i, err)
		}
		_, err = conn.Write(request)
		conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		conn.Read(make([]byte, 2048)) // an answer, a cookie or nothing: all the same here
		conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// saInitRequest is an IKE_SA_INIT request (RFC 7296, 1.2) that offers AES-GCM-16-256 or -128, HMAC-SHA2-256 or -384 and x25519.
func saInitRequest() ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	transform := func(last bool, kind byte, id uint16, bits uint16) []byte {
		more := byte(3)
		if last {
			more = 0
		}
		b := []byte{more, 0, 0, 8, kind, 0, byte(id >> 8), byte(id)}
		if bits != 0 { // attribute 14: key length
			b[3] = 12
			b = append(b, 0x80, 14, byte(bits>>8), byte(bits))
		}
		return b
	}
	var transforms []byte
	for _, t := range [][]byte{
		transform(false, 1, 20, 256), transform(false, 1, 20, 128), // ENCR_AES_GCM_16
		transform(false, 2, 5, 0), transform(false, 2, 6, 0), // PRF_HMAC_SHA2_256, _384
		transform(true, 4, 31, 0), // Curve25519
	} {
		transforms = append(transforms, t...)
	}
	proposal := append([]byte{0, 0, 0, byte(8 + len(transforms)), 1, 1, 0, 5}, transforms...)
	payload := func(next byte, body []byte) []byte {
		return append([]byte{next, 0, byte((4 + len(body)) >> 8), byte(4 + len(body))}, body...)
	}
	const sa, ke, nonce = 33, 34, 40
	var chain []byte
	chain = append(chain, payload(ke, proposal)...)
	chain = append(chain, payload(nonce, append([]byte{0, 31, 0, 0}, key.PublicKey().Bytes()...))...)
	chain = append(chain, payload(0, random(32))...)
	header := append(random(8), make([]byte, 8)...)
	header = append(header, sa, 0x20, 34, 0x08, 0, 0, 0, 0) // version 2.0, IKE_SA_INIT, initiator, message 0
	header = binary.BigEndian.AppendUint32(header, uint32(28+len(chain)))
	return append(header, chain...), nil
}
