package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sallyport/bench/peers"
	"sallyport/bench/secgw"
)

func peersCommand(stdout, stderr io.Writer) *cobra.Command {
	o := peers.Options{Log: stderr}
	var out output
	c := &cobra.Command{
		Use:   "peers",
		Short: "Measure beside DPDK's ipsec-secgw and libipsec-mb, in turn, on one core",
		Long: "Peers installs dpdk, libdpdk-dev and libipsec-mb-dev of Debian if they are missing, builds ipsec-secgw from the\n" +
			"sources in dpdk-doc, and measures in turn, on the same core and with packets made alike: the whole gateway from\n" +
			"memory to memory against ipsec-secgw in each of its modes, of which the best counts; and the cipher against\n" +
			"libipsec-mb's direct call and crypto/cipher. Ours has ESN and a replay window of 4096, the peer neither. Ratios are\n" +
			"ours by theirs: above 1 is better for a gateway, below 1 for the cipher. Needs root, for packages and huge pages.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return fmt.Errorf("peers installs packages and reserves huge pages, so it needs root")
			}
			o.Command = commandLine()
			file := newFile()
			p := newProgress(stderr, o.Samples(), file)
			o.Progress = p.next
			rows, err := peers.Run(cmd.Context(), o)
			p.done()
			if len(rows) > 0 {
				if err := out.report(file, rows, "%.3f", stdout); err != nil {
					return err
				}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Directions, "directions", []string{"encrypt", "decrypt"}, "directions")
	f.IntSliceVar(&o.Sizes, "sizes", []int{64, 512, 1420}, "inner packets' sizes in bytes")
	f.StringSliceVar(&o.Modes, "modes", secgw.ModeNames(), "ways to run ipsec-secgw")
	f.IntVar(&o.Runs, "runs", 5, "samples of each, taken in turn; the median counts")
	withinFlag(f, &o.Within)
	f.IntVar(&o.Seconds, "seconds", 2, "time of one sample of a gateway")
	f.IntVar(&o.Core, "core", 1, "CPU to measure on")
	f.StringVar(&o.Folder, "folder", "build/peers", "folder to build the peers in")
	f.StringVar(&o.Program, "peer", os.Getenv(peerVariable), "path of ipsec-secgw, if it is built already")
	out.flags(f, "build/bench/peers.json")
	return c
}
