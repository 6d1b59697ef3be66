package ikesa

import (
	"errors"

	"sallyport/ike/message"
)

// Reason says why a datagram was discarded, an exchange failed or an SA ended. Its
// name is the same word in counters, log and control tool.
type Reason uint8

const (
	ReasonNone Reason = iota

	// Datagrams that are discarded, cheapest check first.
	ReasonShort
	ReasonLength
	ReasonHigherVersion
	ReasonLowerVersion
	ReasonZeroSPI
	ReasonWrongSPI
	ReasonReflected
	ReasonState
	ReasonWindow
	ReasonUnexpectedResponse
	ReasonInitChanged
	ReasonNotProtected
	ReasonIntegrity
	ReasonFragment
	ReasonFragmentLimit
	ReasonFragmentStale
	ReasonFragmentMessage
	ReasonUnauthenticated
	ReasonRivals

	// Messages that are understood and refused.
	ReasonSyntax
	ReasonTooMany
	ReasonCritical
	ReasonRule
	ReasonUnprotected
	ReasonNoConnection
	ReasonNoProposal
	ReasonKEMethod
	ReasonKEValue
	ReasonCookies
	ReasonOwnNonce
	ReasonNoFragments
	ReasonChildlessRefused
	ReasonIdentity
	ReasonOwnIdentity
	ReasonAuthentication
	ReasonCertificate
	ReasonRevoked
	ReasonOwnProof
	ReasonEAP
	ReasonSelectors
	ReasonMode
	ReasonNoSPI
	ReasonNoAddress
	ReasonTemporary
	ReasonChildNotFound
	ReasonStateNotFound
	ReasonNoAdditional
	ReasonNATRefused
	ReasonPeerRefused
	ReasonInternal

	// Ends that are nobody's fault, or the peer's absence.
	ReasonTimeout
	ReasonPeerDead
	ReasonHalfOpen
	ReasonDeletedByPeer
	ReasonDeletedHere
	ReasonRekeyed
	ReasonRedundant
	ReasonReauthenticated
	ReasonReplaced
	ReasonLifetime
	ReasonExpired
	ReasonInactive
	ReasonInitialContact
	ReasonReload
	ReasonShutdown
	ReasonPanic

	reasonCount
)

// ReasonCount is the number of reasons, for arrays of counters.
const ReasonCount = int(reasonCount)

// Severity says how much attention a reason deserves.
type Severity uint8

const (
	Notice  Severity = iota // normal life
	Warning                 // somebody is wrong, or the network is bad
	Failure                 // what was configured does not work
)

type reasonInfo struct {
	name     string
	severity Severity
	text     string
	section  string // where it is written; empty if it is our own limit
}

