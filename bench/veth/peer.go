package veth

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sallyport/tools/testbed"
)

// PeerName names DPDK's example gateway in rows.
const PeerName = "ipsec-secgw"

// startPeer starts ipsec-secgw over net_af_xdp with one lcore: the same tunnel, no
// anti-replay window, which it has for its crypto library only. Its port 0 is the protected
// side, so for decryption the ports change places.
func (r *rig) startPeer(o *Options, decrypt bool, keymat []byte) (*testbed.Process, error) {
	hex := make([]string, len(keymat))
	for i, b := range keymat {
		hex[i] = fmt.Sprintf("%02x", b)
	}
	var text strings.Builder
	for _, direction := range []string{"out", "in"} {
		fmt.Fprintf(&text, "sp ipv4 %s esp protect %d pri 1 dst %s sport 0:65535 dport 0:65535\n", direction, spi, innerRemote)
	}
	for _, direction := range []string{"out", "in"} {
		fmt.Fprintf(&text, "sa %s %d aead_algo aes-128-gcm aead_key %s mode ipv4-tunnel src %s dst %s\n",
			direction, spi, strings.Join(hex, ":"), outerLocal, outerRemote)
	}
	port0, port1 := inIf, outIf
	if decrypt {
		port0, port1 = outIf, inIf
	}
	fmt.Fprintf(&text, "rt ipv4 dst %s/32 port 1\nrt ipv4 dst %s port 0\nneigh port 0 %s\nneigh port 1 %s\n",
		outerRemote, innerRemote, r.macs[sinkIf], r.macs[sinkIf])
	file := filepath.Join(r.folder, "secgw.cfg")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
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

// hugePages is how many pages of 2 MiB the peer wants.
const hugePages = 1024

const hugePagesFile = "/proc/sys/vm/nr_hugepages"

// reserveHugePages gives the peer its huge pages; the function it returns takes them back.
func reserveHugePages() (func() error, error) {
	text, err := os.ReadFile(hugePagesFile)
	if err != nil {
		return nil, err
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hugePagesFile, err)
	}
	if before >= hugePages {
		return func() error { return nil }, nil
	}
	set := func(n int) error { return os.WriteFile(hugePagesFile, []byte(strconv.Itoa(n)), 0) }
	if err := set(hugePages); err != nil {
		return nil, fmt.Errorf("reserving huge pages for %s: %w", PeerName, err)
	}
	return func() error { return set(before) }, nil
}
