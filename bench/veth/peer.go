package veth

import (
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
	// Its libxdp wants the namespace's own /sys with a bpffs in it. busy_budget=0: busy polling
	// makes it slower on veth.
	script := `ulimit -l unlimited 2>/dev/null; mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && exec "$@"`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", o.Peer, "-l", cpu, "--in-memory", "--no-pci",
		"--vdev", "net_af_xdp0,iface="+port0+",busy_budget=0", "--vdev", "net_af_xdp1,iface="+port1+",busy_budget=0",
		"--vdev", "crypto_aesni_gcm0",
		"--", "-p", "0x3", "-P", "-u", "0x2", "--config=(0,0,"+cpu+"),(1,0,"+cpu+")", "-f", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return r.start(cmd)
}
