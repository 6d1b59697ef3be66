package message

import (
	"encoding/binary"
	"fmt"
)

// ProtocolID names what a proposal, notification or deletion is about, RFC 7296, 3.3.1.
type ProtocolID uint8

const (
	ProtocolNone ProtocolID = 0
	ProtocolIKE  ProtocolID = 1
	ProtocolAH   ProtocolID = 2
	ProtocolESP  ProtocolID = 3
)

func (p ProtocolID) String() string {
	switch p {
	case ProtocolNone:
		return "none"
	case ProtocolIKE:
		return "IKE"
	case ProtocolAH:
		return "AH"
	case ProtocolESP:
		return "ESP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// SA is an SA payload: proposals in the order of preference, or the one that was chosen.
type SA struct{ Proposals []Proposal }

// Proposal is one alternative. SPI has 8 bytes for IKE (none in IKE_SA_INIT) and 4 for ESP and AH.
type Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte
	Transforms []Transform
}

// Transform is one algorithm of a proposal. It is comparable.
type Transform struct {
	Type   TransformType
	ID     uint16
	KeyLen uint16 // bits of the key; 0: no attribute was sent

	// Unrecognized says that an attribute was present that is not understood, or a key length twice; such a transform
	// must not be chosen (RFC 7296, 3.3.6). It is never set by us and never sent.
	Unrecognized bool
}

const (
	attributeKeyLength = 14
	attributeTV        = 0x8000 // the attribute's value stands in place of a length
	moreProposals      = 2
	moreTransforms     = 3
)

func (p *SA) Type() PayloadType { return TypeSA }

func (p *SA) AppendBody(b []byte) []byte {
	for i, proposal := range p.Proposals {
		start := len(b)
		more := byte(moreProposals)
		if i == len(p.Proposals)-1 {
			more = 0
		}
		b = append(b, more, 0, 0, 0, proposal.Number, byte(proposal.Protocol), byte(len(proposal.SPI)), byte(len(proposal.Transforms)))
		b = append(b, proposal.SPI...)
		for j, t := range proposal.Transforms {
			more, length := byte(moreTransforms), byte(8)
			if j == len(proposal.Transforms)-1 {
				more = 0
			}
			if t.KeyLen != 0 {
				length = 12
			}
			b = append(b, more, 0, 0, length, byte(t.Type), 0)
			b = binary.BigEndian.AppendUint16(b, t.ID)
			if t.KeyLen != 0 {
				b = binary.BigEndian.AppendUint16(b, attributeTV|attributeKeyLength)
				b = binary.BigEndian.AppendUint16(b, t.KeyLen)
			}
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b
}

func parseSA(b []byte) (*SA, error) {
	sa := new(SA)
	for {
		if len(sa.Proposals) == ProposalsMax {
			return nil, tooMany("more than %d proposals", ProposalsMax)
		}
		if len(b) < 8 {
			return nil, syntaxError("proposal of %d bytes", len(b))
		}
		more, length := b[0], int(binary.BigEndian.Uint16(b[2:]))
		if more != 0 && more != moreProposals || length < 8 || length > len(b) || (more == 0) != (length == len(b)) {
			return nil, syntaxError("proposal of %d bytes, mark %d, in %d bytes", length, more, len(b))
		}
		proposal, err := parseProposal(b[:length])
		if err != nil {
			return nil, err
		}
		// Numbers rise by one (RFC 7296, 3.3.1); where they begin is for whoever reads the payload, because an answer
		// repeats the number that it chooses.
		if n := len(sa.Proposals); n > 0 && proposal.Number != sa.Proposals[n-1].Number+1 {
			return nil, syntaxError("proposal number %d after %d", proposal.Number, sa.Proposals[n-1].Number)
		}
		sa.Proposals = append(sa.Proposals, proposal)
		if b = b[length:]; more == 0 {
			return sa, nil
		}
	}
}

func parseProposal(b []byte) (Proposal, error) {
	p := Proposal{Number: b[4], Protocol: ProtocolID(b[5])}
	spiLen, count := int(b[6]), int(b[7])
	b = b[8:]
	switch p.Protocol {
	case ProtocolIKE:
		if spiLen != 0 && spiLen != 8 {
			return p, syntaxError("IKE proposal with an SPI of %d bytes", spiLen)
		}
	case ProtocolESP, ProtocolAH:
		if spiLen != 4 {
			return p, syntaxError("%v proposal with an SPI of %d bytes", p.Protocol, spiLen)
		}
	}
	if spiLen > len(b) {
		return p, syntaxError("proposal ends in its SPI")
	}
	if count > TransformsMax {
		return p, tooMany("%d transforms", count)
	}
	p.SPI, b = b[:spiLen:spiLen], b[spiLen:]
	if count > 0 && len(b) >= 8*count {
		p.Transforms = make([]Transform, 0, count)
	}
	for i := range count {
		if len(b) < 8 {
			return p, syntaxError("transform of %d bytes", len(b))
		}
		more, length := b[0], int(binary.BigEndian.Uint16(b[2:]))
		last := i == count-1
		if more != 0 && more != moreTransforms || length < 8 || length > len(b) || (more == 0) != last {
			return p, syntaxError("transform of %d bytes, mark %d, in %d bytes", length, more, len(b))
		}
		t, err := parseTransform(b[:length])
		if err != nil {
			return p, err
		}
		p.Transforms = append(p.Transforms, t)
		b = b[length:]
	}
	if len(b) != 0 {
		return p, syntaxError("%d bytes after the last transform", len(b))
	}
	return p, nil
}

func parseTransform(b []byte) (Transform, error) {
	t := Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
	b = b[8:]
	for n := 0; len(b) > 0; n++ {
		if n == AttributesMax {
			return t, tooMany("more than %d attributes", AttributesMax)
		}
		if len(b) < 4 {
			return t, syntaxError("attribute of %d bytes", len(b))
		}
		kind, value := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		b = b[4:]
		switch {
		case kind == attributeTV|attributeKeyLength:
			t.Unrecognized = t.Unrecognized || t.KeyLen != 0 || value == 0
			t.KeyLen = value
		case kind&attributeTV != 0:
			t.Unrecognized = true
		default: // its value follows, of that many bytes
			if int(value) > len(b) {
				return t, syntaxError("attribute of %d bytes in %d bytes", value, len(b))
			}
			t.Unrecognized = true
			b = b[value:]
		}
	}
	return t, nil
}
