package sad

// Lifetime bounds what an association carries; 0 is no bound. Reaching a soft bound is only told, once. With a hard one
// the association carries nothing more.
type Lifetime struct {
	SoftBytes, HardBytes     uint64 // of inner IP datagrams
	SoftPackets, HardPackets uint64
}

// Cause is the bound that was reached.
type Cause uint8

const (
	CauseBytes Cause = iota
	CausePackets
	// CauseSequence: three quarters of the 32-bit sequence numbers are used up (RFC 4303, 3.3.3).
	CauseSequence
)

func (c Cause) String() string { return [...]string{"bytes", "packets", "sequence"}[c] }
