package message

import "fmt"

// rule says how often a payload may stand in a message of an exchange. Every payload of a protected exchange belongs
// inside of SK. What is not listed must not appear; vendor IDs, notifications and unknown payloads may anywhere.
type rule struct {
	payload  PayloadType
	min, max int
}

// kind is a column of the table: an exchange and a direction.
type kind struct {
	exchange ExchangeType
	response bool
}

const (
	request  = false
	response = true
)

const many = PayloadsMax

// rules is RFC 7296, 1.2 to 1.5 and appendix C, RFC 9242, 3 and RFC 9370, 2.2 as a table. Where a payload is mandatory
// only in some messages of an exchange (AUTH after EAP, SA unless the IKE SA is to be childless) min is 0 and the
// exchange decides.
var rules = map[kind][]rule{
	{IKESAInit, request}: {
		{TypeSA, 1, 1}, {TypeKE, 1, 1}, {TypeNonce, 1, 1},
	},
	{IKESAInit, response}: {
		{TypeSA, 1, 1}, {TypeKE, 1, 1}, {TypeNonce, 1, 1}, {TypeCertReq, 0, many},
	},
	{IKEIntermediate, request}: {
		{TypeKE, 0, 1},
	},
	{IKEIntermediate, response}: {
		{TypeKE, 0, 1},
	},
	{IKEAuth, request}: {
		{TypeIDi, 0, 1}, {TypeIDr, 0, 1}, {TypeCert, 0, many}, {TypeCertReq, 0, many}, {TypeAuth, 0, 1}, {TypeEAP, 0, 1},
		{TypeConfig, 0, 1}, {TypeSA, 0, 1}, {TypeTSi, 0, 1}, {TypeTSr, 0, 1},
	},
	{IKEAuth, response}: {
		{TypeIDr, 0, 1}, {TypeCert, 0, many}, {TypeAuth, 0, 1}, {TypeEAP, 0, 1},
		{TypeConfig, 0, 1}, {TypeSA, 0, 1}, {TypeTSi, 0, 1}, {TypeTSr, 0, 1},
	},
	{CreateChildSA, request}: {
		{TypeSA, 1, 1}, {TypeNonce, 1, 1}, {TypeKE, 0, 1}, {TypeTSi, 0, 1}, {TypeTSr, 0, 1}, {TypeConfig, 0, 1},
	},
	{CreateChildSA, response}: {
		{TypeSA, 1, 1}, {TypeNonce, 1, 1}, {TypeKE, 0, 1}, {TypeTSi, 0, 1}, {TypeTSr, 0, 1}, {TypeConfig, 0, 1},
	},
	{IKEFollowupKE, request}: {
		{TypeKE, 1, 1},
	},
	{IKEFollowupKE, response}: {
		{TypeKE, 1, 1},
	},
	{Informational, request}: {
		{TypeDelete, 0, many}, {TypeConfig, 0, 1},
	},
	{Informational, response}: {
		{TypeDelete, 0, many}, {TypeConfig, 0, 1},
	},
}

// notifyRules bound what someone relies on: how often a notification may stand in a message, and its data's length.
var notifyRules = []struct {
	notify           NotifyType
	max              int
	dataMin, dataMax int
}{
	{Cookie, 1, 1, CookieMax},   // RFC 7296, 2.6
	{Cookie2, 1, 8, CookieMax},  // RFC 4555, 4.2.5
	{InvalidKEPayload, 1, 2, 2}, // RFC 7296, 3.10.1
	{NATDetectionSourceIP, many, 20, 20},
	{NATDetectionDestinationIP, 1, 20, 20},
	{RekeySA, 1, 0, 0}, // RFC 7296, 1.3.3
	{AdditionalKeyExchange, 1, 1, 256},
	{SignatureHashAlgorithms, 1, 2, 256},
	{AdditionalIPv4Address, many, 4, 4},
	{AdditionalIPv6Address, many, 16, 16},
	{AuthLifetime, 1, 4, 4},
}

// Check holds a message to the table of payload rules, before anyone acts on it: an exchange's payloads are present, not
// too often, and protected if they must be. Messages but those of IKE_SA_INIT must be open. A response that reports an
// error, or an IKE_SA_INIT response that asks for a cookie, may lack everything else (RFC 7296, 2.6, 2.7, 2.21).
func Check(m *Message) error {
	exchange := m.Header.Exchange
	table, ok := rules[kind{exchange, m.Header.IsResponse()}]
	if !ok {
		return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: "unknown " + exchange.String()}
	}
	if exchange != IKESAInit {
		if !m.opened {
			return &Error{Reason: ReasonNotProtected, Detail: exchange.String()}
		}
		for _, p := range m.Payloads[:m.clear] {
			if _, unknown := p.(*Unknown); !unknown {
				return &Error{Notify: InvalidSyntax, Reason: ReasonUnprotected, Detail: fmt.Sprintf("%v in %v", p.Type(), exchange)}
			}
		}
	}
	var counts [256]uint8
	for _, p := range m.Payloads {
		if counts[p.Type()] < 255 {
			counts[p.Type()]++
		}
	}
	if counts[TypeEncrypted]+counts[TypeEncryptedFragment] != 0 {
		return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: "SK in " + exchange.String()}
	}
	bare := m.Header.IsResponse() && mayLackAll(m)
	for _, r := range table {
		n := int(counts[r.payload])
		if n > r.max || n < r.min && !bare {
			return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: fmt.Sprintf("%d %v in %v", n, r.payload, m.Header.Exchange)}
		}
		counts[r.payload] = 0
	}
	for t := range counts {
		if counts[t] != 0 && ruled(PayloadType(t)) {
			return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: fmt.Sprintf("%v in %v", PayloadType(t), exchange)}
		}
	}
	return checkNotifies(m)
}

// ruled says whether a payload type may stand only where the table allows it.
func ruled(t PayloadType) bool {
	_, known := payloadNames[t]
	return known && t != TypeNotify && t != TypeVendorID
}

func mayLackAll(m *Message) bool {
	if m.ErrorNotify() != nil {
		return true
	}
	return m.Header.Exchange == IKESAInit && m.Notify(Cookie) != nil
}

func checkNotifies(m *Message) error {
	var counts [16]uint8
	for n := range All[*Notify](m) {
		for i, r := range notifyRules {
			if r.notify != n.Notify {
				continue
			}
			if counts[i]++; int(counts[i]) > r.max {
				return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: fmt.Sprintf("more than %d %v", r.max, n.Notify)}
			}
			if len(n.Data) < r.dataMin || len(n.Data) > r.dataMax {
				return syntaxError("%v with %d bytes of data", n.Notify, len(n.Data))
			}
		}
		if n.Notify == RekeySA && (n.Protocol != ProtocolESP && n.Protocol != ProtocolAH || len(n.SPI) != 4) {
			return syntaxError("%v of %v with an SPI of %d bytes", n.Notify, n.Protocol, len(n.SPI)) // RFC 7296, 1.3.3
		}
	}
	return nil
}
