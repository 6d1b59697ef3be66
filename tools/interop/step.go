package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"sallyport/tools/rig"
)

// step is one line of a scenario: a verb with what it is done to.
type step struct {
	verb string
	do   action
}

// action is what a verb does.
type action interface {
	perform(ctx context.Context, r *run) error
}

// verbs are all that can be done. A verb without anything behind it does its usual.
var verbs = map[string]func() action{
	"up":       func() action { return &up{By: initiator, Connection: "site", Child: "net"} },
	"down":     func() action { return &down{By: initiator, Connection: "site"} },
	"sas":      func() action { return &sas{Within: 5 * time.Second} },
	"ping":     func() action { return &ping{Family: "4", Answered: true, Within: 8 * time.Second} },
	"stream":   func() action { return &streaming{Family: "4", Rate: 200} },
	"counted":  func() action { return &counted{} },
	"transfer": func() action { return &transferring{Family: "4", Completes: true, Within: 8 * time.Second} },
	"narrow":   func() action { return &narrowing{} },
	"rekey":    func() action { return &rekey{Connection: "site", Within: 8 * time.Second} },
	"kill":     func() action { return &power{} },
	"start":    func() action { return &power{on: true} },
	"silence":  func() action { return &silence{down: true} },
	"restore":  func() action { return &silence{} },
	"move":     func() action { return &moving{} },
	"route":    func() action { return &routing{} },
	"rebind":   func() action { return &rebinding{} },
	"lose":     func() action { return &losing{} },
	"cut":      func() action { return &cutting{} },
	"mend":     func() action { return &cutting{} },
	"forget":   func() action { return &forgetting{} },
	"answer":   func() action { return &answering{} },
	"revoke":   func() action { return &revoking{} },
	"flood":    func() action { return &flood{Count: 3} },
	"log":      func() action { return &logged{Within: 3 * time.Second} },
	"wait":     func() action { return &pause{} },
}

// UnmarshalYAML reads "verb" or "verb: {...}".
func (s *step) UnmarshalYAML(text []byte) error {
	var verb string
	var arguments []byte
	var line map[string]any
	if yaml.Unmarshal(text, &line) == nil && len(line) == 1 {
		for key, value := range line {
			verb = key
			if value == nil {
				continue
			}
			var err error
			if arguments, err = yaml.Marshal(value); err != nil {
				return err
			}
		}
	} else if err := yaml.Unmarshal(text, &verb); err != nil {
		return fmt.Errorf("%q is not a verb with what it is done to", text)
	}
	create, ok := verbs[verb]
	if !ok {
		return fmt.Errorf("there is no verb %q", verb)
	}
	s.verb, s.do = verb, create()
	if arguments == nil {
		return nil
	}
	if err := yaml.UnmarshalWithOptions(arguments, s.do, yaml.Strict()); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// up has a side bring a child up; with fails, that must fail.
type up struct {
	By         string `yaml:"by"`
	Connection string `yaml:"connection"`
	Child      string `yaml:"child"`
	Fails      bool   `yaml:"fails"`
	Both       bool   `yaml:"both"` // the other side at the same time
}

func (a *up) perform(ctx context.Context, r *run) error {
	e, name, err := r.end(a.By)
	if err != nil {
		return err
	}
	child := a.Child
	if child == "none" {
		child = ""
	}
	if a.Both {
		other, _, _ := r.end(map[string]string{sallyport: strongswan, strongswan: sallyport}[name])
		second := make(chan error, 1)
		go func() { second <- other.Up(ctx, a.Connection, child) }()
		return errors.Join(e.Up(ctx, a.Connection, child), <-second)
	}
	err = e.Up(ctx, a.Connection, child)
	switch {
	case a.Fails && err == nil:
		return fmt.Errorf("%s brought %s up, which should have been refused", name, a.Connection)
	case a.Fails:
		r.check("%s is refused", a.Connection)
		return nil
	}
	return err
}

// down has a side delete a connection's IKE SA; afterwards neither side has any.
type down struct {
	By         string `yaml:"by"`
	Connection string `yaml:"connection"`
}

func (a *down) perform(ctx context.Context, r *run) error {
	e, _, err := r.end(a.By)
	if err != nil {
		return err
	}
	if err := e.Down(ctx, a.Connection); err != nil {
		return err
	}
	none := 0
	return (&sas{Both: &want{SAs: &none}, Within: 5 * time.Second}).perform(ctx, r)
}

// sas reads the associations of both sides until they are as wanted.
type sas struct {
	Sallyport  *want         `yaml:"sallyport"`
	StrongSwan *want         `yaml:"strongswan"`
	Initiator  *want         `yaml:"initiator"`
	Responder  *want         `yaml:"responder"`
	Both       *want         `yaml:"both"`
	Within     time.Duration `yaml:"within"`
}

func (a *sas) perform(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, a.Within)
	defer cancel()
	for _, x := range []struct {
		name string
		want *want
	}{{sallyport, a.Both}, {strongswan, a.Both}, {sallyport, a.Sallyport}, {strongswan, a.StrongSwan}, {initiator, a.Initiator}, {responder, a.Responder}} {
		if x.want == nil {
			continue
		}
		e, name, err := r.end(x.name)
		if err != nil {
			return err
		}
		if err := eventually(ctx, func() error {
			all, err := e.SAs(ctx)
			if err != nil {
				return err
			}
			if text := x.want.differs(all); text != "" {
				return fmt.Errorf("as %s shows it, %s", name, text)
			}
			return nil
		}); err != nil {
			return err
		}
		if x.want.IKE != "" && x.want.ESP != "" {
			r.check("%s", strings.TrimPrefix(x.want.IKE, "~")+" / "+strings.TrimPrefix(x.want.ESP, "~"))
		}
	}
	return nil
}

