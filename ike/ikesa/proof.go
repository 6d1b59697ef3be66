package ikesa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

// Who proves what: the seam to package auth. An error of it becomes a reason here;
// to the peer every one of them is AUTHENTICATION_FAILED.

func idPayload(id auth.Identity, responder bool) *message.ID {
	return &message.ID{Responder: responder, IDType: id.Type, Data: []byte(id.Data)}
}

// ownID is the identity that we claim: the configured one, else our address.
func (s *SA) ownID() auth.Identity {
	if s.conn.Local.ID.IsZero() {
		return auth.AddressIdentity(s.local.Addr())
	}
	return s.conn.Local.ID
}

// secretFor is the pre-shared key of the two ends. An initiator that accepts several
// identities does not know the peer's before it has answered; the address stands for it.
func (s *SA) secretFor(peer auth.Identity) ([]byte, error) {
	if peer.IsZero() {
		var ok bool
		if peer, ok = s.conn.Remote.ID.Exact(); !ok {
			peer = auth.AddressIdentity(s.remote.Addr())
		}
	}
	return s.env.Store().PSK(s.ownID(), peer)
}

// certReqs are the CERTREQ payloads to send.
func (s *SA) certReqs() []message.Payload {
	if !s.conn.SendCertReq {
		return nil
	}
	return s.env.Store().CertReqs(&s.conn.Remote)
}

// takeCertReqs notes whether the peer asks for certificates.
func (h *handshake) takeCertReqs(m *message.Message) {
	for p := range message.All[*message.CertReq](m) {
		h.certAsked = h.certAsked || p.Encoding == message.CertX509Signature
	}
}

// prove makes our AUTH payload, and the CERT payloads that go with it.
func (s *SA) prove(id *message.ID, authMessageID uint32) (*message.Auth, []message.Payload, error) {
	l, h := &s.conn.Local, s.handshake
	octets := s.signedOctets(s.initiator, id, authMessageID)
	if l.Method == auth.PSK {
		secret, err := s.secretFor(s.remoteID)
		if err != nil {
			return nil, nil, &fault{reason: ReasonOwnProof, err: err}
		}
		return &message.Auth{Method: message.AuthSharedKey, Data: auth.PSKAuth(s.choice.PRF, secret, octets)}, nil, nil
	}
	proof, err := auth.Sign(l, h.hashes, octets, s.env.Rand())
	if err != nil {
		return nil, nil, &fault{reason: ReasonOwnProof, err: err}
	}
	if len(l.Certificates) > 0 {
		s.ownUntil = l.Certificates[0].NotAfter
	}
	var certs []message.Payload
	if use := s.conn.SendCert; use == SendCertAlways || use == SendCertIfAsked && h.certAsked {
		certs = l.Payloads()
	}
	return proof, certs, nil
}

// verify checks who the peer is: identity, proof, and the certificate but for its
// revocation. If that must be looked up the SA waits for Verified.
func (s *SA) verify(now time.Time, id *message.ID, proof *message.Auth, m *message.Message, authMessageID uint32, out *Outputs) error {
	peer, r := auth.IdentityOf(id), &s.conn.Remote
	if peer.Equal(s.ownID()) { // somebody sends our own messages back, or has our secrets
		return &fault{reason: ReasonOwnIdentity}
	}
	if !r.ID.Matches(peer) {
		return &fault{reason: ReasonIdentity, err: fmt.Errorf("the peer is %v, configured is %v", peer, r.ID)}
	}
	octets := s.signedOctets(!s.initiator, id, authMessageID)
	if r.Method == auth.PSK {
		secret, err := s.secretFor(peer)
		if err == nil {
			err = auth.VerifyPSK(s.choice.PRF, secret, octets, proof)
		}
		if err != nil {
			return authFault(err)
		}
		s.remoteID = peer
		return nil
	}
	if proof.Method == message.AuthSharedKey {
		return authFault(auth.ErrMethod)
	}
	chain, err := s.env.Store().Chain(r, peer, slices.Collect(message.All[*message.Cert](m)), now)
	if err == nil {
		err = auth.VerifySignature(chain.Leaf().PublicKey, proof, octets, r.Schemes)
	}
	if err != nil {
		return authFault(err)
	}
	s.remoteID, s.validUntil = peer, chain.NotAfter()
	if !chain.NeedsCheck() {
		return nil
	}
	if s.verifyID, err = s.fresh(); err != nil {
		return err
	}
	s.state = StateVerifying
	out.add(Verify{ID: s.verifyID, Chain: chain, Remote: r})
	return nil
}

// authFault gives an error of package auth its reason.
func authFault(err error) error {
	reason := ReasonAuthentication
	switch {
	case errors.Is(err, auth.ErrIdentity):
		reason = ReasonIdentity
	case errors.Is(err, auth.ErrCertificate), errors.Is(err, auth.ErrUntrusted), errors.Is(err, auth.ErrExpired), errors.Is(err, auth.ErrKey):
		reason = ReasonCertificate
	case errors.Is(err, auth.ErrRevoked), errors.Is(err, auth.ErrUnknown):
		reason = ReasonRevoked
	}
	return &fault{reason: reason, notify: message.AuthenticationFailed, err: err}
}

// fresh is a random number that is not zero.
func (s *SA) fresh() (uint64, error) {
	var b [8]byte
	if _, err := s.env.Rand().Read(b[:]); err != nil {
		return 0, &fault{reason: ReasonInternal, err: err}
	}
	return binary.BigEndian.Uint64(b[:]) | 1, nil
}
