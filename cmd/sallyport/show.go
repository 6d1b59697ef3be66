package main

import (
	"fmt"
	"io"
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
	fmt.Fprintf(t.out, "configuration %s, %s, %s\n", s.ConfigPath, count(s.Policies, "policy"), count(s.Associations, "association"))
	if s.ManualKeys > 0 {
		fmt.Fprintf(t.out, "MANUAL KEYS: the keys of %s come from the configuration file\n", count(s.ManualKeys, "association"))
	}
	for _, w := range s.Warnings {
		fmt.Fprintln(t.out, "warning:", w)
	}
	p := s.Totals
	fmt.Fprintf(t.out, "received %d, originated %d, sent %d, to the kernel %d, to IKE %d, dropped %d\n\n", p.Received, p.Originated, p.Sent, p.Punted, p.Delivered, p.Dropped)
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
	for _, a := range s.SAs {
		mark := ""
		if a.Manual {
			mark = "   MANUAL KEYS"
		}
		fmt.Fprintf(t.out, "%s %s  spi %s  %s → %s%s\n", a.Name, a.Direction, a.SPI, source(a), target(a), mark)
		esn, worker := "noesn", "none"
		if a.ESN {
			esn = "esn"
		}
		if a.Worker >= 0 {
			worker = fmt.Sprint(a.Worker)
		}
		fmt.Fprintf(t.out, "  suite %s, %s", a.Suite, esn)
		if a.Encap == "udp" {
			fmt.Fprint(t.out, ", in UDP")
		}
		if a.Window > 0 {
			fmt.Fprintf(t.out, ", replay window %d", a.Window)
		}
		fmt.Fprintf(t.out, ", worker %s\n  %d packets, %d bytes, sequence %d\n", worker, a.Packets, a.Bytes, a.Sequence)
		fmt.Fprintf(t.out, "  %s === %s\n", strings.Join(a.LocalTS, " "), strings.Join(a.RemoteTS, " "))
		for _, d := range a.Drops {
			if d.Packets > 0 {
				fmt.Fprintf(t.out, "  dropped %d: %s\n", d.Packets, d.Name)
			}
		}
	}
	if len(s.SAs) < s.Total {
		fmt.Fprintf(t.out, "%d of %d shown; see --limit and --name\n", len(s.SAs), s.Total)
	}
	if s.Total == 0 {
		fmt.Fprintln(t.out, "no associations")
	}
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
	fmt.Fprintf(t.out, "received %d + originated %d; sent %d + to the kernel %d + to IKE %d + dropped %d\n\n", p.Received, p.Originated, p.Sent, p.Punted, p.Delivered, p.Dropped)
	if p.Dropped == 0 && !all {
		fmt.Fprintln(t.out, "no packet was dropped")
	} else {
		t.drops(c.Drops, all)
	}
	fmt.Fprintln(t.out)
	t.table("XDP\tPACKETS\tMEANING", func(w io.Writer) {
		for _, x := range c.XDP {
			if all || x.Value > 0 {
				fmt.Fprintf(w, "%s\t%d\t%s\n", x.Name, x.Value, x.Sentence)
			}
		}
	})
	fmt.Fprintln(t.out)
	t.table("SOCKET\tWORKER\tRECEIVED\tSENT\tRX DROPPED\tRX INVALID\tTX INVALID\tRX RING FULL\tFILL EMPTY\tTX EMPTY", func(w io.Writer) {
		for _, port := range c.Ports {
			for _, q := range port.Queues {
				fmt.Fprintf(w, "%s/%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", port.Name, q.Queue, q.Worker, q.Received, q.Sent, q.RxDropped, q.RxInvalid, q.TxInvalid, q.RxRingFull, q.FillEmpty, q.TxEmpty)
			}
		}
	})
}

func (t *tool) drops(drops []control.Drop, all bool) {
	t.table("DROPS\tPACKETS\tSEVERITY\tMEANING", func(w io.Writer) {
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
	fmt.Fprintf(t.out, "reloaded: associations: %d installed, %d removed, %d untouched", r.Installed, r.Removed, r.Unchanged)
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