var reasonTable = [reasonCount]reasonInfo{
	ReasonNone:               {"none", Notice, "nothing is wrong", ""},
	ReasonShort:              {message.ReasonShort, Warning, "the datagram is shorter than an IKE header", "RFC 7296, 3.1"},
	ReasonLength:             {message.ReasonLength, Warning, "header and datagram disagree about the length", "RFC 7296, 3.1"},
	ReasonHigherVersion:      {message.ReasonHigherVersion, Warning, "the peer speaks a later major version of IKE", "RFC 7296, 2.5"},
	ReasonLowerVersion:       {message.ReasonLowerVersion, Warning, "the peer speaks IKEv1", "RFC 9395"},
	ReasonZeroSPI:            {message.ReasonZeroSPI, Warning, "the initiator's SPI is zero", "RFC 7296, 3.1"},
	ReasonWrongSPI:           {"spi-wrong", Warning, "one of the two SPIs is not this IKE SA's", "RFC 7296, 2.6"},
	ReasonReflected:          {"reflected", Warning, "the message says that we sent it", "RFC 7296, 3.1"},
	ReasonState:              {"state", Warning, "the exchange is not allowed in this state", "RFC 7296, 1.2"},
	ReasonWindow:             {"window", Notice, "the message ID is outside of the window: a late duplicate, or forged", "RFC 7296, 2.3"},
	ReasonUnexpectedResponse: {"response-unexpected", Notice, "a response to no request of ours", "RFC 7296, 2.2"},
	ReasonInitChanged:        {"init-changed", Warning, "another IKE_SA_INIT request under the SPI of a known one", "RFC 7296, 2.1"},
	ReasonNotProtected:       {message.ReasonNotProtected, Warning, "a clear message where only protected ones count", "RFC 7296, 2.21"},
	ReasonIntegrity:          {message.ReasonIntegrity, Warning, "the checksum is wrong", "RFC 7296, 3.14"},
	ReasonFragment:           {message.ReasonFragment, Warning, "number, total or size of a fragment is impossible", "RFC 7383, 2.5"},
	ReasonFragmentLimit:      {message.ReasonFragmentLimit, Warning, "more fragments or bytes than are kept", ""},
	ReasonFragmentStale:      {message.ReasonFragmentStale, Notice, "a fragment that is here already, or of an older division", "RFC 7383, 2.6"},
	ReasonFragmentMessage:    {message.ReasonFragmentMessage, Warning, "fragments of one message disagree", "RFC 7383, 2.6"},
	ReasonUnauthenticated:    {"hint-unauthenticated", Notice, "a clear notify about an established IKE SA: no more than a hint", "RFC 7296, 2.21.4"},
	ReasonRivals:             {"rivals-many", Warning, "more different answers to one IKE_SA_INIT than are followed", ""},

	ReasonSyntax:           {message.ReasonSyntax, Warning, "a payload is malformed", "RFC 7296, 2.21"},
	ReasonTooMany:          {message.ReasonTooMany, Warning, "more payloads, proposals or bytes than are accepted", ""},
	ReasonCritical:         {message.ReasonCritical, Warning, "a critical payload is not understood", "RFC 7296, 2.5"},
	ReasonRule:             {message.ReasonRule, Warning, "the exchange lacks a payload, or has one too many", "RFC 7296, 1.2"},
	ReasonUnprotected:      {message.ReasonUnprotected, Warning, "a payload stands outside of the encrypted one", "RFC 7296, 3.14"},
	ReasonNoConnection:     {"connection-none", Failure, "no connection is configured for these addresses and identities", ""},
	ReasonNoProposal:       {"proposal-none", Failure, "the two sides have no proposal in common", "RFC 7296, 2.7"},
	ReasonKEMethod:         {"ke-method", Failure, "the key exchange method is not the chosen one, or none of ours", "RFC 7296, 1.2"},
	ReasonKEValue:          {"ke-value", Warning, "the peer's key exchange value is bad", "RFC 6989, 2"},
	ReasonCookies:          {"cookies-many", Warning, "the peer asks for one cookie after the other", "RFC 7296, 2.6"},
	ReasonOwnNonce:         {"nonce-own", Warning, "our own nonce, SPI or public value came back", "RFC 7296, 2.10"},
	ReasonNoFragments:      {"fragments-unsupported", Failure, "the peer does not support fragments of IKE messages", "RFC 7383, 2.3"},
	ReasonChildlessRefused: {"childless-refused", Failure, "one side wants an IKE SA without a child, the other does not", "RFC 6023, 3"},
	ReasonIdentity:         {"identity", Failure, "the peer's identity is not the configured one", "RFC 7296, 2.15"},
	ReasonOwnIdentity:      {"identity-own", Warning, "the peer claims to be us", ""},
	ReasonAuthentication:   {"authentication", Failure, "authentication failed: the keys or secrets differ", "RFC 7296, 2.15"},
	ReasonCertificate:      {"certificate", Failure, "the peer's certificate is missing, not trusted or not its own", "RFC 4945, 3"},
	ReasonRevoked:          {"certificate-revoked", Failure, "a certificate is revoked, or nobody could say that it is not", "RFC 5280, 6.3"},
	ReasonOwnProof:         {"proof-own", Failure, "we cannot prove who we are: no key, or none that the peer knows how to check", "RFC 7427, 4"},
	ReasonEAP:              {"eap", Failure, "the peer wants EAP, which is not configured", "RFC 7296, 2.16"},
	ReasonSelectors:        {"selectors", Failure, "the traffic selectors have nothing in common", "RFC 7296, 2.9"},
	ReasonMode:             {"mode", Failure, "one side wants transport mode, the other does not", "RFC 7296, 1.3.1"},
	ReasonNoSPI:            {"spi-none", Warning, "the data plane has no room for another association", ""},
	ReasonNoAddress:        {"address-none", Failure, "no virtual address can be assigned", "RFC 7296, 3.15.4"},
	ReasonTemporary:        {"temporary", Notice, "two exchanges met; it is tried again", "RFC 7296, 2.25"},
	ReasonChildNotFound:    {"child-not-found", Notice, "the child is gone on the other side", "RFC 7296, 2.25"},
	ReasonStateNotFound:    {"followup-unknown", Notice, "a follow-up key exchange that nothing waits for", "RFC 9370, 2.2.4"},
	ReasonNoAdditional:     {"child-no-more", Failure, "the peer accepts no more children on this IKE SA", "RFC 7296, 1.3"},
	ReasonNATRefused:       {"nat-refused", Failure, "there is a NAT and one side does not allow any", "RFC 4555, 3.9"},
	ReasonPeerRefused:      {"refused", Failure, "the peer refuses, with an error that has no reason of its own here", "RFC 7296, 3.10.1"},
	ReasonInternal:         {"internal", Failure, "something failed on our side", ""},

	ReasonTimeout:         {"timeout", Failure, "the peer does not answer", "RFC 7296, 2.4"},
	ReasonPeerDead:        {"peer-dead", Failure, "an established peer has gone silent", "RFC 7296, 2.4"},
	ReasonHalfOpen:        {"half-open", Warning, "the initiator did not go on", ""},
	ReasonDeletedByPeer:   {"deleted-by-peer", Notice, "the peer deleted it", "RFC 7296, 1.4.1"},
	ReasonDeletedHere:     {"deleted", Notice, "deleted on request", "RFC 7296, 1.4.1"},
	ReasonRekeyed:         {"rekeyed", Notice, "replaced by its successor", "RFC 7296, 2.8"},
	ReasonRedundant:       {"redundant", Notice, "lost a simultaneous rekey", "RFC 7296, 2.8.1"},
	ReasonReauthenticated: {"reauthenticated", Notice, "replaced by a new IKE SA", "RFC 7296, 2.8.3"},
	ReasonReplaced:        {"replaced", Notice, "a newer IKE SA with the same identities took its place", ""},
	ReasonExpired:         {"certificate-expired", Failure, "the peer's certificate, or one above it, has ended, and no renewed one came", "RFC 5280, 6.1.3"},
	ReasonLifetime:        {"lifetime", Warning, "the lifetime is over and no successor came", "RFC 7296, 2.8"},
	ReasonInactive:        {"inactive", Notice, "no packet for the configured time", ""},
	ReasonInitialContact:  {"initial-contact", Notice, "the peer has started anew", "RFC 7296, 2.4"},
	ReasonReload:          {"reload", Notice, "the configuration no longer has it", ""},
	ReasonShutdown:        {"shutdown", Notice, "the gateway stops", ""},
	ReasonPanic:           {"panic", Failure, "a fault of this program, caught", ""},
}

