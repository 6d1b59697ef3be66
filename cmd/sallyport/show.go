package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/control"
)

func (t *tool) status(cmd *cobra.Command, _ []string) error {
	var s control.Status
	if printed, err := t.ask(cmd, control.VerbStatus, nil, &s); printed || err != nil {
		return err
	}
	fmt.Fprintf(t.out, "sallyportd %s, instance %s, pid %d, up %s\n", s.Version, s.Instance, s.PID, time.Duration(s.UptimeSeconds*float64(time.Second)).Round(time.Second))
	fmt.Fprintf(t.out, "configuration %s, %s, %s\n", s.ConfigPath, count(s.Connections, "connection"), count(s.Policies, "policy"))
	k := s.IKE
	fmt.Fprintf(t.out, "IKE: %s (%d half-open), %s; established %d, rekeyed %d; messages: %d received, %d sent, %d sent again\n",
		count(k.SAs, "IKE SA"), k.HalfOpen, count(s.Associations, "association"), k.Established, k.Rekeyed, k.Received, k.Sent, k.Retransmitted)
	if s.ManualKeys > 0 {
		fmt.Fprintf(t.out, "MANUAL KEYS: the keys of %s come from the configuration file\n", count(s.ManualKeys, "association"))
	}
	for _, w := range s.Warnings {
		fmt.Fprintln(t.out, "warning:", w)
	}
	p := s.Totals
	fmt.Fprintf(t.out, "received %d, originated %d, sent %d, to the kernel %d, to IKE %d, merged %d, dropped %d\n\n", p.Received, p.Originated, p.Sent, p.Punted, p.Delivered, p.Merged, p.Dropped)
	t.table("WORKER\tCORE\tBUSY\tIN\tOUT\tDROPS\tHANDOVERS\tSLEEPS\tFREE FRAMES", func(w io.Writer) {
		for _, k := range s.Workers {
			fmt.Fprintf(w, "%d\t%s\t%.0f %%\t%d\t%d\t%d\t%d\t%d\t%d\n", k.Worker, core(k.Core), k.Busy*100, k.PacketsIn, k.PacketsOut, k.Drops, k.Handovers, k.Sleeps, k.FramesFree)
		}
	})
	fmt.Fprintln(t.out)
	t.table("INTERFACE\tROLE\tSTATE\tMTU\tQUEUES\tMODE\tWHY", func(w io.Writer) {
		for _, p := range s.Ports {
			state := "down"
			if p.Up {
				state = "up"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", p.Name, p.Role, state, p.MTU, len(p.Queues), p.Mode, p.Reason)
		}
	})
	return nil
}

// count writes a number of things.
func count(n int, noun string) string {
	switch stem, y := strings.CutSuffix(noun, "y"); {
	case n == 1:
		return "1 " + noun
	case y:
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// core writes a worker's core; a worker may be bound to none.
func core(n int) string {
	if n < 0 {
		return "any"
	}
	return fmt.Sprint(n)
}

func (t *tool) sasCommand() *cobra.Command {
	var q control.SAQuery
	c := &cobra.Command{Use: "sas", Short: "List the security associations", RunE: func(cmd *cobra.Command, _ []string) error {
		var s control.SAs
		if printed, err := t.ask(cmd, control.VerbSAs, q, &s); printed || err != nil {
			return err
		}
		t.sas(s)
		return nil
	}}
	c.Flags().StringVar(&q.Name, "name", "", "only those of this CONNECTION/CHILD")
	c.Flags().IntVar(&q.Limit, "limit", 0, "at most this many (default 1000)")
	return c
}

func (t *tool) sas(s control.SAs) {
	now := time.Now()
	for i := range s.IKESAs {
		t.ikeSA(&s.IKESAs[i], now)
	}
	manual := 0
	for _, a := range s.SAs {
		if a.Manual {
			manual++
			t.manualSA(a, now)
		}
	}
	if len(s.SAs) < s.Total || len(s.IKESAs) < s.TotalIKE {
		fmt.Fprintf(t.out, "%d of %d IKE SAs and %d of %d associations shown; see --limit and --name\n", len(s.IKESAs), s.TotalIKE, len(s.SAs), s.Total)
	}
	if s.Total == 0 && s.TotalIKE == 0 {
		fmt.Fprintln(t.out, "no associations")
	}
}

// ikeSA prints one IKE SA with its children, line by line in the order of swanctl --list-sas.
func (t *tool) ikeSA(s *control.IKESA, now time.Time) {
	name, initiates, responds := s.Name, "", ""
	if name == "" {
		name = "(unknown)"
	}
	if s.Initiator {
		initiates = "*"
	} else {
		responds = "*"
	}
	fmt.Fprintf(t.out, "%s: #%d, %s, IKEv%d, %s_i%s %s_r%s\n", name, s.Number, strings.ToUpper(s.State), s.Version, s.InitiatorSPI, initiates, s.ResponderSPI, responds)
	end := func(side, id, host string, port uint16, nat bool, vips []string) {
		fmt.Fprintf(t.out, "  %-6s '%s' @ %s[%d]", side, id, host, port)
		if len(vips) > 0 {
			fmt.Fprintf(t.out, " [%s]", strings.Join(vips, " "))
		}
		if nat {
			fmt.Fprint(t.out, " behind NAT")
		}
		fmt.Fprintln(t.out)
	}
	end("local", s.LocalID, s.LocalHost, s.LocalPort, s.NATLocal, s.LocalVIPs)
	end("remote", s.RemoteID, s.RemoteHost, s.RemotePort, s.NATRemote, s.RemoteVIPs)
	if s.Proposal != "" {
		fmt.Fprintf(t.out, "  %s\n", s.Proposal)
	}
	var times []string
	times = append(times, since("established", s.EstablishedAt, now)...)
	times = append(times, until("rekeying", s.RekeyAt, now)...)
	times = append(times, until("reauthenticating", s.ReauthAt, now)...)
	if len(times) > 0 {
		fmt.Fprintf(t.out, "  %s\n", strings.Join(times, ", "))
	}
	if s.Waiting || s.Queued > 0 {
		fmt.Fprintf(t.out, "  active: %d, queued: %d\n", map[bool]int{true: 1}[s.Waiting], s.Queued)
	}
	fmt.Fprintf(t.out, "  MOBIKE %s, fragmentation %s, path MTU probing %s, IKE worker %d\n", onOff(s.MOBIKE), onOff(s.Fragmentation), s.PathProbing, s.Worker)
	for i := range s.Children {
		t.childSA(&s.Children[i], now)
	}
}

func (t *tool) childSA(c *control.ChildSA, now time.Time) {
	udp := ""
	if c.Encap == "udp" {
		udp = "-in-UDP"
	}
	fmt.Fprintf(t.out, "  %s: #%d, reqid %d, %s, %s%s, %s:%s\n", c.Name, c.Number, c.Tunnel, strings.ToUpper(c.State), strings.ToUpper(c.Mode), udp, c.Protocol, c.Proposal)
	times := slices.Concat(since("installed", c.InstalledAt, now), until("rekeying", c.RekeyAt, now), until("expires", c.ExpireAt, now))
	fmt.Fprintf(t.out, "    %s\n", strings.Join(times, ", "))
	line := func(direction string, d *control.Direction) {
		fmt.Fprintf(t.out, "    %-3s %s, %6d bytes, %5d packets", direction, d.SPI, d.Bytes, d.Packets)
		if !d.LastUsed.IsZero() {
			fmt.Fprintf(t.out, ", %5ds ago", max(0, int(now.Sub(d.LastUsed).Seconds())))
		}
		worker := "none"
		if d.Worker >= 0 {
			worker = fmt.Sprint(d.Worker)
		}
		fmt.Fprintf(t.out, "; sequence %d, worker %s", d.Sequence, worker)
		if d.Window > 0 {
			fmt.Fprintf(t.out, ", window %d", d.Window)
		}
		drops := uint64(0)
		var why []string
		for _, x := range d.Drops {
			drops += x.Packets
			why = append(why, fmt.Sprintf("%s %d", x.Name, x.Packets))
		}
		fmt.Fprintf(t.out, ", drops %d", drops)
		if len(why) > 0 {
			fmt.Fprintf(t.out, " (%s)", strings.Join(why, ", "))
		}
		fmt.Fprintln(t.out)
		for _, more := range [][]string{path(&d.Path, now), volume(&d.Volume, d.Bytes, d.Packets), d.Terms} {
			if len(more) > 0 {
				fmt.Fprintf(t.out, "        %s\n", strings.Join(more, ", "))
			}
		}
	}
	line("in", &c.In)
	line("out", &c.Out)
	if c.Interface != "" {
		fmt.Fprintf(t.out, "    interface %s%s\n", c.Interface, within(c.Encapsulation))
	}
	fmt.Fprintf(t.out, "    local  %s\n    remote %s\n", strings.Join(c.LocalTS, " "), strings.Join(c.RemoteTS, " "))
}

// path says how large packets may be on the way to the peer, how that is known, and what became of larger ones.
func path(p *control.Path, now time.Time) (list []string) {
	if p.InnerMTU > 0 {
		list = append(list, fmt.Sprintf("packets up to %d bytes", p.InnerMTU))
	}
	if p.MTU > 0 {
		list = append(list, fmt.Sprintf("MTU %d as configured", p.MTU))
	}
	if p.PathMTU > 0 {
		how := "told by ICMP"
		if p.PathMTUProbed {
			how = "probed"
		}
		list = append(list, fmt.Sprintf("path MTU %d %s", p.PathMTU, strings.Join(slices.Concat(since(how, p.PathMTUAt, now), until("forgotten", p.PathMTUUntil, now)), ", ")))
	}
	if p.Fragmented > 0 {
		list = append(list, fmt.Sprintf("%d cut up before encryption", p.Fragmented))
	}
	if p.FragmentedESP > 0 {
		list = append(list, fmt.Sprintf("%d cut up after encryption", p.FragmentedESP))
	}
	return list
}

// scarce is how few sequence numbers are left when that is worth a word.
const scarce = 1 << 30

// volume says how much of what may be carried is left.
func volume(v *control.Volume, bytes, packets uint64) (list []string) {
	for _, x := range []struct {
		what        string
		bound, used uint64
		unit        string
	}{
		{"rekeying after", v.RekeyBytes, bytes, "bytes"}, {"ends after", v.LifeBytes, bytes, "bytes"},
		{"rekeying after", v.RekeyPackets, packets, "packets"}, {"ends after", v.LifePackets, packets, "packets"},
	} {
		if x.bound > 0 {
			list = append(list, fmt.Sprintf("%s %d more %s", x.what, x.bound-min(x.used, x.bound), x.unit))
		}
	}
	if v.SequenceLeft > 0 && v.SequenceLeft < scarce {
		list = append(list, fmt.Sprintf("%d sequence numbers left", v.SequenceLeft))
	}
	return list
}

func since(what string, at, now time.Time) []string {
	if at.IsZero() {
		return nil
	}
	return []string{fmt.Sprintf("%s %ds ago", what, max(0, int(now.Sub(at).Seconds())))}
}

func until(what string, at, now time.Time) []string {
	if at.IsZero() {
		return nil
	}
	return []string{fmt.Sprintf("%s in %ds", what, max(0, int(at.Sub(now).Seconds())))}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// within says what an interface puts its packets into.
func within(encapsulation string) string {
	if encapsulation == "" {
		return ""
	}
	return ", packets in " + encapsulation
}

// manualSA prints an association with keys from the configuration file.
func (t *tool) manualSA(a control.SA, now time.Time) {
	fmt.Fprintf(t.out, "%s %s  spi %s  %s → %s   MANUAL KEYS\n", a.Name, a.Direction, a.SPI, source(a), target(a))
	esn, worker := "noesn", "none"
	if a.ESN {
		esn = "esn"
	}
	if a.Worker >= 0 {
		worker = fmt.Sprint(a.Worker)
	}
	fmt.Fprintf(t.out, "  suite %s, %s", a.Suite, esn)
	switch {
	case a.Protocol == "AH" && a.Bundled != "":
		fmt.Fprintf(t.out, ", AH around ESP %s", a.Bundled)
	case a.Protocol == "AH":
		fmt.Fprint(t.out, ", AH")
	case a.Bundled != "":
		fmt.Fprintf(t.out, ", in AH %s", a.Bundled)
	}
	if a.Mode == "transport" {
		fmt.Fprint(t.out, ", transport mode")
	}
	if a.Encap == "udp" {
		fmt.Fprint(t.out, ", in UDP")
	}
	if a.Interface != "" {
		fmt.Fprintf(t.out, ", interface %s%s", a.Interface, within(a.Encapsulation))
	}
	if a.Window > 0 {
		fmt.Fprintf(t.out, ", replay window %d", a.Window)
	}
	fmt.Fprintf(t.out, ", worker %s\n  %d packets, %d bytes, sequence %d\n", worker, a.Packets, a.Bytes, a.Sequence)
	fmt.Fprintf(t.out, "  %s === %s\n", strings.Join(a.LocalTS, " "), strings.Join(a.RemoteTS, " "))
	if len(a.Terms) > 0 {
		fmt.Fprintf(t.out, "  %s\n", strings.Join(a.Terms, "; "))
	}
	for _, more := range [][]string{path(&a.Path, now), volume(&a.Volume, a.Bytes, a.Packets)} {
		if len(more) > 0 {
			fmt.Fprintf(t.out, "  %s\n", strings.Join(more, ", "))
		}
	}
	for _, d := range a.Drops {
		if d.Packets > 0 {
			fmt.Fprintf(t.out, "  dropped %d: %s\n", d.Packets, d.Name)
		}
	}
}

// actCommand makes the command of a verb that acts on a connection or a child.
func (t *tool) actCommand(verb, short string) *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use: verb + " CONNECTION[/CHILD]", Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w%s takes one name: sallyport %s CONNECTION or CONNECTION/CHILD", errUsage, verb, verb)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit <= 0 {
				return fmt.Errorf("%w--timeout is more than 0", errUsage)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit+5*time.Second)
			defer cancel()
			var d control.Done
			raw, err := control.NewClient(t.path()).Do(ctx, verb, control.Target{Name: args[0], TimeoutSeconds: limit.Seconds()}, &d)
			if err != nil {
				return err
			}
			if t.json {
				return t.print(raw)
			}
			fmt.Fprintf(t.out, "%s %s: done in %.3f s\n", verb, args[0], d.Seconds)
			return nil
		},
	}
	c.Flags().DurationVar(&limit, "timeout", 30*time.Second, "how long to wait")
	c.Flags().BoolVar(&t.json, "json", false, "print JSON with stable field names")
	return c
}

