package wire

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"sallyport/bench/secgw"
	"sallyport/tools/testbed"
)

// startPeer starts ipsec-secgw over net_af_xdp with one lcore: the same tunnel, no
// anti-replay window, which it has for its crypto library only. Its port 0 is the protected
// side, so for decryption the ports change places.
func (r *rig) startPeer(o *Options, decrypt bool, keymat []byte) (*testbed.Process, error) {
	text := secgw.Config(secgw.Tunnel{
		SPI: spi, Keymat: keymat, Source: outerLocal, Destination: outerRemote, Remote: innerRemote,
		MAC0: r.macs[sinkIf].String(), MAC1: r.macs[sinkIf].String(),
	}, "", secgw.Out, secgw.In)
	port0, port1 := inIf, outIf
	if decrypt {
		port0, port1 = outIf, inIf
	}
	file := filepath.Join(r.folder, "secgw.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cpu := strconv.Itoa(o.WorkerCPU)
	return r.startDPDK(o.Peer, "-l", cpu, "--in-memory", "--no-pci", device(0, port0), device(1, port1),
		"--vdev", "crypto_aesni_gcm0",
		"--", "-p", "0x3", "-P", "-u", "0x2", "--config=(0,0,"+cpu+"),(1,0,"+cpu+")", "-f", file)
}

// TestpmdName names DPDK's own test of a network driver in rows.
const TestpmdName = "testpmd io"

// startTestpmd starts testpmd over net_af_xdp, which hands each frame from one interface to the other and looks into none: the
// ceiling of a gateway with one worker on this rig.
func (r *rig) startTestpmd(o *Options) (*testbed.Process, error) {
	main, worker := strconv.Itoa(o.SenderCPU), strconv.Itoa(o.WorkerCPU)
	return r.startDPDK(o.Testpmd, "-l", main+","+worker, "--main-lcore", main, "--in-memory", "--no-pci", device(0, inIf), device(1, outIf),
		"--", "--nb-cores=1", "--rxq=1", "--txq=1", "--burst=32", "--forward-mode=io", "--port-topology=paired",
		"--stats-period", "5") // without it, or a terminal, it would end at once
}

// device describes an interface to DPDK. busy_budget=0: busy polling makes it slower on veth.
func device(n int, name string) string {
	return fmt.Sprintf("--vdev=net_af_xdp%d,iface=%s,busy_budget=0", n, name)
}

// startDPDK starts a program of DPDK's in the gateway's namespace.
func (r *rig) startDPDK(program string, args ...string) (*testbed.Process, error) {
	// Its libxdp wants the namespace's own /sys with a bpffs in it.
	script := `ulimit -l unlimited 2>/dev/null; mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return r.start(r.gw, cmd)
}
