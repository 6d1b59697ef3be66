package main

import (
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"sallyport/bench/wire"
)

// peerVariable is the environment's name for the path of ipsec-secgw.
const peerVariable = "IPSEC_SECGW"

func vethCommand(stdout, stderr io.Writer) *cobra.Command {
	o := wire.Options{}
	var out output
	c := &cobra.Command{
		Use:   "veth",
		Short: "Measure one worker of sallyportd over AF_XDP on veth",
		Long: "Veth builds sender, gateway and sink in network namespaces and counts what sallyportd with one worker carries;\n" +
			"with the path of DPDK's ipsec-secgw, in --peer or " + peerVariable + ", also what that carries on the same rig, in turn;\n" +
			"beside testpmd (DPDK), which only hands frames on, where it is installed: the ceiling.\n" +
			"The sender's own rate is printed first: it must be far above the gateways'. Needs root and two CPUs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Command = commandLine()
			file := newFile()
			p := newProgress(stderr, o.Samples(), file)
			o.Progress = p.next
			rows, err := wire.Run(cmd.Context(), o)
			p.done()
			if err != nil {
				return err
			}
			return out.report(file, rows, "%.3f", stdout)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Bin, "bin", "build", "folder of sallyportd")
	f.StringVar(&o.Peer, "peer", os.Getenv(peerVariable), "path of ipsec-secgw")
	testpmd, _ := exec.LookPath("dpdk-testpmd")
	f.StringVar(&o.Testpmd, "testpmd", testpmd, "path of DPDK's testpmd, \"\" for none")
	f.StringSliceVar(&o.Directions, "directions", []string{"encrypt", "decrypt"}, "directions")
	f.IntSliceVar(&o.Sizes, "sizes", []int{64, 512, 1420}, "inner packets' sizes in bytes")
	f.IntVar(&o.Runs, "runs", 5, "samples of each gateway, taken in turn; the median counts")
	f.Float64Var(&o.Seconds, "seconds", 2, "time of one sample")
	f.IntVar(&o.SenderCPU, "sender-cpu", 0, "CPU of the sender")
	f.IntVar(&o.WorkerCPU, "worker-cpu", 1, "CPU of the gateway's worker")
	out.flags(f, "")
	return c
}
