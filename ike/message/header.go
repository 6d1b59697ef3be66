package message

import (
	"encoding/binary"
	"fmt"
)

// SPI is the SPI of an IKE SA as a number, most significant byte first on the wire. Zero means "not known yet".
type SPI uint64

// String returns the 16 hexadecimal digits that other implementations print.
func (s SPI) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Flags are the flag bits of the IKE header.
type Flags uint8

// RFC 7296, 3.1. All other bits are cleared when sending and ignored when receiving.
const (
	Initiator Flags = 0x08 // sent by the original initiator of the IKE SA
	Version   Flags = 0x10 // the sender can speak a higher major version
	Response  Flags = 0x20 // this is a response
)

const versionIKEv2 = 0x20

// Header is the IKE header.
type Header struct {
	InitiatorSPI SPI
	ResponderSPI SPI
	NextPayload  PayloadType
	Exchange     ExchangeType
	Flags        Flags
	MessageID    uint32
	Length       uint32 // of the whole message, header included
}

// IsResponse says whether the message is a response.
func (h Header) IsResponse() bool { return h.Flags&Response != 0 }

// FromInitiator says whether the sender is the IKE SA's original initiator.
func (h Header) FromInitiator() bool { return h.Flags&Initiator != 0 }

// String returns exchange, direction, message ID and both SPIs, for log lines.
func (h Header) String() string {
	kind := "request"
	if h.IsResponse() {
		kind = "response"
	}
	return fmt.Sprintf("%v %s %d [%v %v]", h.Exchange, kind, h.MessageID, h.InitiatorSPI, h.ResponderSPI)
}

// ParseHeader reads the IKE header of a datagram without the non-ESP marker, and checks that the datagram is as long as
// it says. It allocates only for its errors. A higher major version gives INVALID_MAJOR_VERSION; other faults have no
// notify, because nothing is known of the sender (RFC 7296, 2.21). The header is valid in the former case.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, errShort
	}
	h := Header{
		InitiatorSPI: SPI(binary.BigEndian.Uint64(b)),
		ResponderSPI: SPI(binary.BigEndian.Uint64(b[8:])),
		NextPayload:  PayloadType(b[16]),
		Exchange:     ExchangeType(b[18]),
		Flags:        Flags(b[19]),
		MessageID:    binary.BigEndian.Uint32(b[20:]),
		Length:       binary.BigEndian.Uint32(b[24:]),
	}
	switch major := b[17] >> 4; {
	case major > versionIKEv2>>4:
		return h, errHigherVersion // RFC 7296, 2.5
	case major < versionIKEv2>>4:
		return Header{}, errLowerVersion
	}
	if h.InitiatorSPI == 0 {
		return Header{}, errZeroSPI // RFC 7296, 3.1
	}
	if uint64(h.Length) != uint64(len(b)) {
		return Header{}, errLength
	}
	return h, nil
}

// Append appends the 28 bytes of the header.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.InitiatorSPI))
	b = binary.BigEndian.AppendUint64(b, uint64(h.ResponderSPI))
	b = append(b, byte(h.NextPayload), versionIKEv2, byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return binary.BigEndian.AppendUint32(b, h.Length)
}
