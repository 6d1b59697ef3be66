// Package message is the wire format of IKEv2 and the rules that say which payloads an exchange may carry.
//
//	datagram → ParseHeader → Parse → (Message.Open | Reassembler.Add) → Check → payloads, as structs
//	payloads → Message.Append (IKE_SA_INIT) or AppendProtected (SK, or SKF fragments) → datagrams
//
// Sources: RFC 7296 section 3, RFC 7383 (fragments), RFC 9242 (IKE_INTERMEDIATE), RFC 9370 (additional key exchanges),
// RFC 4555 (MOBIKE), RFC 6023 (childless), RFC 7427 (signature hashes).
//
// Parsing copies nothing: slices of parsed payloads point into the datagram, so whoever keeps a payload keeps the
// datagram. Nothing here knows a key: ciphers come in as a Protector. Whether a payload's contents are acceptable (a
// group, an identity, a selector) is decided by others; here it is only decided whether they are well-formed.
// IKEv1, AH's negotiation and EAP's inside are not handled; EAP is carried as opaque bytes.
package message
