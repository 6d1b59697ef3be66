package suite

import (
	"fmt"
	"io"

	"sallyport/ike/message"
)

// group is a key exchange method. Lengths are in bytes and fixed: both sides' values have exactly these (RFC 7296, 3.4;
// RFC 5903, 7; RFC 8031, 3; the ML-KEM draft, 2.2).
type group struct {
	word   string
	id     uint16
	first  int // what the initiator sends
	answer int // what the responder sends
	// noIKE says that the initiator's value does not fit IKE_SA_INIT, which cannot be sent in fragments.
	noIKE   bool
	aliases []string // strongSwan's other words for it

	initiate func(rand io.Reader) (private, []byte, error)
	respond  func(rand io.Reader, peer []byte) (public, shared []byte, err error)
}

// private is what the initiator keeps until the answer is there.
type private interface {
	finish(peer []byte) (shared []byte, err error)
}

// groups are in the order of preference.
var groups = []group{
	x25519Group,
	nistGroup("ecp256", message.KEECP256, p256),
	nistGroup("ecp384", message.KEECP384, p384),
	nistGroup("ecp521", message.KEECP521, p521),
	modpGroup("modp3072", message.KEMODP3072, 3072, modp3072),
	modpGroup("modp4096", message.KEMODP4096, 4096, modp4096),
	modpGroup("modp2048", message.KEMODP2048, 2048, modp2048),
	mlkem768Group,
	mlkem1024Group,
}

func groupOf(id uint16) *group {
	for i := range groups {
		if groups[i].id == id {
			return &groups[i]
		}
	}
	return nil
}

// KeyExchange is one key exchange that this side began. It is good for one answer.
type KeyExchange struct {
	group   *group
	public  []byte
	private private
}

// Initiate begins a key exchange with a fresh private value from rand.
func Initiate(method uint16, rand io.Reader) (*KeyExchange, error) {
	g, err := known(method)
	if err != nil {
		return nil, err
	}
	private, public, err := g.initiate(rand)
	if err != nil {
		return nil, fmt.Errorf("begin a key exchange with %s: %w", g.word, err)
	}
	return &KeyExchange{g, public, private}, nil
}

// Method returns the transform ID of the key exchange method.
func (k *KeyExchange) Method() uint16 { return k.group.id }

// Public returns what the KE payload carries.
func (k *KeyExchange) Public() []byte { return k.public }

// Finish computes the shared secret from the peer's answer and forgets the private value, whatever comes of it. Callers
// that expect forged answers to IKE_SA_INIT (see [KeyExchange.Try]) finish after they know which is the right one.
// The error is a *message.Error for a value that no honest peer sends (RFC 6989, RFC 8031, FIPS 203).
func (k *KeyExchange) Finish(peer []byte) (shared []byte, err error) {
	shared, err = k.Try(peer)
	k.private = nil
	return shared, err
}

// Try computes what Finish does and keeps the private value, so that another answer to the same request can be tried
// (RFC 7296, 2.21.1: a forged answer must not end the exchange).
func (k *KeyExchange) Try(peer []byte) (shared []byte, err error) {
	if k.private == nil {
		return nil, fmt.Errorf("key exchange with %s is finished already", k.group.word)
	}
	if len(peer) != k.group.answer {
		return nil, badLength(k.group, len(peer), k.group.answer)
	}
	return k.private.finish(peer)
}

// Respond answers a key exchange that the peer began with this value. With ML-KEM the randomness of the encapsulation
// is the operating system's, because the standard library takes none from callers; otherwise it is rand's.
func Respond(method uint16, rand io.Reader, peer []byte) (public, shared []byte, err error) {
	g, err := known(method)
	if err != nil {
		return nil, nil, err
	}
	if len(peer) != g.first {
		return nil, nil, badLength(g, len(peer), g.first)
	}
	public, shared, err = g.respond(rand, peer)
	if err != nil {
		return nil, nil, err
	}
	return public, shared, nil
}

// PublicLen returns the length in bytes of what the initiator of a key exchange sends, 0 for an unknown method.
func PublicLen(method uint16) int {
	if g := groupOf(method); g != nil {
		return g.first
	}
	return 0
}

func known(method uint16) (*group, error) {
	if g := groupOf(method); g != nil {
		return g, nil
	}
	return nil, &message.Error{Notify: message.NoProposalChosen, Reason: ReasonKEMethod, Detail: fmt.Sprintf("method %d", method)}
}

func badLength(g *group, have, want int) *message.Error {
	return badValue(g.word, fmt.Sprintf("of %d bytes, not %d", have, want))
}

// badValue is the error for a value that cannot come from an honest peer. The notify is that of a malformed payload:
// asking for another group would not help.
func badValue(word, what string) *message.Error {
	return &message.Error{Notify: message.InvalidSyntax, Reason: ReasonKEValue, Detail: word + " value " + what}
}
