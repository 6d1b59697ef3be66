package ikesa

import "sallyport/ike/message"

// State is where an IKE SA stands.
type State uint8

const (
	StateCreated      State = iota // nothing sent, nothing received
	StateInit                      // our IKE_SA_INIT request is on its way
	StateIntermediate              // additional key exchanges
	StateAuth                      // IKE_AUTH is on its way, or awaited
	StateVerifying                 // the peer is authenticated but for the revocation of its certificate
	StateEstablished
	StateRekeyed  // another SA has the children, or won a collision; the delete is awaited
	StateDeleting // our delete is on its way, or waits for the window
	StateEnded
	stateCount
)

var stateNames = [stateCount]string{"created", "init", "intermediate", "auth", "verifying", "established", "rekeyed", "deleting", "ended"}

func (s State) String() string {
	if s < stateCount {
		return stateNames[s]
	}
	return "unknown"
}

// HalfOpen says whether the peer is not authenticated yet.
func (s State) HalfOpen() bool { return s < StateEstablished }

// exchangeSet is a set of exchanges; the IKE exchange types start at 34.
type exchangeSet uint16

func exchanges(all ...message.ExchangeType) exchangeSet {
	var set exchangeSet
	for _, x := range all {
		set |= 1 << (x - message.IKESAInit)
	}
	return set
}

func (e exchangeSet) has(x message.ExchangeType) bool {
	return x >= message.IKESAInit && x < message.IKESAInit+16 && e&(1<<(x-message.IKESAInit)) != 0
}

// requestsAllowed says which requests of the peer a state takes up. What is not
// listed is discarded unread; a response is taken up only by the request it belongs to.
// As initiator of a half-open SA we take no request at all: the peer has none to make.
var requestsAllowed = [stateCount]struct{ initiator, responder exchangeSet }{
	StateCreated:      {0, exchanges(message.IKESAInit)},
	StateIntermediate: {0, exchanges(message.IKEIntermediate)},
	StateAuth:         {0, exchanges(message.IKEAuth)},
	StateVerifying:    {0, 0},
	StateEstablished:  {established, established},
	StateRekeyed:      {established, established}, // CREATE_CHILD_SA is answered with TEMPORARY_FAILURE
	StateDeleting:     {established, established},
}

var established = exchanges(message.CreateChildSA, message.Informational, message.IKEFollowupKE)

// requestAllowed says whether the table lets a request of the peer in.
func (s *SA) requestAllowed(x message.ExchangeType) bool {
	row := requestsAllowed[s.state]
	if s.initiator {
		return row.initiator.has(x)
	}
	return row.responder.has(x)
}
