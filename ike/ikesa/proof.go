package ikesa

import (
	"crypto/subtle"
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

func idPayload(id auth.Identity, responder bool) *message.ID {
	return &message.ID{Responder: responder, IDType: id.Type, Data: []byte(id.Data)}
}

func identityOf(p *message.ID) auth.Identity {
	return auth.Identity{Type: p.IDType, Data: string(p.Data)}
}

func addressID(a netip.Addr) auth.Identity {
	t := message.IDIPv4Addr
	if a.Is6() {
		t = message.IDIPv6Addr
	}
	return auth.Identity{Type: t, Data: string(a.AsSlice())}
}

// ownID is the identity that we claim: the configured one, else our address.
func (s *SA) ownID() auth.Identity {
	if s.conn.Local.ID == (auth.Identity{}) {
		return addressID(s.local.Addr())
	}
	return s.conn.Local.ID
}

func (s *SA) expectedID() (auth.Identity, bool) {
	id := s.conn.Remote.ID.Exact
	return id, id != auth.Identity{}
}

func hashNotify() message.Payload {
	return &message.Notify{Notify: message.SignatureHashAlgorithms, Data: []byte{0, 2, 0, 3, 0, 4, 0, 5}}
}

func (s *SA) certReqs() []message.Payload { return nil }

func (h *handshake) takeCertReqs(m *message.Message) {}

func (s *SA) pskAuth(octets []byte) []byte {
	return s.keys.PRF(s.keys.PRF(s.env.Store().PSK, []byte("Key Pad for IKEv2")), octets)
}

func (s *SA) prove(id *message.ID, authMessageID uint32) (*message.Auth, []message.Payload, error) {
	octets := s.signedOctets(s.initiator, id, authMessageID)
	return &message.Auth{Method: message.AuthSharedKey, Data: s.pskAuth(octets)}, nil, nil
}

func (s *SA) verify(now time.Time, id *message.ID, proof *message.Auth, m *message.Message, authMessageID uint32, out *Outputs) error {
	peer := identityOf(id)
	if peer == s.ownID() { // somebody sends our own messages back, or has our secrets
		return &fault{reason: ReasonOwnIdentity}
	}
	octets := s.signedOctets(!s.initiator, id, authMessageID)
	if subtle.ConstantTimeCompare(proof.Data, s.pskAuth(octets)) != 1 {
		return &fault{reason: ReasonAuthentication}
	}
	s.remoteID = peer
	return nil
}