// connections prints the connections in the order of swanctl --list-conns.
func (t *tool) connections(cmd *cobra.Command, _ []string) error {
	var s control.Connections
	if printed, err := t.ask(cmd, control.VerbConnections, nil, &s); printed || err != nil {
		return err
	}
	list := func(words []string, empty string) string {
		if len(words) == 0 {
			return empty
		}
		return strings.Join(words, " ")
	}
	for _, c := range s.Connections {
		fmt.Fprintf(t.out, "%s: IKEv2, %s established, priority %d\n", c.Name, count(c.IKESAs, "IKE SA"), c.Priority)
		fmt.Fprintf(t.out, "  local:  %s\n  remote: %s\n", list(c.LocalAddrs, "%any"), list(c.RemoteAddrs, "%any"))
		for _, side := range []struct{ name, auth, id string }{{"local", c.LocalAuth, c.LocalID}, {"remote", c.RemoteAuth, c.RemoteID}} {
			how := map[string]string{"psk": "pre-shared key", "pubkey": "public key"}[side.auth]
			fmt.Fprintf(t.out, "  %s %s authentication", side.name, how)
			if side.id != "" {
				fmt.Fprintf(t.out, ", id %s", side.id)
			}
			fmt.Fprintln(t.out)
		}
		fmt.Fprintf(t.out, "  proposals: %s\n", strings.Join(c.Proposals, ", "))
		if len(c.Pools) > 0 {
			fmt.Fprintf(t.out, "  pools: %s\n", strings.Join(c.Pools, " "))
		}
		for _, child := range c.Children {
			fmt.Fprintf(t.out, "  %s: %s, start_action %s, %d installed\n", child.Name, strings.ToUpper(child.Mode), child.StartAction, child.Installed)
			fmt.Fprintf(t.out, "    local:  %s\n    remote: %s\n    proposals: %s\n", strings.Join(child.LocalTS, " "), strings.Join(child.RemoteTS, " "), strings.Join(child.Proposals, ", "))
		}
	}
	if len(s.Connections) == 0 {
		fmt.Fprintln(t.out, "no connections")
	}
	return nil
}

