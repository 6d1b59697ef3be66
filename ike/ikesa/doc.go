// Package ikesa is one IKE SA (RFC 7296) as a pure state machine.
//
// An SA has no socket, clock, goroutine, log or random source of its own. It is
// given inputs, each with the time, and appends what must be done to an Outputs:
//
//	datagram ──► Receive ─┐
//	timer    ──► Tick     ├─► legality ─► open ─► payload rules ─► exchange ─► Outputs, performed in order
//	operator ──► Command  │   (window,     (suite)  (message)        (one file each)
//	revocation─► Verified ┘    state)
//
// One file an exchange, with the same verbs in each: build and process as initiator,
// a request method as responder. In the order of an SA's life: sainit.go (with rivals.go
// for forged answers and nat.go), intermediate.go, ikeauth.go (with proof.go, the seam to
// package auth, and config.go), createchild.go (with child.go and narrow.go),
// followup.go, rekeyike.go, informational.go, mobike.go, reauth.go, end.go. What a state
// allows is the table in state.go; window.go has the request window and the
// retransmission, task.go what waits for the window, timer.go what happens by itself.
//
// The inbound association is installed before the message that lets the peer use
// it is sent; during a rekey the outbound one moves only when the peer can receive
// on the new one, and the old one stays until it is deleted.
//
// An SA is not safe for concurrent use. An SA that is made by another one (the
// successor of an IKE rekey, a reauthentication) must be driven by the same
// goroutine; the NewSA and Touched outputs say so when.
//
// Not handled here: cookies without state, half-open limits, look-up by SPI, DNS,
// start actions, failover and uniqueness (package ike); EAP; IKEv1.
package ikesa
