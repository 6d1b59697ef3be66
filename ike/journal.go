package ike

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// journal writes the log: one line for each exchange that says who, what, and why it failed. What others can cause as
// often as they like is written once a second for each kind, with how often it was left out.
type journal struct {
	log zerolog.Logger
	mu  sync.Mutex
	hit map[string]*hit
}

type hit struct {
	last time.Time
	left int
}

func newJournal(log zerolog.Logger) *journal { return &journal{log: log, hit: make(map[string]*hit)} }

// quietTime is how long a line that strangers can cause keeps its kind quiet. Kinds are words of tables: the map is bounded.
const quietTime = time.Second

// rarely says whether a line of a kind may be written now, and how many were left out since the last one.
func (j *journal) rarely(kind string) (left int, ok bool) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.hit[kind]
	if h == nil {
		h = new(hit)
		j.hit[kind] = h
	}
	if !h.last.IsZero() && now.Sub(h.last) < quietTime {
		h.left++
		return 0, false
	}
	left, h.left, h.last = h.left, 0, now
	return left, true
}

func who(l *zerolog.Event, sa *ikesa.SA) *zerolog.Event {
	if sa == nil || !l.Enabled() {
		return l
	}
	if c := sa.Connection(); c != nil {
		l = l.Str("connection", c.Name)
	}
	local, remote := sa.Endpoints()
	spiI, spiR := sa.SPIs()
	l = l.Stringer("local", local).Stringer("remote", remote).Stringer("spi_i", spiI).Stringer("spi_r", spiR)
	if _, id := sa.Identities(); sa.State() >= ikesa.StateEstablished {
		l = l.Stringer("peer", id)
	}
	return l
}

// expiryNotice is how long before its end a peer's certificate is warned of, as of our own.
const expiryNotice = 30 * 24 * time.Hour

func why(l *zerolog.Event, r ikesa.Reason, err error) *zerolog.Event {
	if r == ikesa.ReasonNone {
		return l
	}
	l = l.Stringer("reason", r)
	if r.Section() != "" {
		l = l.Str("rule", r.Section())
	}
	if err != nil && err.Error() != r.Text() {
		l = l.AnErr("detail", err)
	}
	return l
}

func (j *journal) level(r ikesa.Reason) *zerolog.Event {
	switch {
	case r == ikesa.ReasonNone || r.Severity() == ikesa.Notice:
		return j.log.Info()
	case r.Severity() == ikesa.Warning:
		return j.log.Warn()
	}
	return j.log.Error()
}

// event writes what an IKE SA reports.
func (j *journal) event(e ikesa.Event) {
	switch e.Kind {
	case ikesa.EventExchange:
		j.exchange(e)
	case ikesa.EventRetransmit:
		who(j.log.Debug(), e.SA).Stringer("exchange", e.Exchange).Uint32("id", e.MessageID).Int("times", e.N).Msg("sent again")
	case ikesa.EventDrop:
		left, ok := j.rarely(e.Reason.String())
		if !ok {
			return
		}
		why(who(j.level(e.Reason), e.SA), e.Reason, e.Err).Stringer("exchange", e.Exchange).Uint32("id", e.MessageID).
			Int("unreported", left).Msg("datagram discarded: " + e.Reason.Text())
	case ikesa.EventEstablished:
		who(j.log.Info(), e.SA).Msg("IKE SA established")
		if end := e.SA.ValidUntil(); !end.IsZero() && time.Until(end) < expiryNotice {
			who(j.log.Warn(), e.SA).Time("expires", end).Msg("the peer's certificate, or one above it, ends soon: renew it")
		}
	case ikesa.EventRekeyed:
		l := who(j.log.Info(), e.SA)
		if e.Successor != nil {
			spiI, spiR := e.Successor.SPIs()
			l = l.Stringer("new_spi_i", spiI).Stringer("new_spi_r", spiR)
		}
		l.Msg("IKE SA rekeyed")
	case ikesa.EventChildUp:
		j.child(e, j.log.Info()).Msg("child established")
	case ikesa.EventChildRekeyed:
		j.child(e, j.log.Info()).Str("old", spiWord(e.Old)).Msg("child rekeyed")
	case ikesa.EventChildDown:
		why(j.child(e, j.level(e.Reason)), e.Reason, e.Err).Msg("child removed: " + e.Reason.Text())
	case ikesa.EventChildFailed:
		why(j.child(e, j.level(e.Reason)), e.Reason, e.Err).Msg("child not established: " + e.Reason.Text())
	case ikesa.EventMoved:
		who(j.log.Info(), e.SA).Msg("endpoints changed")
	case ikesa.EventEnding:
		why(who(j.log.Debug(), e.SA), e.Reason, e.Err).Msg("IKE SA will end")
	case ikesa.EventHint:
		if left, ok := j.rarely("hint"); ok {
			who(j.log.Info(), e.SA).Stringer("notify", e.Notify).Int("unreported", left).Msg("unauthenticated notify: the peer is asked")
		}
	}
}

