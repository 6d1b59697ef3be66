package ike

import "sallyport/ike/ikesa"

// Drop says why the server itself, before any IKE SA, discarded something. What an IKE SA discards has an
// ikesa.Reason; the names of both are disjoint.
type Drop uint8

const (
	DropNone            Drop = iota
	DropHeader               // counted under the header's own reason as well
	DropDirection            // an IKE_SA_INIT that is neither a first request nor for an SPI of ours
	DropSPIUnknown           // no IKE SA has this SPI
	DropQueue                // the shard's queue is full
	DropQueueInit            // its queue of IKE_SA_INIT requests is full
	DropCookieDemanded       // answered with a cookie instead
	DropCookieWrong          // a cookie that is not ours, or too old
	DropInitMalformed        // an IKE_SA_INIT request without a nonce where it is looked for
	DropHalfOpen             // half_open_max
	DropHalfOpenAddress      // half_open_per_address
	DropFull                 // the limit of IKE SAs
	DropClosed               // the server stops
	DropSend                 // the transport could not send
	DropEvent                // an event of the data plane that nobody could take
	DropCall                 // an order of the manager for a shard that stopped
	dropCount
)

// DropCount is the number of drop reasons, for arrays of counters.
const DropCount = int(dropCount)

var dropTable = [dropCount]struct {
	name     string
	severity ikesa.Severity
	text     string
	section  string
}{
	DropNone:            {"server-none", ikesa.Notice, "nothing is wrong", ""},
	DropHeader:          {"header", ikesa.Warning, "the IKE header is malformed", "RFC 7296, 3.1"},
	DropDirection:       {"init-direction", ikesa.Warning, "an IKE_SA_INIT request with flags, message ID or SPI of another message", "RFC 7296, 2.1"},
	DropSPIUnknown:      {"spi-unknown", ikesa.Notice, "no IKE SA has this SPI", "RFC 7296, 2.21.4"},
	DropQueue:           {"queue-full", ikesa.Warning, "datagrams come faster than they are worked off", ""},
	DropQueueInit:       {"queue-init-full", ikesa.Warning, "IKE_SA_INIT requests come faster than they are worked off", ""},
	DropCookieDemanded:  {"cookie-demanded", ikesa.Notice, "the initiator was asked to show that it is where it says", "RFC 7296, 2.6"},
	DropCookieWrong:     {"cookie-wrong", ikesa.Warning, "a cookie that is not ours or too old; the initiator gets a fresh one", "RFC 7296, 2.6"},
	DropInitMalformed:   {"init-malformed", ikesa.Warning, "an IKE_SA_INIT request whose payloads cannot be walked to its nonce", "RFC 7296, 1.2"},
	DropHalfOpen:        {"half-open-max", ikesa.Warning, "as many half-open IKE SAs as are allowed altogether", ""},
	DropHalfOpenAddress: {"half-open-address", ikesa.Warning, "as many half-open IKE SAs as one address may have", ""},
	DropFull:            {"sas-max", ikesa.Warning, "as many IKE SAs as are allowed", ""},
	DropClosed:          {"closing", ikesa.Notice, "the gateway stops", ""},
	DropSend:            {"send", ikesa.Warning, "a datagram could not be sent; the protocol repeats it", ""},
	DropEvent:           {"event-lost", ikesa.Warning, "an event of the data plane came for an unknown child or too fast", ""},
	DropCall:            {"call-lost", ikesa.Notice, "an order came too late for the shard", ""},
}

// String returns the name under which it is counted.
func (d Drop) String() string { return dropTable[d%dropCount].name }

// Severity says how much attention it deserves.
func (d Drop) Severity() ikesa.Severity { return dropTable[d%dropCount].severity }

// Text is one sentence for people, without a full stop.
func (d Drop) Text() string { return dropTable[d%dropCount].text }

// Section is where the rule is written; empty if it is our own.
func (d Drop) Section() string { return dropTable[d%dropCount].section }