// eventually tries until it succeeds or the context ends, and returns the last complaint.
func eventually(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ping pings the far host from the near one, over the tunnel: what crosses is ESP.
type ping struct {
	Family   string        `yaml:"family"`
	From     string        `yaml:"from"` // instead of host-a: an address of gateway a, a virtual one
	To       string        `yaml:"to"`   // instead of host-b: an address of gateway b
	Answered bool          `yaml:"answered"`
	First    bool          `yaml:"first"` // the very first must be answered, late rather than never
	Within   time.Duration `yaml:"within"`
}

func (a *ping) perform(ctx context.Context, r *run) error {
	h, err := r.network.hosts(a.Family)
	if err != nil {
		return err
	}
	if a.From != "" {
		h.near, h.a = a.From, r.network.gwA
	}
	if a.To != "" {
		h.far, h.b = a.To, r.network.gwB
	}
	before, err := r.network.capture.Figures()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Within)
	defer cancel()
	if !a.Answered && r.reference { // its kernel forwards what no tunnel takes
		return nil
	}
	patience := 500 * time.Millisecond
	if a.First {
		patience = a.Within
	}
	lost, err := h.ping(ctx, r.network.mark, patience)
	if !a.Answered {
		if err == nil {
			return fmt.Errorf("pings from %s to %s were answered, though nothing should let them pass", h.near, h.far)
		}
		r.check("nothing passes")
		return nil
	}
	if err == nil && a.First && lost > 0 {
		err = fmt.Errorf("the first %d pings from %s were not answered", lost, h.near)
	}
	if err != nil {
		return err
	}
	// The capture may lag behind on a busy machine.
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := eventually(waiting, func() error {
		after, err := r.network.capture.Figures()
		if sealed := after.ESP() - before.ESP(); err == nil && sealed < pingsNeeded {
			err = fmt.Errorf("pings from %s were answered, but only %d ESP packets of gateway a crossed", h.near, sealed)
		}
		return err
	}); err != nil {
		return err
	}
	r.check("IPv%s ping in ESP", a.Family)
	return nil
}

// streaming starts a counted stream each way.
type streaming struct {
	Family string `yaml:"family"`
	Rate   int    `yaml:"rate"` // datagrams a second, each way
}

func (a *streaming) perform(ctx context.Context, r *run) error {
	h, err := r.network.hosts(a.Family)
	if err != nil {
		return err
	}
	if r.stream != nil {
		return errors.New("a stream runs already")
	}
	r.dropped = r.drops(ctx)
	r.stream, err = rig.StartStream(h.a, h.near, h.b, h.far, a.Rate, r.network.mark)
	return err
}

// counted ends the stream; all of it must have arrived.
type counted struct{}

func (*counted) perform(ctx context.Context, r *run) error {
	if r.stream == nil {
		return errors.New("no stream runs")
	}
	flows := r.stream.End()
	r.stream = nil
	r.result.Streams = append(r.result.Streams, flows...)
	var sent uint64
	for _, f := range flows {
		sent += f.Sent
		if f.Lost > 0 {
			return fmt.Errorf("of %d datagrams from %s, %d got lost (%v ...)%s", f.Sent, f.Way, f.Lost, f.Gaps, r.newDrops(ctx))
		}
	}
	r.check("%d datagrams and none lost", sent)
	return nil
}

