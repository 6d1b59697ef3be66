package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/ike"
)

func ikeCommand(stdout, stderr io.Writer) *cobra.Command {
	o := ike.Options{}
	var out output
	c := &cobra.Command{
		Use:   "ike",
		Short: "Measure the key exchange: handshakes, rekeys, memory, spoofed requests",
		Long: "Ike sets up tunnels between two servers of this process over the loopback, both ends on the same cores; with the\n" +
			"path of strongSwan's charon, in --peer or " + ike.PeerVariable + ", the same between charon and itself, in turn. charon must have\n" +
			"its load-tester plugin (bench/ike/strongswan.sh builds one from Debian's source); that needs root. Figures a CPU\n" +
			"second are over the processor time of both ends, and the ones to compare on a machine with other work. The measurements\n" +
			"called daemons-... are of two sallyportd in network namespaces, which needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Command = commandLine()
			file := newFile()
			o.Progress = func(what string) {
				file.Calibrate()
				fmt.Fprintln(stderr, what)
			}
			o.Miss = file.Miss
			defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the daemon does
			rows, err := ike.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			return out.report(file, rows, "%.6g", stdout)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Peer, "peer", os.Getenv(ike.PeerVariable), "path of strongSwan's charon")
	f.StringSliceVar(&o.Which, "measure", ike.Measurements[:4], "what to measure, of "+strings.Join(ike.Measurements, ", "))
	f.IntVar(&o.Runs, "runs", 5, "samples of each, taken in turn; the median counts")
	withinFlag(f, &o.Within)
	f.IntVar(&o.Handshakes, "handshakes", 2000, "handshakes in one sample")
	f.IntVar(&o.Tunnels, "tunnels", 10_000, "tunnels to set up")
	f.IntVar(&o.Flood, "flood", 50_000, "spoofed requests a second")
	f.DurationVar(&o.Overload, "overload", time.Minute, "how long a tunnel is offered twice what it carries")
	f.StringVar(&o.Bin, "bin", "build", "folder of sallyportd and sallyport")
	out.flags(f, "")
	return c
}