func source(a control.SA) string {
	if a.Direction == "in" {
		return a.Remote
	}
	return a.Local
}

func target(a control.SA) string {
	if a.Direction == "in" {
		return a.Local
	}
	return a.Remote
}

func (t *tool) policies(cmd *cobra.Command, _ []string) error {
	var p control.Policies
	if printed, err := t.ask(cmd, control.VerbPolicies, nil, &p); printed || err != nil {
		return err
	}
	t.table("#\tNAME\tACTION\tLOCAL\tREMOTE\tSTATE", func(w io.Writer) {
		for _, e := range p.Policies {
			state := ""
			if e.Action == "protect" {
				state = "no association: dropped"
				if e.Ready {
					state = "ready"
				}
				if e.Negotiated {
					state += ", negotiated"
				}
				if e.Interface != "" {
					state += ", by routes into " + e.Interface
				}
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Index, e.Name, e.Action, strings.Join(e.LocalTS, " "), strings.Join(e.RemoteTS, " "), state)
		}
	})
	fmt.Fprintf(t.out, "everything else: %s\n", p.Unmatched)
	return nil
}

func (t *tool) countersCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{Use: "counters", Short: "Show drops by reason, XDP verdicts and socket statistics", RunE: func(cmd *cobra.Command, _ []string) error {
		var c control.Counters
		if printed, err := t.ask(cmd, control.VerbCounters, nil, &c); printed || err != nil {
			return err
		}
		t.counters(c, all)
		return nil
	}}
	c.Flags().BoolVar(&all, "all", false, "show counters that are zero too")
	return c
}