// transferring sends as much by TCP as needs full packets, each way at once, in one connection.
type transferring struct {
	Family    string        `yaml:"family"`
	OneWay    bool          `yaml:"one_way"`   // only from the gateway's host: the peer does not learn what is too large on its way, in a connection that is older
	Completes bool          `yaml:"completes"` // false: it must hang, although it begins
	Within    time.Duration `yaml:"within"`
}

func (a *transferring) perform(_ context.Context, r *run) error {
	h, err := r.network.hosts(a.Family)
	if err != nil {
		return err
	}
	begun, err := h.transfer(r.network.mark, a.OneWay, time.Now().Add(a.Within))
	switch {
	case !begun:
		return fmt.Errorf("no connection from %s to %s: %w", h.near, h.far, err)
	case a.Completes && err != nil:
		return err
	case !a.Completes && err == nil:
		return fmt.Errorf("a connection from %s to %s carried full packets, though nothing should let them pass", h.near, h.far)
	case !a.Completes:
		r.check("full packets get lost")
		return nil
	}
	if a.OneWay {
		r.check("%d KiB by TCP, begun before", transferSize>>10)
		return nil
	}
	r.check("%d KiB by TCP each way", transferSize>>10)
	return nil
}

// rekey has a side replace a child SA or, without one, the IKE SA, and waits until both sides have
// the new one and no old one.
type rekey struct {
	By         string        `yaml:"by"`
	Both       bool          `yaml:"both"` // the other side at the same time
	Due        bool          `yaml:"due"`  // nobody is told to: its time comes, or it is reauthenticated
	Within     time.Duration `yaml:"within"`
	Connection string        `yaml:"connection"`
	Child      string        `yaml:"child"`
}

