package main

import (
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/control"
)

func (t *tool) recorderCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "recorder CONNECTION[/CHILD] | SPI", Short: "Show the last packets of an association and what became of them",
		Long: "Recorder shows what the flight recorder of each association holds: the headers of the last packets that passed, at most\n" +
			"one in 8 ms, and of the last that were dropped. It always runs. What it held when a burst of errors began\n" +
			"is kept and shown first, even when the association is gone.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%wrecorder takes one name or SPI: sallyport recorder site-b/net, or recorder 0x00001001", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var f control.Flights
			if printed, err := t.ask(cmd, control.VerbRecorder, control.FlightQuery{Name: args[0]}, &f); printed || err != nil {
				return err
			}
			for i := range f.Flights {
				t.flight(&f.Flights[i])
			}
			return nil
		},
	}
	c.Flags().BoolVar(&t.json, "json", false, "print JSON with stable field names")
	return c
}

func (t *tool) flight(f *control.Flight) {
	fmt.Fprintf(t.out, "%s %s  spi %s", f.Name, f.Direction, f.SPI)
	if f.Burst != "" {
		fmt.Fprintf(t.out, ", kept at %s, when a burst of %s began", f.Time.Format(time.TimeOnly), f.Burst)
	}
	if f.Ended {
		fmt.Fprint(t.out, ", ended")
	}
	fmt.Fprintf(t.out, "; %d that passed recorded, %d dropped\n", f.Passed, f.Dropped)
	for i := range f.Packets {
		p := &f.Packets[i]
		verdict, addresses := "passed", "header not readable"
		if p.Drop != "" {
			verdict = "dropped: " + p.Drop
		}
		if p.Source != "" {
			addresses = end(p.Source, p.SourcePort) + " > " + end(p.Destination, p.DestPort)
		}
		kind := "inner"
		if p.Outer {
			kind = "outer"
		}
		fmt.Fprintf(t.out, "  %s  %s %s, protocol %d, %d bytes, TTL %d", p.Time.Format("15:04:05.000000"), kind, addresses, p.Protocol, p.Length, p.TTL)
		if p.Fragment {
			fmt.Fprint(t.out, ", fragment")
		}
		if p.Sequence != 0 {
			fmt.Fprintf(t.out, ", sequence %d", p.Sequence)
		}
		fmt.Fprintf(t.out, "  %s\n", verdict)
	}
}

// end writes an address with its port, if there is one.
func end(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return net.JoinHostPort(addr, fmt.Sprint(port))
}
