// Package secgw runs ipsec-secgw, the example gateway of DPDK, as a peer of the benchmarks:
// its configuration file, its huge pages, its building from Debian's packages, and its run from memory to memory.
package secgw

import (
	"fmt"
	"strings"
)

// Name names DPDK's example gateway in rows.
const Name = "ipsec-secgw"

// Tunnel is one association of AES-128-GCM in tunnel mode, which serves either direction.
type Tunnel struct {
	SPI uint32
	// Keymat is the key and the salt (RFC 4106, 8.1).
	Keymat []byte
	// Source and Destination are the outer addresses of ESP packets.
	Source, Destination string
	// Remote is the prefix of the inner packets' destinations.
	Remote string
	// MAC0 and MAC1 are the neighbours behind port 0, the protected one, and port 1.
	MAC0, MAC1 string
}

// Directions of an association, in the configuration's words.
const (
	Out = "out"
	In  = "in"
)

// Config returns the text of a configuration file with the tunnel in the given directions. Extra stands at the end of each
// association's line.
func Config(t Tunnel, extra string, directions ...string) string {
	hex := make([]string, len(t.Keymat))
	for i, b := range t.Keymat {
		hex[i] = fmt.Sprintf("%02x", b)
	}
	var text strings.Builder
	for _, d := range directions {
		fmt.Fprintf(&text, "sp ipv4 %s esp protect %d pri 1 dst %s sport 0:65535 dport 0:65535\n", d, t.SPI, t.Remote)
	}
	for _, d := range directions {
		fmt.Fprintf(&text, "sa %s %d aead_algo aes-128-gcm aead_key %s mode ipv4-tunnel src %s dst %s %s\n",
			d, t.SPI, strings.Join(hex, ":"), t.Source, t.Destination, extra)
	}
	fmt.Fprintf(&text, "rt ipv4 dst %s/32 port 1\nrt ipv4 dst %s port 0\nneigh port 0 %s\nneigh port 1 %s\n",
		t.Destination, t.Remote, t.MAC0, t.MAC1)
	return text.String()
}
