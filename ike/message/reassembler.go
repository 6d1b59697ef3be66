package message

import "time"

// Reassembler collects the fragments of one message at a time, RFC 7383, 2.6. Every fragment is authenticated before
// anything is kept of it. The zero value is ready; it is used by the owner of its IKE SA
// only.
type Reassembler struct {
	header   Header // of the first fragment seen; all must agree
	total    uint16
	have     uint16
	bytes    int
	head     []byte      // IKE header and SKF header of fragment 1
	first    PayloadType // that fragment 1 names
	pieces   [][]byte
	deadline time.Time
}

// ReassemblyTimeout is how long an incomplete message is kept.
const ReassemblyTimeout = 30 * time.Second

// Add takes a parsed message that ends with an SKF payload. It returns the whole message, opened, when this fragment was
// the last one missing, and nil otherwise. Errors with ReasonIntegrity, ReasonFragmentStale, ReasonFragmentLimit and
// ReasonFragmentMessage mean that the fragment was ignored. The returned message has no Raw.
func (r *Reassembler) Add(now time.Time, m *Message, p Protector) (*Message, error) {
	f := m.fragment()
	if f == nil {
		return nil, &Error{Reason: ReasonNotProtected}
	}
	if len(m.Payloads) != 1 { // nothing that IKEv2 knows stands unprotected beside SKF
		return nil, &Error{Reason: ReasonUnprotected}
	}
	if f.Total > FragmentsMax {
		return nil, &Error{Reason: ReasonFragmentLimit, Detail: "too many fragments"}
	}
	r.Expire(now)
	if r.total != 0 && sameMessage(r.header, m.Header) {
		// RFC 7383, 2.6: a smaller total is dropped; a larger one is the peer's second attempt with smaller fragments.
		if f.Total < r.total || f.Total == r.total && r.pieces[f.Number-1] != nil {
			return nil, &Error{Reason: ReasonFragmentStale}
		}
	}
	piece, err := p.Open(m.Raw, f.start)
	if err != nil {
		return nil, err
	}
	if len(piece) == 0 && f.Total > 1 {
		return nil, &Error{Reason: ReasonFragment, Detail: "empty fragment"}
	}
	if r.total != f.Total || !sameMessage(r.header, m.Header) {
		*r = Reassembler{header: m.Header, total: f.Total, pieces: make([][]byte, f.Total), deadline: now.Add(ReassemblyTimeout)}
	}
	if r.bytes+len(piece) > ReassembledMax {
		r.Reset()
		return nil, &Error{Reason: ReasonFragmentLimit, Detail: "too many bytes"}
	}
	if f.Number == 1 {
		r.head, r.first = append([]byte(nil), m.Raw[:f.start-fragmentLen]...), f.First
	}
	r.pieces[f.Number-1] = append(make([]byte, 0, len(piece)), piece...)
	r.bytes += len(piece)
	if r.have++; r.have < r.total {
		return nil, nil
	}
	inner := make([]byte, 0, r.bytes)
	for _, piece := range r.pieces {
		inner = append(inner, piece...)
	}
	whole := &Message{Header: r.header, Payloads: []Payload{f}}
	head, first := r.head, r.first
	r.Reset()
	return whole, whole.open(head, first, inner)
}

// sameMessage says whether two fragments belong to one message; a fragment's length differs.
func sameMessage(a, b Header) bool {
	a.Length, b.Length = 0, 0
	return a == b
}

// Pending says whether fragments of a message are kept.
func (r *Reassembler) Pending() bool { return r.total != 0 }

// Deadline is when the kept fragments expire; zero if there are none.
func (r *Reassembler) Deadline() time.Time { return r.deadline }

// Expire forgets fragments whose time is over.
func (r *Reassembler) Expire(now time.Time) {
	if r.total != 0 && !now.Before(r.deadline) {
		r.Reset()
	}
}

// Reset forgets all fragments.
func (r *Reassembler) Reset() { *r = Reassembler{} }
