package message

import (
	"errors"
	"net/netip"
	"testing"
)

// specimen is a well-formed payload of each type that the table knows.
var specimen = map[PayloadType]Payload{
	TypeSA: &SA{Proposals: []Proposal{{Number: 1, Protocol: ProtocolIKE}}}, TypeKE: &KE{Method: 31, Data: []byte{1}},
	TypeIDi: &ID{IDType: IDFQDN, Data: []byte("a")}, TypeIDr: &ID{Responder: true, IDType: IDFQDN, Data: []byte("b")},
	TypeCert: &Cert{Encoding: 4, Data: []byte{1}}, TypeCertReq: &CertReq{Encoding: 4}, TypeAuth: &Auth{Method: 2, Data: []byte{1}},
	TypeNonce: &Nonce{Data: make([]byte, 32)}, TypeNotify: &Notify{Notify: InitialContact}, TypeDelete: &Delete{Protocol: ProtocolIKE},
	TypeVendorID: &VendorID{}, TypeTSi: &TS{Selectors: []TrafficSelector{SelectorOf(netip.MustParsePrefix("192.0.2.0/24"))}},
	TypeTSr:    &TS{Responder: true, Selectors: []TrafficSelector{SelectorOf(netip.MustParsePrefix("192.0.2.0/24"))}},
	TypeConfig: &Config{Config: ConfigRequest}, TypeEAP: &EAP{Data: []byte{1}},
}

func messageOf(k kind, payloads ...Payload) *Message {
	m := &Message{Header: Header{InitiatorSPI: 1, Exchange: k.exchange}, Payloads: payloads}
	if k.response {
		m.Header.Flags |= Response
	}
	if k.exchange == IKESAInit {
		m.clear = len(payloads)
	} else {
		m.opened = true
	}
	return m
}

func reasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestEveryRowOfTheTableHolds builds each exchange's smallest message and breaks every rule in turn.
func TestEveryRowOfTheTableHolds(t *testing.T) {
	for k, table := range rules {
		var least []Payload
		listed := map[PayloadType]bool{}
		for _, r := range table {
			listed[r.payload] = true
			for range r.min {
				least = append(least, specimen[r.payload])
			}
		}
		with := func(more ...Payload) []Payload { return append(least[:len(least):len(least)], more...) }
		expect := func(what, want string, payloads []Payload) {
			t.Helper()
			if got := reasonOf(Check(messageOf(k, payloads...))); got != want {
				t.Errorf("%v response %v: %s: %q, want %q", k.exchange, k.response, what, got, want)
			}
		}
		expect("the smallest message", "", with())
		expect("with vendor ID, notify and unknown", "", with(&VendorID{}, specimen[TypeNotify], &Unknown{PayloadType: 200}))
		expect("SK that was not opened", ReasonRule, with(&Encrypted{}))
		for _, r := range table {
			for i, p := range least {
				if r.min > 0 && p.Type() == r.payload {
					without := append(append([]Payload(nil), least[:i]...), least[i+1:]...)
					expect("without "+r.payload.String(), ReasonRule, without)
					if k.response {
						expect("an error instead", "", append(without, &Notify{Notify: NoProposalChosen}))
					} else {
						expect("an error is no excuse for a request", ReasonRule, append(without, &Notify{Notify: NoProposalChosen}))
					}
				}
			}
			all := least
			for n := r.min; n < r.max; n++ {
				all = append(all[:len(all):len(all)], specimen[r.payload])
			}
			if r.max < many {
				expect("the most of "+r.payload.String(), "", all)
				expect("one more "+r.payload.String(), ReasonRule, append(all[:len(all):len(all)], specimen[r.payload]))
			}
		}
		for p := range specimen {
			if !listed[p] && p != TypeNotify && p != TypeVendorID {
				expect(p.String()+" which does not belong there", ReasonRule, with(specimen[p]))
			}
		}
		if k.exchange == IKESAInit {
			continue
		}
		m := messageOf(k, with()...)
		m.opened, m.clear = false, len(m.Payloads)
		if got := reasonOf(Check(m)); got != ReasonNotProtected {
			t.Errorf("%v in the clear: %q", k.exchange, got)
		}
		m = messageOf(k, append([]Payload{specimen[TypeNotify]}, least...)...)
		m.clear = 1
		if got := reasonOf(Check(m)); got != ReasonUnprotected {
			t.Errorf("%v with a notify outside of SK: %q", k.exchange, got)
		}
	}
}

func TestUnknownExchangeIsRefused(t *testing.T) {
	for _, e := range []ExchangeType{0, 33, 38, 42, 45, 240, 255} {
		if got := reasonOf(Check(messageOf(kind{e, request}))); got != ReasonRule {
			t.Errorf("%v: %q", e, got)
		}
	}
}

func TestCookieRequestMayLackEverythingElse(t *testing.T) {
	cookie := &Notify{Notify: Cookie, Data: make([]byte, 24)}
	if err := Check(messageOf(kind{IKESAInit, response}, cookie)); err != nil {
		t.Error(err)
	}
	if err := Check(messageOf(kind{IKEAuth, response}, cookie)); err != nil {
		t.Error(err)
	}
	if err := Check(messageOf(kind{CreateChildSA, response}, cookie)); err == nil {
		t.Error("a cookie instead of CREATE_CHILD_SA's payloads")
	}
}

func TestNotificationsAreBounded(t *testing.T) {
	base := []Payload{specimen[TypeSA], specimen[TypeKE], specimen[TypeNonce]}
	for _, r := range notifyRules {
		n := func(data int) Payload {
			p := &Notify{Notify: r.notify, Data: make([]byte, data)}
			if r.notify == RekeySA {
				p.Protocol, p.SPI = ProtocolESP, make([]byte, 4)
			}
			return p
		}
		check := func(more ...Payload) string {
			return reasonOf(Check(messageOf(kind{IKESAInit, request}, append(base[:3:3], more...)...)))
		}
		if got := check(n(r.dataMin)) + check(n(r.dataMax)); got != "" {
			t.Errorf("%v: %s", r.notify, got)
		}
		if got := check(n(r.dataMax + 1)); got != ReasonSyntax {
			t.Errorf("%v with %d bytes: %q", r.notify, r.dataMax+1, got)
		}
		if r.dataMin > 0 {
			if got := check(n(r.dataMin - 1)); got != ReasonSyntax {
				t.Errorf("%v with %d bytes: %q", r.notify, r.dataMin-1, got)
			}
		}
		if r.max == 1 {
			if got := check(n(r.dataMin), n(r.dataMin)); got != ReasonRule {
				t.Errorf("%v twice: %q", r.notify, got)
			}
		}
	}
	for name, n := range map[string]*Notify{
		"of IKE":         {Notify: RekeySA, Protocol: ProtocolIKE, SPI: make([]byte, 8)},
		"without an SPI": {Notify: RekeySA, Protocol: ProtocolESP},
	} {
		if got := reasonOf(Check(messageOf(kind{CreateChildSA, request}, specimen[TypeSA], specimen[TypeNonce], n))); got != ReasonSyntax {
			t.Errorf("REKEY_SA %s: %q", name, got)
		}
	}
}
