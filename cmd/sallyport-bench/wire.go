package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/bench/result"
	"sallyport/bench/secgw"
	"sallyport/bench/wire"
)

func wireCommand(stdout, stderr io.Writer) *cobra.Command {
	o := wire.FindOptions{}
	var out output
	var quick, build bool
	c := &cobra.Command{
		Use:   "wire",
		Short: "Search for what the gateway carries without loss, and how long packets take",
		Long: "Wire builds sender, gateway and sink in network namespaces, and looks for the load that one worker carries without loss\n" +
			"(NDR) and with a loss of 0.5 % (PDR, which is what is compared), by the ideas of MLRsearch: both goals share all trials, the trials at one\n" +
			"load are judged together. Loads of the peers that are there are searched for in turn with ours.\n" +
			"Decrypt means ESP that the sender seals itself, so that the replay window works; both, two gateways on one CPU.\n" +
			"Sizes are those of inner IP packets; " + wire.IMIX + " is the sequence " + wire.Genome + " (a 64, d 512, z 1420 bytes; notation of RFC 6985).\n" +
			"What veth's own rings of 256 packets lose is the rig's loss and is told apart. Latency is measured from when each packet was\n" +
			"due, at 2,000 packets/s (0) and 10, 50 and 90 % of PDR; a percentile is told where ten packets lie beyond it. Needs root and two CPUs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if build {
				if err := buildPeers(cmd.Context(), &o.Options, stderr); err != nil {
					fmt.Fprintln(stderr, "goes on without:", err)
				}
			}
			o.Command = commandLine()
			file := newFile()
			o.Progress = func(what string) {
				file.Calibrate()
				fmt.Fprintln(stderr, what)
			}
			o.Log = func(what string) { fmt.Fprintln(stderr, " ", what) }
			o.Interface = file.Attach
			for _, h := range absent(cmd.Flags().Changed, &o.Options) {
				file.Miss(h.Name, h.Reason)
			}
			if quick {
				o.Quicken(cmd.Flags().Changed)
			}
			rows, holes, err := wire.Find(cmd.Context(), o)
			if err != nil {
				return err
			}
			file.Add(rows...)
			file.Holes = append(file.Holes, holes...)
			out.finish(file, stdout)
			printRows(file, rows, "%.3f", stdout)
			unstable := 0
			for _, r := range rows {
				if r.Unstable() {
					unstable++
				}
			}
			fmt.Fprintf(stdout, "%d of %d rows are unstable (spread above %.0f %%)\n", unstable, len(rows), 100*result.SpreadMax)
			return out.write(file, stdout)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Bin, "bin", "build", "folder of sallyportd")
	f.StringVar(&o.Peer, "peer", cmp.Or(os.Getenv(peerVariable), existing(secgwBuilt)), "path of ipsec-secgw, \"\" for none")
	testpmd, _ := exec.LookPath("dpdk-testpmd")
	f.StringVar(&o.Testpmd, "testpmd", testpmd, "path of DPDK's testpmd, \"\" for none")
	f.BoolVar(&o.Kernel, "kernel", true, "beside the kernel's plain forwarding, which encrypts nothing: a ceiling")
	f.StringVar(&o.Wireguard, "wireguard", existing(wireguardBuilt), "path of wireguard-go, \"\" for none")
	charon, _ := wire.FindStrongSwan()
	f.StringVar(&o.StrongSwan, "strongswan", charon, "path of strongSwan's charon, whose plugin kernel-libipsec does ESP in user space; \"\" for none")
	f.BoolVar(&build, "build-peers", false, "build ipsec-secgw (from Debian's packages) and wireguard-go (from the module proxy) into "+peersFolder+" first")
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
	withinFlag(f, &o.Within)
	f.IntVar(&o.SenderCPU, "sender-cpu", 0, "CPU of the sender")
	f.IntVar(&o.WorkerCPU, "worker-cpu", 1, "CPU of the gateway's worker")
	f.BoolVar(&quick, "quick", false, "within a minute: encrypt and decrypt of 64 and 1420 bytes, three searches each, sallyportd alone")
	out.flags(f, "")
	return c
}

// Where peers are built.
const (
	peersFolder    = "build/peers"
	secgwBuilt     = peersFolder + "/ipsec-secgw/build/ipsec-secgw"
	wireguardBuilt = peersFolder + "/wireguard/" + wire.WireguardName
)

// absent are the peers that are not here and were not declined by their flag, and what is missing for each.
func absent(declined func(flag string) bool, o *wire.Options) (holes []result.Hole) {
	miss := func(flag, path, name, why string) {
		if path == "" && !declined(flag) {
			holes = append(holes, result.Hole{Name: "wire/" + name, Reason: why})
		}
	}
	miss("peer", o.Peer, secgw.Name, "not built: --build-peers does it, from Debian's packages")
	miss("testpmd", o.Testpmd, wire.TestpmdName, "dpdk-testpmd is not installed: Debian's package dpdk has it")
	miss("wireguard", o.Wireguard, wire.WireguardName, "not built: --build-peers does it, from the module proxy")
	if _, err := wire.FindStrongSwan(); err != nil {
		miss("strongswan", o.StrongSwan, wire.StrongSwanName, err.Error())
	}
	return holes
}

// existing is the path, if there is something.
func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// buildPeers builds those that are missing; one that cannot be built keeps none of the others away.
func buildPeers(ctx context.Context, o *wire.Options, log io.Writer) error {
	var errs []error
	if o.Peer == "" {
		err := secgw.Install(ctx, log)
		if err == nil {
			o.Peer, err = secgw.Build(ctx, peersFolder, log)
		}
		if err != nil {
			o.Peer = ""
			errs = append(errs, err)
		}
	}
	if o.Wireguard == "" {
		path, err := wire.BuildWireguard(ctx, filepath.Dir(wireguardBuilt), log)
		o.Wireguard = path
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
