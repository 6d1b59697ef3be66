package esp

import "sallyport/dataplane/packet"

// IPv4 options that do not change on the way (RFC 4302, appendix A1), by type.
const (
	optionEnd              = 0
	optionNop              = 1
	optionSecurity         = 130
	optionExtendedSecurity = 133
	optionCommercial       = 134
	optionRouterAlert      = 148
	optionMultiDestination = 149
)

// Those that change the destination on the way (RFC 791, 3.1).
const (
	optionLooseRoute  = 131
	optionStrictRoute = 137
)

// optionMutable is the bit in an IPv6 option's type that says that its data may change on the way (RFC 8200, 4.2).
const optionMutable = 0x20

// mute puts zeros in the place of what routers may change (RFC 4302, 3.3.3.1) in the headers h of a datagram, up to AH, which
// [packet.Parse] accepted. They must be muteable.
func mute(h []byte, version uint8) {
	if version == 4 {
		h[1] = 0                     // TOS: DSCP and ECN
		h[6], h[7] = 0, 0            // flags and fragment offset
		h[8], h[10], h[11] = 0, 0, 0 // TTL, checksum
	} else {
		h[0], h[1], h[2], h[3] = 6<<4, 0, 0, 0 // traffic class and flow label
		h[7] = 0                               // hop limit
	}
	walkOptions(h, version, true)
}

// muteable says whether headers are such that mute leaves of them what both ends agree on: every option parses, no segments are left in
// a routing header, and it is no fragment.
func muteable(h []byte, version uint8) bool { return walkOptions(h, version, false) }

// walkOptions goes through options and extension headers, and puts zeros in those that may change if zero is set. It returns false where muteable does.
func walkOptions(h []byte, version uint8, zero bool) bool {
	if version == 4 {
		return walkOptions4(h[ipv4Len:], zero)
	}
	next := h[nextIPv6]
	for at := ipv6Len; at < len(h); {
		if next == packet.ProtoFragment {
			return false
		}
		e := h[at : at+8+int(h[at+1])*8]
		if next == packet.ProtoRouting {
			if e[3] != 0 {
				return false
			}
		} else if !walkOptions6(e[2:], zero) {
			return false
		}
		next = e[0]
		at += len(e)
	}
	return true
}

func walkOptions4(options []byte, zero bool) bool {
	for len(options) > 0 {
		switch options[0] {
		case optionEnd:
			return true // padding follows, which is covered as it is
		case optionNop:
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		length := options[1]
		switch options[0] {
		case optionSecurity, optionExtendedSecurity, optionCommercial, optionRouterAlert, optionMultiDestination:
		default:
			if zero {
				clear(options[:length])
			}
		}
		options = options[length:]
	}
	return true
}

func walkOptions6(options []byte, zero bool) bool {
	for len(options) > 0 {
		if options[0] == 0 { // Pad1
			options = options[1:]
			continue
		}
		if len(options) < 2 || int(options[1]) > len(options)-2 {
			return false
		}
		length := 2 + int(options[1])
		if zero && options[0]&optionMutable != 0 {
			clear(options[2:length])
		}
		options = options[length:]
	}
	return true
}

// sourceRouted says whether the options of an IPv4 header, which parse, ask for a source route: then the datagram leaves for another
// destination than it arrives at.
func sourceRouted(h []byte) bool {
	for options := h[ipv4Len:]; len(options) > 0; {
		switch options[0] {
		case optionEnd:
			return false
		case optionNop:
			options = options[1:]
			continue
		case optionLooseRoute, optionStrictRoute:
			return true
		}
		options = options[options[1]:]
	}
	return false
}
