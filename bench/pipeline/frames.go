package pipeline

import (
	"bytes"
	"encoding/binary"

	"sallyport/dataplane/transform"
)

// Frames are packets for another gateway to carry, like those that the rig's own sources hold: flows UDP flows to hosts of
// [RemoteNet], inner packets of size bytes; sealed if decrypt, by one association of AES-128-GCM with
// the keying material and SPI given, without ESN.
func Frames(decrypt bool, size, flows int, keymat []byte, spi uint32) ([][]byte, error) {
	far := farEnd{spi: spi, short: true}
	if err := far.init(transform.AES128GCM16, keymat); err != nil {
		return nil, err
	}
	var frames [][]byte
	for i := range flows {
		local, remote := number4(ourNet.Addr())+uint32(1+i%250), number4(theirNet.Addr())+uint32(1+i%250)
		inner := datagram(4, local, remote, uint16(1024+i), size)
		frame := append(bytes.Clone(etherHead), inner...)
		if decrypt {
			frame = append(bytes.Clone(etherHead), IPv4.outerDatagram(far.sealedLen(size))...)
			far.seal(frame[len(etherHead)+20:], inner)
			// What comes in by the outside port goes to the peer's addresses, as the peer sees them.
			binary.BigEndian.PutUint32(frame[len(etherHead)+12:], number4(ours))
			binary.BigEndian.PutUint32(frame[len(etherHead)+16:], number4(theirs))
		}
		frames = append(frames, frame)
	}
	return frames, nil
}

// Networks of [Frames], and the tunnel's ends.
const (
	RemoteNet   = "198.18.0.0/16"
	Source      = "192.0.2.1"
	Destination = "192.0.2.2"
)
