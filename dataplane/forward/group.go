package forward

// GroupMAC returns the link address of the group that the IP header h is for: the last 23 bits of an IPv4 address (RFC 1112, 6.4),
// the last 32 of an IPv6 address (RFC 2464, 7).
func GroupMAC(h []byte) [6]byte {
	if h[0]>>4 == 4 {
		return [6]byte{0x01, 0x00, 0x5e, h[17] & 0x7f, h[18], h[19]}
	}
	return [6]byte{0x33, 0x33, h[36], h[37], h[38], h[39]}
}
