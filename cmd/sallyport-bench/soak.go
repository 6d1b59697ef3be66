package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/soak"
)

func soakCommand(stdout, stderr io.Writer) *cobra.Command {
	o := soak.Options{}
	var out output
	c := &cobra.Command{
		Use:   "soak",
		Short: "Keep two gateways under traffic, rekeys and faults, for minutes or hours",
		Long: "Soak runs two gateways in network namespaces, with keys by IKE and datagrams of mixed sizes both ways over IPv4 and IPv6.\n" +
			"Keys are renewed, configurations reloaded, a link goes down and a daemon is killed, in turn; each time traffic has to\n" +
			"come back, and the longest outage by each is told. The first minute is compared with the last: throughput, round trips,\n" +
			"memory, garbage collection. A capture between the gateways, which first has to catch a packet in the clear, must see no\n" +
			"plaintext and no (SPI, IV) twice. The first and the last minute (a quarter of a short run) have no faults. Needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Command = commandLine()
			file := newFile() // the gateways run meanwhile, so that looks at the machine in between would see these
			o.Progress = func(what string) { fmt.Fprintln(stderr, what) }
			rows, err := soak.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			file.Miss("soak/memory/goroutines", "sallyportd does not tell their number; its threads are counted instead")
			return out.report(file, rows, "%.4g", stdout)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Bin, "bin", "build", "folder of sallyportd and sallyport")
	f.DurationVar(&o.Duration, "duration", 10*time.Minute, "time of the traffic")
	f.DurationVar(&o.Every, "every", 10*time.Second, "time from one rekey or fault to the next")
	f.IntVar(&o.Rate, "rate", 500, "datagrams a second of each of the four streams")
	out.flags(f, "")
	return c
}