// exchange writes the line of an exchange. Liveness checks that went well are for debugging.
func (j *journal) exchange(e ikesa.Event) {
	l := j.level(e.Reason)
	if e.Reason == ikesa.ReasonNone && e.Exchange == message.Informational {
		l = j.log.Debug()
	}
	role := "responder"
	if e.Initiator {
		role = "initiator"
	}
	l = why(who(l, e.SA), e.Reason, e.Err).Stringer("exchange", e.Exchange).Uint32("id", e.MessageID).Str("role", role)
	if e.Child != nil {
		l = l.Str("child", e.Child.Name)
	}
	if e.Reason == ikesa.ReasonNone {
		l.Msg("exchange done")
	} else {
		l.Msg("exchange failed: " + e.Reason.Text())
	}
}

func (j *journal) child(e ikesa.Event, l *zerolog.Event) *zerolog.Event {
	l = who(l, e.SA)
	if e.Child != nil {
		l = l.Str("child", e.Child.Name)
	}
	if e.SPI != 0 {
		l = l.Str("spi", spiWord(e.SPI))
	}
	return l
}

// spiWord is a child's SPI as everyone prints it.
func spiWord(spi uint32) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := range b {
		b[i] = digits[spi>>(28-4*i)&15]
	}
	return string(b[:])
}

func (j *journal) ended(sa *ikesa.SA, r ikesa.Reason) {
	l := j.level(r)
	if r == ikesa.ReasonHalfOpen { // strangers cause these
		left, ok := j.rarely("half-open")
		if !ok {
			return
		}
		l = l.Int("unreported", left)
	}
	why(who(l, sa), r, nil).Msg("IKE SA ended: " + r.Text())
}

// pathFound writes what all IKE SAs of a path use from now on.
func (j *journal) pathFound(f ikesa.PathFound) {
	j.log.Info().Stringer("local", f.Path.Local).Stringer("peer", f.Path.Remote).Int("mtu", f.MTU).Msg("path MTU probed")
}

func (j *journal) sendFailed(d ikesa.Datagram, err error) {
	if left, ok := j.rarely("send"); ok {
		j.log.Warn().Stringer("local", d.Local).Stringer("remote", d.Remote).AnErr("detail", err).Int("unreported", left).Msg("IKE datagram not sent")
	}
}

func (j *journal) installFailed(c *ikesa.ChildSA, what string, err error) {
	l := j.log.Error()
	if c.Connection != nil {
		l = l.Str("connection", c.Connection.Name)
	}
	if c.Child != nil {
		l = l.Str("child", c.Child.Name)
	}
	l.Str("spi", spiWord(c.SPIIn)).Str("what", what).AnErr("detail", err).Msg("the data plane refused an association")
}

func (j *journal) panicked(e *entry, r any, stack []byte) {
	l := j.log.Error()
	text := "a fault of this program cost one order"
	if e != nil {
		text = "a fault of this program cost one IKE SA"
		if e.sa != nil {
			spiI, spiR := e.sa.SPIs()
			l = l.Stringer("spi_i", spiI).Stringer("spi_r", spiR)
		}
	}
	l.Interface("panic", r).Bytes("stack", stack).Msg(text)
}

func (j *journal) keyLogFailed(err error) {
	if _, ok := j.rarely("keylog"); ok {
		j.log.Error().AnErr("detail", err).Msg("key log not written")
	}
}

func (j *journal) gaveUp(c *ikesa.Connection, tries int, err error) {
	j.log.Error().Str("connection", c.Name).Int("tries", tries).AnErr("detail", err).Msg("no more tries until a packet or an operator asks")
}

func (j *journal) notResolved(host string, err error) {
	if left, ok := j.rarely("dns"); ok {
		j.log.Warn().Str("host", host).AnErr("detail", err).Int("unreported", left).Msg("a peer's name has no address")
	}
}

func (j *journal) applied(all, fresh, gone int) {
	j.log.Info().Int("connections", all).Int("new", fresh).Int("removed", gone).Msg("connections configured")
}

func (j *journal) notBegun(c *ikesa.Connection, err error) {
	if left, ok := j.rarely("begin"); ok {
		j.log.Warn().Str("connection", c.Name).AnErr("detail", err).Int("unreported", left).Msg("no IKE SA can be begun; it is tried again")
	}
}
