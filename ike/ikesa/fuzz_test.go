package ikesa

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"sallyport/ike/message"
)

// fuzzStages make a host in the state that a fuzzer begins with.
var fuzzStages = []struct {
	of    string
	steps int // packets of the handshake that have arrived; -1 is established
}{{"a", 0}, {"b", 1}, {"a", 2}, {"b", 3}, {"a", -1}, {"b", -1}}

func fuzzWorld(t testing.TB, stage uint8) (*world, *host) {
	x := fuzzStages[int(stage)%len(fuzzStages)]
	if x.steps < 0 {
		w := connected(t, 1)
		return w, w.hosts[x.of]
	}
	w := newWorld(t, 1)
	w.hosts["a"].initiate(InitiatorOptions{})
	for range x.steps {
		w.pass("")
	}
	return w, w.hosts[x.of]
}

// FuzzReceive gives arbitrary datagrams to a machine in every state. Nothing that is
// not authentic may change an established SA.
func FuzzReceive(f *testing.F) {
	for stage := range fuzzStages {
		w, _ := fuzzWorld(f, uint8(stage))
		for _, p := range w.net {
			f.Add(uint8(stage), p.Data)
		}
		f.Add(uint8(stage), []byte{})
	}
	f.Fuzz(func(t *testing.T, stage uint8, data []byte) {
		w, h := fuzzWorld(t, stage)
		w.forged = true
		s := h.last
		if s == nil {
			return
		}
		if len(data) >= message.HeaderLen { // so that something gets past the first check
			binary.BigEndian.PutUint64(data, uint64(s.spiI))
			binary.BigEndian.PutUint32(data[24:], uint32(len(data)))
		}
		before := s.state
		h.inject(s, data)
		if before == StateEstablished && (s.state != before || len(h.in) != 1 || len(h.out) != 1) {
			t.Fatalf("a datagram that nobody protected did %v", s.state)
		}
		w.advance(10 * time.Minute)
	})
}

// FuzzPayloads protects arbitrary payloads with the right keys, so that they get as
// far as they can: an authentic peer must not be able to bring a machine down, whatever
// it says in whatever state, and two machines must not talk for ever.
func FuzzPayloads(f *testing.F) {
	add := func(stage uint8, x message.ExchangeType, response bool, payloads ...message.Payload) {
		m := message.Message{Payloads: payloads}
		b := m.Append(nil)
		f.Add(stage, uint8(x), response, b[16], b[message.HeaderLen:])
	}
	for stage := range uint8(6) {
		add(stage, message.Informational, false, &message.Delete{Protocol: message.ProtocolIKE})
		add(stage, message.Informational, false, &message.Delete{Protocol: message.ProtocolESP, SPIs: []uint32{0xa01, 0xb01, 7}})
		add(stage, message.Informational, false, &message.Notify{Notify: message.UpdateSAAddresses}, &message.Notify{Notify: message.Cookie2, Data: make([]byte, 16)})
		add(stage, message.Informational, false, &message.Config{Config: message.ConfigRequest})
		add(stage, message.Informational, true, &message.Notify{Notify: message.InvalidSyntax})
		add(stage, message.IKEAuth, false, &message.ID{IDType: message.IDFQDN, Data: []byte("a.example.org")}, &message.Auth{Method: message.AuthSharedKey, Data: make([]byte, 32)})
		add(stage, message.IKEFollowupKE, false, &message.KE{Method: 31, Data: make([]byte, 32)}, &message.Notify{Notify: message.AdditionalKeyExchange, Data: []byte{1}})
	}
	// Real requests of every kind, seen as b would see them.
	w := connected(f, 1)
	a := w.hosts["a"]
	for _, c := range []Command{RekeyChild{a.childByName("net")}, RekeyIKE{}, AddChild{a.conn.Children[0]}} {
		w := connected(f, 1)
		a := w.hosts["a"]
		a.command(c)
		m := must(message.Parse(bytes.Clone(w.net[0].Data)))
		if err := m.Open(w.hosts["b"].last.opener); err != nil {
			f.Fatal(err)
		}
		add(5, m.Header.Exchange, false, m.Payloads...)
		add(4, m.Header.Exchange, false, m.Payloads...)
	}
	f.Fuzz(func(t *testing.T, stage, exchange uint8, response bool, first uint8, chain []byte) {
		w, h := fuzzWorld(t, stage)
		w.forged = true
		s, peer := h.last, w.peer(h).last
		if s == nil || peer == nil || s.opener == nil || peer.sealer == nil || len(chain) > 4096 {
			return
		}
		header := s.forged(message.ExchangeType(exchange), s.nextIn, response)
		if response {
			if s.request == nil {
				h.command(Liveness{})
			}
			if s.request == nil {
				return
			}
			header.MessageID = s.request.id
		}
		payloads, err := message.ParsePayloads(message.PayloadType(first), chain)
		if err != nil {
			return
		}
		packets, err := message.AppendProtected(nil, header, payloads, peer.sealer, 0)
		if err != nil {
			return
		}
		h.inject(s, packets[0])
		for i := 0; w.pass("") && i < 200; i++ {
		}
		w.advance(30 * time.Minute)
	})
}
