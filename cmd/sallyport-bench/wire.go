package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/bench/result"
	"sallyport/bench/wire"
)

func wireCommand(stdout, stderr io.Writer) *cobra.Command {
	o := wire.FindOptions{}
	var json string
	var quick bool
	c := &cobra.Command{
		Use:   "wire",
		Short: "Search for what the gateway carries without loss, and how long packets take",
		Long: "Wire builds sender, gateway and sink in network namespaces, and looks for the load that one worker carries without loss\n" +
			"(NDR) and with a loss of 0.5 % (PDR, which is what is compared), by the ideas of MLRsearch: both goals share all trials, the trials at one\n" +
			"load are judged together. Loads of the peers that are there are searched for in turn with ours.\n" +
			"Decrypt means ESP that the sender seals itself, so that the replay window works; both, two gateways on one CPU.\n" +
			"Sizes are those of inner IP packets; " + wire.IMIX + " is the sequence " + wire.Genome + " (a 64, d 512, z 1420 bytes; notation of RFC 6985).\n" +
			"What veth's own rings of 256 packets lose is the rig's loss and is told apart. Latency is measured from when each packet was\n" +
			"due, at 500 packets/s (0) and 10, 50 and 90 % of PDR. Needs root and two CPUs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quick {
				o.Quicken(cmd.Flags().Changed)
			}
			o.Command = commandLine()
			o.Progress = func(what string) { fmt.Fprintln(stderr, what) }
			o.Log = func(what string) { fmt.Fprintln(stderr, " ", what) }
			file := newFile()
			rows, holes, err := wire.Find(cmd.Context(), o)
			if err != nil {
				return err
			}
			printRows(rows, "%.3f", stdout)
			for _, h := range holes {
				fmt.Fprintf(stdout, "not measured: %s: %s\n", h.Name, h.Reason)
			}
			unstable := 0
			for _, r := range rows {
				if r.Unstable() {
					unstable++
				}
			}
			fmt.Fprintf(stdout, "%d of %d rows are unstable (spread above %.0f %%)\n", unstable, len(rows), 100*result.SpreadMax)
			file.Rows, file.Holes = append(file.Rows, rows...), holes
			return writeRows(file, json, stdout)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Bin, "bin", "build", "folder of sallyportd")
	f.StringVar(&o.Peer, "peer", os.Getenv(peerVariable), "path of ipsec-secgw")
	testpmd, _ := exec.LookPath("dpdk-testpmd")
	f.StringVar(&o.Testpmd, "testpmd", testpmd, "path of DPDK's testpmd, \"\" for none")
	f.StringSliceVar(&o.Directions, "directions", []string{wire.Encrypt, wire.Decrypt, wire.Both}, "directions")
	f.StringSliceVar(&o.Sizes, "sizes", []string{"64", "512", "1420", wire.IMIX}, "inner packets' sizes in bytes, or "+wire.IMIX)
	f.IntSliceVar(&o.Tunnels, "tunnels", []int{1}, "numbers of tunnels")
	f.StringVar(&o.Sender, "sender", wire.SenderXSK, "sender of the searches: "+wire.SenderXSK+" (our rings) or "+wire.SenderAsavie)
	f.BoolVar(&o.Ceilings, "ceilings", true, "measure what each sender can offer, first")
	f.IntVar(&o.Runs, "runs", 5, "searches of each gateway, taken in turn; the median counts")
	f.Float64Var(&o.Trial, "trial", 0.3, "seconds of a trial that counts")
	f.Float64Var(&o.Sum, "sum", 0.9, "seconds that trials at one load last together")
	f.Float64Var(&o.Width, "width", 0.04, "how close the bounds come, as a share")
	f.Float64Var(&o.LatencySeconds, "latency", 1, "seconds of a trial of latency, 0 for none")
	f.IntVar(&o.SenderCPU, "sender-cpu", 0, "CPU of the sender")
	f.IntVar(&o.WorkerCPU, "worker-cpu", 1, "CPU of the gateway's worker")
	f.BoolVar(&quick, "quick", false, "within a minute: encrypt and decrypt of 64 and 1420 bytes, two searches each, sallyportd alone")
	f.StringVar(&json, "json", "", "file to write the rows to")
	return c
}

func printRows(rows []result.Row, verb string, stdout io.Writer) {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvalue\tunit\tspread\tpeer\tits value\tratio")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t"+verb+"\t%s\t%.0f %%", r.Name, r.Value, r.Unit, 100*r.Spread())
		if r.Peer != "" {
			fmt.Fprintf(w, "\t%s\t"+verb+"\t%.2f", r.Peer, r.PeerValue, r.Ratio)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}
