package packet

// ECN code points: the low two bits of the TOS or Traffic Class octet (RFC 3168, 5).
const (
	ECNNotECT = 0b00
	ECNECT1   = 0b01
	ECNECT0   = 0b10
	ECNCE     = 0b11
	ecnMask   = 0b11
)

// ECNVerdict says what a decapsulator does beside setting the inner ECN field.
type ECNVerdict uint8

const (
	// ECNForward: the combination is in order.
	ECNForward ECNVerdict = iota
	// ECNAlarm: forward the packet, but a correct encapsulator does not send this
	// combination at present, so it deserves a count.
	ECNAlarm
	// ECNDrop: congestion was marked on a packet whose transport cannot be told of it.
	ECNDrop
)

// ecnEntry is one cell of the decapsulation table.
type ecnEntry struct {
	ecn     uint8
	verdict ECNVerdict
}

// decapsulation is the table of RFC 6040, 4.2 (figure 4), indexed by inner and outer
// ECN field. Its columns stand in the order of the code points: Not-ECT, ECT(1),
// ECT(0), CE.
var decapsulation = [4][4]ecnEntry{
	ECNNotECT: {{ECNNotECT, ECNForward}, {ECNNotECT, ECNAlarm}, {ECNNotECT, ECNAlarm}, {ECNNotECT, ECNDrop}},
	ECNECT1:   {{ECNECT1, ECNForward}, {ECNECT1, ECNForward}, {ECNECT1, ECNAlarm}, {ECNCE, ECNForward}},
	ECNECT0:   {{ECNECT0, ECNForward}, {ECNECT1, ECNForward}, {ECNECT0, ECNForward}, {ECNCE, ECNForward}},
	ECNCE:     {{ECNCE, ECNForward}, {ECNCE, ECNAlarm}, {ECNCE, ECNForward}, {ECNCE, ECNForward}},
}

// EncapsulateTOS returns the outer TOS or Traffic Class for an inner one. The
// DSCP is copied if copyDSCP is set (RFC 2983, 4.1: the uniform model; RFC 4301, 5.1.2)
// and 0 otherwise; the ECN field is copied if ecn is set (RFC 6040, 4.1: normal
// mode) and Not-ECT otherwise (compatibility mode).
func EncapsulateTOS(inner uint8, copyDSCP, ecn bool) uint8 {
	var mask uint8
	if copyDSCP {
		mask |= ^uint8(ecnMask)
	}
	if ecn {
		mask |= ecnMask
	}
	return inner & mask
}

// DecapsulateTOS returns the TOS or Traffic Class with which the inner packet is
// forwarded (RFC 6040, 4.2). The inner DSCP stays as it was (RFC 4301, 5.1.2). On ECNDrop
// the packet must be dropped.
func DecapsulateTOS(inner, outer uint8) (tos uint8, verdict ECNVerdict) {
	e := decapsulation[inner&ecnMask][outer&ecnMask]
	return inner&^ecnMask | e.ecn, e.verdict
}

// AdoptDSCP returns the TOS or Traffic Class of an inner packet with the DSCP of the outer one (RFC 2983, 4.1: the uniform model).
func AdoptDSCP(inner, outer uint8) uint8 { return inner&ecnMask | outer&^ecnMask }
