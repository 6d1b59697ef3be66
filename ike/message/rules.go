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

// notifyRules are notifications that an exchange cannot do without or that appear once at most.
var notifyMax = map[NotifyType]int{
	Cookie: 1, RekeySA: 1, AdditionalKeyExchange: 1, SignatureHashAlgorithms: 1, FragmentationSupported: 1,
	MobikeSupported: 1, IntermediateExchangeSupp: 1, UseTransportMode: 1, NATDetectionDestinationIP: 1,
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

// checkNotifies holds notifications to their number and their data's length.
func checkNotifies(m *Message) error {
	counts := make(map[NotifyType]int, len(notifyMax))
	for n := range All[*Notify](m) {
		if most, limited := notifyMax[n.Notify]; limited {
			if counts[n.Notify]++; counts[n.Notify] > most {
				return &Error{Notify: InvalidSyntax, Reason: ReasonRule, Detail: fmt.Sprintf("%v twice", n.Notify)}
			}
		}
		if bounds, known := notifyData[n.Notify]; known && (len(n.Data) < bounds[0] || len(n.Data) > bounds[1]) {
			return syntaxError("%v with %d bytes of data", n.Notify, len(n.Data))
		}
		if n.Notify == RekeySA && (n.Protocol != ProtocolESP && n.Protocol != ProtocolAH || len(n.SPI) != 4) {
			return syntaxError("%v of %v with an SPI of %d bytes", n.Notify, n.Protocol, len(n.SPI)) // RFC 7296, 1.3.3
		}
	}
	return nil
}

// notifyData bounds the lengths of notification data that someone relies on.
var notifyData = map[NotifyType][2]int{
	Cookie:                    {1, CookieMax}, // RFC 7296, 2.6
	Cookie2:                   {8, CookieMax}, // RFC 4555, 4.2.5
	NATDetectionSourceIP:      {20, 20},
	NATDetectionDestinationIP: {20, 20},
	InvalidKEPayload:          {2, 2},
	AdditionalIPv4Address:     {4, 4},
	AdditionalIPv6Address:     {16, 16},
	AuthLifetime:              {4, 4},
}