func (t *tool) counters(c control.Counters, all bool) {
	p := c.Totals
	fmt.Fprintf(t.out, "received %d + originated %d; sent %d + to the kernel %d + to IKE %d + merged %d + dropped %d\n\n", p.Received, p.Originated, p.Sent, p.Punted, p.Delivered, p.Merged, p.Dropped)
	if p.Dropped == 0 && !all {
		fmt.Fprintln(t.out, "no packet was dropped")
	} else {
		t.drops("DROPS\tPACKETS", c.Drops, all)
	}
	fmt.Fprintln(t.out)
	if f := p.Fragments; all || f != (control.Fragments{}) {
		fmt.Fprintf(t.out, "fragments: %d packets cut up before encryption, %d after it; %d put together\n\n", f.Fragmented, f.FragmentedESP, f.Reassembled)
	}
	if all || c.Paths != (control.Paths{}) {
		fmt.Fprintf(t.out, "ICMP errors about ESP: path MTU learned %d, forgotten %d; unreachable %d; implausible %d, nothing new %d\n",
			c.Paths.Learned, c.Paths.Forgotten, c.Paths.Unreachable, c.Paths.Implausible, c.Paths.Stale)
		fmt.Fprintf(t.out, "path MTU probed: %d results, %d lower, %d higher than before\n\n", c.Paths.Probed, c.Paths.Lowered, c.Paths.Raised)
	}
	t.exchanges(c, all)
	if all || c.SteeringFailed > 0 {
		fmt.Fprintf(t.out, "changes of the steering program's maps that failed, and were tried again: %d\n\n", c.SteeringFailed)
	}
	t.table("XDP\tPACKETS\tMEANING", func(w io.Writer) {
		for _, x := range c.XDP {
			if all || x.Value > 0 {
				fmt.Fprintf(w, "%s\t%d\t%s\n", x.Name, x.Value, x.Sentence)
			}
		}
	})
	fmt.Fprintln(t.out)
	// How often the kernel found nothing to send is no fault: it looks once more after every burst.
	head, more := "SOCKET\tWORKER\tRECEIVED\tSENT\tRX DROPPED\tRX INVALID\tTX INVALID\tRX RING FULL\tFILL EMPTY", ""
	if all {
		head += "\tTX IDLE"
	}
	t.table(head, func(w io.Writer) {
		for _, port := range c.Ports {
			for _, q := range port.Queues {
				if all {
					more = fmt.Sprintf("\t%d", q.TxEmpty)
				}
				fmt.Fprintf(w, "%s/%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d%s\n", port.Name, q.Queue, q.Worker, q.Received, q.Sent, q.RxDropped, q.RxInvalid, q.TxInvalid, q.RxRingFull, q.FillEmpty, more)
			}
		}
	})
}