func (a *rekey) perform(ctx context.Context, r *run) error {
	names := func(all []ikeSA) []string {
		var list []string
		for _, s := range all {
			if !s.Established { // being deleted, perhaps
				continue
			}
			if a.Child == "" {
				list = append(list, s.spis())
			}
			for _, c := range s.Children {
				if a.Child != "" {
					list = append(list, c.SPIIn)
				}
			}
		}
		return list
	}
	by, name, err := r.end(a.By)
	if err != nil {
		return err
	}
	old := map[string][]string{}
	for _, x := range []string{sallyport, strongswan} {
		e, _, _ := r.end(x)
		waiting, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := eventually(waiting, func() error {
			all, err := e.SAs(waiting)
			if err != nil {
				return err
			}
			if old[x] = names(all); len(old[x]) != 1 {
				return fmt.Errorf("%s has %d associations to rekey, not one", x, len(old[x]))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if a.Both {
		other, _, _ := r.end(map[string]string{sallyport: strongswan, strongswan: sallyport}[name])
		second := make(chan error, 1)
		go func() { second <- other.Rekey(ctx, a.Connection, a.Child) }()
		// Who is asked second may have been told already that its SA is gone.
		defer func() { <-second }()
		name = "both at once"
	}
	if !a.Due {
		if err := by.Rekey(ctx, a.Connection, a.Child); err != nil && !a.Both {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.Within)
	defer cancel()
	for _, x := range []string{sallyport, strongswan} {
		e, _, _ := r.end(x)
		if err := eventually(ctx, func() error {
			all, err := e.SAs(ctx)
			if err != nil {
				return err
			}
			if now := names(all); len(now) != 1 || now[0] == old[x][0] {
				return fmt.Errorf("after a rekey by %s, %s has %v, and had %v", name, x, now, old[x])
			}
			return nil
		}); err != nil {
			return err
		}
	}
	what := "child"
	if a.Child == "" {
		what = "IKE"
	}
	if a.Due {
		r.check("new %s SA by %s, unasked", what, name)
		return nil
	}
	r.check("%s rekeyed by %s", what, name)
	return nil
}

// power switches a side off or on.
type power struct {
	Side string `yaml:"side"`
	on   bool
}

func (a *power) perform(ctx context.Context, r *run) error {
	e, _, err := r.end(a.Side)
	if err != nil {
		return err
	}
	if a.on {
		return e.Start(ctx)
	}
	e.Kill()
	return nil
}

// silence cuts a side off from the transit network, or mends that.
type silence struct {
	Side string `yaml:"side"`
	down bool
}

func (a *silence) perform(_ context.Context, r *run) error {
	_, name, err := r.end(a.Side)
	if err != nil {
		return err
	}
	return r.network.silence(port(name == sallyport), a.down)
}

// moving gives a side another outer address.
type moving struct {
	Side string `yaml:"side"`
	From string `yaml:"from"`
	To   string `yaml:"to"`
}

func (a *moving) perform(_ context.Context, r *run) error {
	_, name, err := r.end(a.Side)
	if err != nil {
		return err
	}
	ns, _ := r.network.gateways(name)
	r.check("%s moves", name)
	return move(ns, a.From, a.To)
}

// routing leads what goes to a prefix out of an interface of a side.
type routing struct {
	Side string `yaml:"side"`
	To   string `yaml:"to"`
	Out  string `yaml:"out"`
}

func (a *routing) perform(_ context.Context, r *run) error {
	_, name, err := r.end(a.Side)
	if err != nil {
		return err
	}
	ns, _ := r.network.gateways(name)
	return ns.RouteOut(a.To, a.Out)
}

// rebinding makes the NAT forget its mappings.
type rebinding struct{}

func (*rebinding) perform(_ context.Context, r *run) error {
	r.check("NAT forgets")
	return r.network.rebind()
}

// losing makes the router between the gateways throw datagrams away at random.
type losing struct {
	Percent int `yaml:"percent"`
}

func (a *losing) perform(_ context.Context, r *run) error {
	if a.Percent > 0 {
		r.check("%d %% of all datagrams lost on the way", a.Percent)
	}
	return r.network.lose(a.Percent)
}

// narrowing gives the router's link on the way to the peer an MTU. The router says nothing of what is too large for it, neither way.
type narrowing struct {
	MTU int `yaml:"mtu"`
}

func (a *narrowing) perform(_ context.Context, r *run) error {
	r.check("a hop of %d bytes", a.MTU)
	return r.network.narrow(a.MTU)
}

// cutting makes one address of a side unreachable, or mends that.
type cutting struct {
	Address string `yaml:"address"`
}

func (a *cutting) perform(_ context.Context, r *run) error {
	if a.Address != "" {
		r.check("%s is cut off", a.Address)
	}
	return r.network.cut(a.Address)
}

// forgetting makes the NAT forget mappings that are silent.
type forgetting struct {
	After time.Duration `yaml:"after"`
}

func (a *forgetting) perform(_ context.Context, r *run) error {
	return r.network.forget(int(a.After / time.Second))
}

// answering tells the OCSP responders what to say from now on.
type answering struct {
	With string `yaml:"with"`
}

func (a *answering) perform(_ context.Context, r *run) error {
	if r.authority == nil {
		return errors.New("this scenario has no certificates")
	}
	return r.authority.answer(a.With)
}

// revoking has the authority of a side revoke its certificate.
type revoking struct {
	Side string `yaml:"side"`
}

func (a *revoking) perform(_ context.Context, r *run) error {
	if r.authority == nil {
		return errors.New("this scenario has no certificates")
	}
	return r.authority.revoke(a.Side)
}

// flood leaves half-open exchanges with a side.
type flood struct {
	Side  string `yaml:"side"`
	Count int    `yaml:"count"`
	To    string `yaml:"to"` // its address
}

func (a *flood) perform(_ context.Context, r *run) error {
	_, name, err := r.end(a.Side)
	if err != nil {
		return err
	}
	_, from := r.network.gateways(name)
	return leaveHalfOpen(from, a.To, a.Count)
}

// logged waits for lines in the logs of this run, each a regular expression. What the gateway
// writes is not looked for while strongSwan plays its part.
type logged struct {
	Sallyport  []string      `yaml:"sallyport"`
	StrongSwan []string      `yaml:"strongswan"`
	Initiator  []string      `yaml:"initiator_strongswan"` // only where strongSwan is the initiator
	Responder  []string      `yaml:"responder_strongswan"` // only where it is the responder
	Shows      string        `yaml:"shows"`                // what that proves, in a few words
	Within     time.Duration `yaml:"within"`
}

func (a *logged) perform(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, a.Within)
	defer cancel()
	peers := slices.Clone(a.StrongSwan)
	if r.initiator == strongswan {
		peers = append(peers, a.Initiator...)
	} else {
		peers = append(peers, a.Responder...)
	}
	for _, x := range []struct {
		name     string
		patterns []string
	}{{sallyport, a.Sallyport}, {strongswan, peers}} {
		if x.name == sallyport && r.reference {
			continue
		}
		for _, pattern := range x.patterns {
			expression, err := regexp.Compile(pattern)
			if err != nil {
				return err
			}
			if err := eventually(ctx, func() error {
				text, err := r.log(x.name)
				if err == nil && !expression.Match(text) {
					err = fmt.Errorf("the log of %s has no line like %q", x.name, pattern)
				}
				return err
			}); err != nil {
				return err
			}
		}
	}
	r.check("%s", a.Shows)
	return nil
}

// pause lets time pass.
type pause struct {
	For time.Duration `yaml:"for"`
}

func (a *pause) perform(ctx context.Context, _ *run) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(a.For):
		return nil
	}
}
