package ikesa

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

func idPayload(id auth.Identity, responder bool) *message.ID {
	return &message.ID{Responder: responder, IDType: id.Type, Data: []byte(id.Data)}
}

func identityOf(p *message.ID) auth.Identity { return auth.IdentityOf(p) }

// ownID is the identity that we claim: the configured one, else our address.
func (s *SA) ownID() auth.Identity {
	if s.conn.Local.ID.IsZero() {
		return auth.AddressIdentity(s.local.Addr())
	}
	return s.conn.Local.ID
}

// expectedID is the one identity that the peer must have, if it is only one.
func (s *SA) expectedID() (auth.Identity, bool) { return s.conn.Remote.ID.Exact() }

// certReqs asks for the peer's certificate.
func (s *SA) certReqs() []message.Payload {
	if !s.conn.SendCertReq {
		return nil
	}
	return s.env.Store().CertReqs(&s.conn.Remote)
}

// takeCertReqs notes whether the peer wants our certificate. Which authorities it names
// does not matter: there is one certificate for a connection, and the peer decides.
func (h *handshake) takeCertReqs(m *message.Message) {
	for p := range message.All[*message.CertReq](m) {
		if p.Encoding == message.CertX509Signature {
			h.certAsked = true
		}
	}
}

// secret is the pre-shared key for the peer. An initiator that would take several
// identities does not know which one it speaks with: then the peer's address stands for it.
func (s *SA) secret(peer auth.Identity) ([]byte, error) {
	store := s.env.Store()
	if peer.IsZero() {
		peer = auth.AddressIdentity(s.remote.Addr())
		if id, ok := s.expectedID(); ok {
			peer = id
		}
	}
	return store.PSK(s.ownID(), peer)
}

// prove makes our AUTH, and the CERT payloads that go before it.
func (s *SA) prove(id *message.ID, authMessageID uint32) (*message.Auth, []message.Payload, error) {
	octets := s.signedOctets(s.initiator, id, authMessageID)
	local := &s.conn.Local
	if local.Method == auth.PSK {
		secret, err := s.secret(s.remoteID)
		if err != nil {
			return nil, nil, &fault{reason: ReasonAuthentication, err: err}
		}
		return &message.Auth{Method: message.AuthSharedKey, Data: auth.PSKAuth(s.choice.PRF, secret, octets)}, nil, nil
	}
	proof, err := auth.Sign(local, s.handshake.hashes, octets, s.env.Rand())
	if err != nil {
		return nil, nil, &fault{reason: ReasonOwnProof, err: err}
	}
	if s.conn.SendCert == SendCertNever || s.conn.SendCert == SendCertIfAsked && !s.handshake.certAsked {
		return proof, nil, nil
	}
	return proof, local.Payloads(), nil
}

// verify decides whether the peer is who it says. Revocation, which takes a network, is
// left to others: then the state is StateVerifying until the answer comes.
func (s *SA) verify(now time.Time, id *message.ID, proof *message.Auth, m *message.Message, authMessageID uint32, out *Outputs) error {
	peer := identityOf(id)
	if peer.Equal(s.ownID()) { // somebody sends our own messages back, or has our secrets
		return &fault{reason: ReasonOwnIdentity}
	}
	remote := &s.conn.Remote
	if !remote.ID.Matches(peer) {
		return &fault{reason: ReasonIdentity, err: errors.New(peer.String())}
	}
	octets := s.signedOctets(!s.initiator, id, authMessageID)
	if remote.Method == auth.PSK {
		secret, err := s.secret(peer)
		if err == nil {
			err = auth.VerifyPSK(s.choice.PRF, secret, octets, proof)
		}
		if err != nil {
			return &fault{reason: ReasonAuthentication, err: err}
		}
		s.remoteID = peer
		return nil
	}
	var sent []*message.Cert
	for p := range message.All[*message.Cert](m) {
		sent = append(sent, p)
	}
	chain, err := s.env.Store().Chain(remote, peer, sent, now)
	if err != nil {
		return &fault{reason: certificateReason(err), err: err}
	}
	if err := auth.VerifySignature(chain.Leaf().PublicKey, proof, octets, remote.Schemes); err != nil {
		return &fault{reason: ReasonAuthentication, err: err}
	}
	s.remoteID = peer
	if !chain.NeedsCheck() {
		return nil
	}
	var b [8]byte
	if _, err := io.ReadFull(s.env.Rand(), b[:]); err != nil {
		return &fault{reason: ReasonInternal, err: err}
	}
	s.verifyID = binary.BigEndian.Uint64(b[:]) | 1 // rivals of one handshake ask too
	s.state = StateVerifying
	out.add(Verify{ID: s.verifyID, Chain: chain, Remote: remote})
	return nil
}

func certificateReason(err error) Reason {
	if errors.Is(err, auth.ErrIdentity) {
		return ReasonIdentity
	}
	return ReasonCertificate
}
