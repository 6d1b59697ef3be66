package message

import "encoding/binary"

// Delete announces that the sender has deleted associations: the IKE SA itself (ProtocolIKE, no SPIs), or children by
// the SPIs under which the sender receives.
type Delete struct {
	Protocol ProtocolID
	SPIs     []uint32
}

func (p *Delete) Type() PayloadType { return TypeDelete }

func (p *Delete) AppendBody(b []byte) []byte {
	size := byte(4)
	if p.Protocol == ProtocolIKE {
		size = 0
	}
	b = append(b, byte(p.Protocol), size)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.SPIs)))
	for _, spi := range p.SPIs {
		b = binary.BigEndian.AppendUint32(b, spi)
	}
	return b
}

func parseDelete(b []byte) (*Delete, error) {
	if len(b) < 4 {
		return nil, syntaxError("D of %d bytes", len(b))
	}
	p := &Delete{Protocol: ProtocolID(b[0])}
	size, count := int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	switch p.Protocol { // RFC 7296, 3.11
	case ProtocolIKE:
		if size != 0 || count != 0 || len(b) != 0 {
			return nil, syntaxError("D of IKE with %d SPIs of %d bytes", count, size)
		}
		return p, nil
	case ProtocolAH, ProtocolESP:
	default:
		return nil, syntaxError("D of %v", p.Protocol)
	}
	if size != 4 || len(b) != 4*count {
		return nil, syntaxError("D with %d SPIs of %d bytes in %d bytes", count, size, len(b))
	}
	if count > DeletesMax {
		return nil, tooMany("D with %d SPIs", count)
	}
	p.SPIs = make([]uint32, count)
	for i := range p.SPIs {
		p.SPIs[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return p, nil
}