// exchanges prints what IKE counts.
func (t *tool) exchanges(c control.Counters, all bool) {
	k := c.IKE
	if k.Received+k.Sent == 0 && !all {
		return
	}
	t.table("IKE EXCHANGE\tDONE\tFAILED", func(w io.Writer) {
		for _, x := range k.Exchanges {
			if all || x.Done+x.Failed > 0 {
				fmt.Fprintf(w, "%s\t%d\t%d\n", x.Name, x.Done, x.Failed)
			}
		}
	})
	fmt.Fprintf(t.out, "IKE SAs: %d now, %d half-open; established %d, rekeyed %d, ended %d\n", k.SAs, k.HalfOpen, k.Established, k.Rekeyed, k.Ended)
	fmt.Fprintf(t.out, "children: up %d, rekeyed %d, removed %d, failed %d\n", k.ChildrenUp, k.ChildrenRekeyed, k.ChildrenRemoved, k.ChildrenFailed)
	fmt.Fprintf(t.out, "messages: received %d, sent %d, requests sent again %d, answers sent again %d; hints %d, panics %d\n", k.Received, k.Sent, k.Retransmitted, k.Repeated, k.Hints, k.Panics)
	if all || slices.ContainsFunc(c.Reasons, func(d control.Drop) bool { return d.Packets > 0 }) {
		t.drops("IKE REASONS\tCOUNT", c.Reasons, all)
	}
	fmt.Fprintln(t.out)
}

