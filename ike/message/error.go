package message

import "fmt"

// Error is a message that breaks a rule. Notify is what the peer may be told (0: nothing), Data the notify's data.
// Reason is the name under which the fault is counted and logged.
type Error struct {
	Notify NotifyType
	Data   []byte
	Reason string
	Detail string // for the log: which payload, which length; never contents
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Detail
}

// Is makes errors of one reason equal for errors.Is.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Notify == e.Notify
}

// Reasons of this package, each the value of Error.Reason.
const (
	ReasonShort           = "message-short"         // less than a header
	ReasonLength          = "message-length"        // header and datagram disagree about the length
	ReasonHigherVersion   = "version-higher"        // major version above 2
	ReasonLowerVersion    = "version-lower"         // major version below 2
	ReasonZeroSPI         = "spi-zero"              // the initiator's SPI is zero
	ReasonSyntax          = "syntax"                // a payload is malformed
	ReasonTooMany         = "too-many"              // a limit of this package
	ReasonCritical        = "critical-unknown"      // a payload that must be understood is not
	ReasonRule            = "payload-rule"          // payloads that the exchange does not allow, or lacks
	ReasonUnprotected     = "payload-unprotected"   // a payload outside of SK that belongs inside
	ReasonNotProtected    = "message-not-protected" // no SK where one must be
	ReasonIntegrity       = "integrity"             // the checksum is wrong
	ReasonFragment        = "fragment"              // number, total or size of a fragment is impossible
	ReasonFragmentLimit   = "fragment-limit"        // more fragments or bytes than are kept
	ReasonFragmentStale   = "fragment-stale"        // a smaller total than known, or a fragment that we have
	ReasonFragmentMessage = "fragment-message"      // fragments of one message disagree with each other
)

var (
	errShort         = &Error{Reason: ReasonShort}
	errLength        = &Error{Reason: ReasonLength}
	errHigherVersion = &Error{Reason: ReasonHigherVersion, Notify: InvalidMajorVersion}
	errLowerVersion  = &Error{Reason: ReasonLowerVersion}
	errZeroSPI       = &Error{Reason: ReasonZeroSPI}

	// ErrIntegrity is what a Protector's Open returns for a wrong checksum. The peer is told nothing.
	ErrIntegrity = &Error{Reason: ReasonIntegrity}
)

func syntaxError(format string, args ...any) *Error {
	return &Error{Notify: InvalidSyntax, Reason: ReasonSyntax, Detail: fmt.Sprintf(format, args...)}
}

func tooMany(format string, args ...any) *Error {
	return &Error{Notify: InvalidSyntax, Reason: ReasonTooMany, Detail: fmt.Sprintf(format, args...)}
}
