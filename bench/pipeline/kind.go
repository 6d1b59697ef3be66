package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says what the rig's tunnels carry and look like.
type Kind uint8

const (
	IPv4      Kind = iota // IPv4 in IPv4, by policy: the usual one
	IPv6                  // IPv6 in IPv6
	SixInFour             // IPv6 in IPv4
	FourInSix             // IPv4 in IPv6
	NATT                  // IPv4 in IPv4, with ESP in UDP (RFC 3948)
	Route                 // IPv4 in IPv4, where a route into a virtual interface leads to the tunnel
)

var kindNames = [...]string{"ipv4", "ipv6", "6in4", "4in6", "natt", "route"}

// String returns the word for a kind.
func (k Kind) String() string { return kindNames[k] }

// Kinds are the words for all kinds.
func Kinds() []string { return kindNames[:] }

// ParseKind returns the kind that a word is for.
func ParseKind(word string) (Kind, error) {
	i := slices.Index(kindNames[:], word)
	if i < 0 {
		return 0, fmt.Errorf("kind %q: one of %s", word, strings.Join(kindNames[:], ", "))
	}
	return Kind(i), nil
}

// inner is the IP version of what is carried, outer that of the tunnel.
func (k Kind) inner() uint8 {
	if k == IPv6 || k == SixInFour {
		return 6
	}
	return 4
}

func (k Kind) outer() uint8 {
	if k == IPv6 || k == FourInSix {
		return 6
	}
	return 4
}

// outerLen is the length of what stands in front of an ESP packet.
func (k Kind) outerLen() int {
	n := headerLen(k.outer())
	if k == NATT {
		n += udpLen
	}
	return n
}

// SizeMin is the shortest inner datagram of a kind.
func (k Kind) SizeMin() int { return headerLen(k.inner()) + udpLen }