func (t *tool) drops(title string, drops []control.Drop, all bool) {
	t.table(title+"\tSEVERITY\tMEANING", func(w io.Writer) {
		for _, d := range drops {
			if all || d.Packets > 0 {
				sentence := d.Sentence
				if d.Source != "" {
					sentence += " (" + d.Source + ")"
				}
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", d.Name, d.Packets, d.Severity, sentence)
			}
		}
	})
}

func (t *tool) reload(cmd *cobra.Command, _ []string) error {
	var r control.Reload
	if printed, err := t.ask(cmd, control.VerbReload, nil, &r); printed || err != nil {
		return err
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(t.out, "warning:", w)
	}
	fmt.Fprintf(t.out, "reloaded: %s", count(r.Connections, "connection"))
	if r.Installed+r.Removed+r.Unchanged > 0 {
		fmt.Fprintf(t.out, "; manual keys: %d installed, %d removed, %d untouched", r.Installed, r.Removed, r.Unchanged)
	}
	for _, c := range []struct {
		changed bool
		name    string
	}{{r.PoliciesChanged, "policies"}, {r.EndpointsChanged, "endpoints"}, {r.PortsChanged, "interfaces"}, {r.LogLevelChanged, "log level"}} {
		if c.changed {
			fmt.Fprintf(t.out, "; %s changed", c.name)
		}
	}
	fmt.Fprintln(t.out)
	return nil
}