// String returns the name under which the reason is counted and logged.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonTable[r].name
	}
	return "unknown"
}

// Severity says how much attention it deserves.
func (r Reason) Severity() Severity { return reasonTable[r%reasonCount].severity }

// Text is one sentence for people, without a full stop.
func (r Reason) Text() string { return reasonTable[r%reasonCount].text }

// Section is where the rule is written; empty if it is our own.
func (r Reason) Section() string { return reasonTable[r%reasonCount].section }

// Error makes a Reason an error: its name.
func (r Reason) Error() string { return r.String() }

var reasonByName = func() map[string]Reason {
	m := make(map[string]Reason, reasonCount)
	for r := range reasonCount {
		m[reasonTable[r].name] = r
	}
	return m
}()

// fault is an error that has a reason, and perhaps a notify for the peer.
type fault struct {
	reason Reason
	notify message.NotifyType // 0: the peer is told nothing
	data   []byte             // of the notify
	err    error              // says more; may be nil
}

func (f *fault) Error() string {
	if f.err != nil {
		return f.reason.Text() + ": " + f.err.Error()
	}
	return f.reason.Text()
}

func (f *fault) Unwrap() error { return f.err }

// ReasonOf returns the reason that an error carries, ReasonInternal if none does.
func ReasonOf(err error) Reason {
	var f *fault
	var r Reason
	var e *message.Error
	switch {
	case err == nil:
		return ReasonNone
	case errors.As(err, &f):
		return f.reason
	case errors.As(err, &r):
		return r
	case errors.As(err, &e):
		if r, ok := reasonByName[e.Reason]; ok {
			return r
		}
	}
	return ReasonInternal
}

// noteOf returns the notify that an error wants sent, 0 if none.
func noteOf(err error) (message.NotifyType, []byte) {
	var f *fault
	var e *message.Error
	switch {
	case errors.As(err, &f):
		return f.notify, f.data
	case errors.As(err, &e):
		return e.Notify, e.Data
	}
	return 0, nil
}

// reasonOfNotify is what an error notify of the peer means for what we asked.
func reasonOfNotify(n message.NotifyType) Reason {
	switch n {
	case message.NoProposalChosen:
		return ReasonNoProposal
	case message.InvalidKEPayload:
		return ReasonKEMethod
	case message.AuthenticationFailed:
		return ReasonAuthentication
	case message.TSUnacceptable, message.SinglePairRequired:
		return ReasonSelectors
	case message.NoAdditionalSAs:
		return ReasonNoAdditional
	case message.InternalAddressFailure, message.FailedCPRequired:
		return ReasonNoAddress
	case message.TemporaryFailure:
		return ReasonTemporary
	case message.ChildSANotFound:
		return ReasonChildNotFound
	case message.StateNotFound:
		return ReasonStateNotFound
	case message.InvalidSyntax:
		return ReasonSyntax
	case message.UnexpectedNATDetected:
		return ReasonNATRefused
	case message.InvalidMajorVersion:
		return ReasonHigherVersion
	case message.UnsupportedCriticalPayload:
		return ReasonCritical
	}
	return ReasonPeerRefused
}
