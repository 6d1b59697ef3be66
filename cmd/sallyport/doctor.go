package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/control"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warn or fail
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// host reads the machine; tests put a directory tree in place of /.
type host struct {
	root     string
	features func(ifname string) (map[string]bool, error)
}

func (t *tool) doctor(cmd *cobra.Command, _ []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
	defer cancel()
	var status *control.Status
	var s control.Status
	_, err := control.NewClient(t.path()).Do(ctx, control.VerbStatus, nil, &s)
	if err == nil {
		status = &s
	}
	findings := host{"/", offloads}.examine(status, err)
	if t.json {
		if err := t.print(map[string]any{"schema": control.Schema, "findings": findings}); err != nil {
			return err
		}
	} else {
		t.table("RESULT\tCHECK\tDETAIL", func(w io.Writer) {
			for _, f := range findings {
				fmt.Fprintf(w, "%s\t%s\t%s\n", f.Result, f.Check, f.Detail)
				if f.Fix != "" {
					fmt.Fprintf(w, "\t\t  fix: %s\n", f.Fix)
				}
			}
		})
	}
	failed := 0
	for _, f := range findings {
		if f.Result == "fail" {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}

// read returns a file of the host without its last newline; "" if it is not there.
func (h host) read(path string) string {
	b, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// examine makes every check. status is nil without a daemon; unreachable then says why.
func (h host) examine(status *control.Status, unreachable error) []finding {
	var out []finding
	add := func(result, check, detail, fix string) { out = append(out, finding{check, result, detail, fix}) }

	out = append(out, kernelVersion(h.read("proc/sys/kernel/osrelease")))
	if _, err := os.Stat(filepath.Join(h.root, "sys/kernel/btf/vmlinux")); err != nil {
		add("warn", "BTF", "the kernel has no type information", "use a kernel with CONFIG_DEBUG_INFO_BTF=y")
	} else {
		add("ok", "BTF", "/sys/kernel/btf/vmlinux is there", "")
	}
	if strings.Contains(h.read("proc/mounts"), " /sys/fs/bpf bpf ") {
		add("ok", "bpffs", "mounted on /sys/fs/bpf", "")
	} else {
		add("warn", "bpffs", "not mounted on /sys/fs/bpf in this mount namespace; the daemon tries to", "mount -t bpf bpf /sys/fs/bpf")
	}
	out = append(out, capabilities(h.read("proc/self/status")), memlock(h.read("proc/self/limits")))

	if n, _ := strconv.Atoi(h.read("proc/sys/vm/nr_hugepages")); n > 0 {
		add("ok", "huge pages", fmt.Sprintf("%d reserved", n), "")
	} else {
		add("warn", "huge pages", "none reserved; packet memory uses small pages", "sysctl -w vm.nr_hugepages=64")
	}
	if isolated := h.read("sys/devices/system/cpu/isolated"); isolated != "" {
		add("ok", "isolated cores", isolated, "")
	} else {
		add("warn", "isolated cores", "none; other threads share the workers' cores", "boot with isolcpus=LIST nohz_full=LIST and set workers.cores to LIST")
	}
	for _, family := range []struct{ name, path string }{{"IPv4 forwarding", "proc/sys/net/ipv4/ip_forward"}, {"IPv6 forwarding", "proc/sys/net/ipv6/conf/all/forwarding"}} {
		if h.read(family.path) == "1" {
			add("ok", family.name, "on: traffic without a policy is routed by the kernel; protected traffic is fenced", "")
		} else {
			add("warn", family.name, "off: tunnels work, but the kernel routes nothing besides", "sysctl -w "+strings.ReplaceAll(strings.TrimPrefix(family.path, "proc/sys/"), "/", ".")+"=1")
		}
	}
	if rp := h.read("proc/sys/net/ipv4/conf/all/rp_filter"); rp == "1" {
		add("warn", "rp_filter", "strict: the gateway's own traffic through tunnels may be dropped by the kernel", "sysctl -w net.ipv4.conf.all.rp_filter=2")
	} else {
		add("ok", "rp_filter", "not strict", "")
	}
	add("warn", "nftables", "decrypted traffic does not pass nftables", "filter it with policies (action: discard)")

	if status == nil {
		reason := "no daemon"
		if unreachable != nil {
			reason = unreachable.Error()
		}
		add("warn", "daemon", reason, "start sallyportd, then run doctor again for its interfaces, queues and modes")
		return out
	}
	add("ok", "daemon", fmt.Sprintf("version %s, %d workers", status.Version, len(status.Workers)), "")
	for _, p := range status.Ports {
		out = append(out, h.port(p, len(status.Workers))...)
	}
	return out
}

// port judges one of the daemon's interfaces.
func (h host) port(p control.Port, workers int) []finding {
	var out []finding
	add := func(result, check, detail, fix string) {
		out = append(out, finding{p.Name + " " + check, result, detail, fix})
	}
	switch p.Mode {
	case "zero-copy":
		add("ok", "mode", "zero-copy", "")
	default:
		add("warn", "mode", fmt.Sprintf("%s, because: %s", p.Mode, p.Reason), "use a NIC whose driver has AF_XDP zero-copy; one port without it puts all in copy mode")
	}
	switch n := len(p.Queues); {
	case n == workers:
		add("ok", "queues", fmt.Sprintf("%d for %d workers", n, workers), "")
	default:
		add("warn", "queues", fmt.Sprintf("%d for %d workers: the load is uneven", n, workers), fmt.Sprintf("ethtool -L %s combined %d", p.Name, workers))
	}
	switch {
	case p.MTU > 3758:
		add("fail", "MTU", fmt.Sprintf("%d: larger than a 4096-byte frame takes", p.MTU), fmt.Sprintf("ip link set %s mtu 1500", p.Name))
	case p.Role != "protected" && p.MTU < 1280+100:
		add("warn", "MTU", fmt.Sprintf("%d: no room for an IPv6 packet of 1280 bytes in a tunnel", p.MTU), fmt.Sprintf("ip link set %s mtu 1500", p.Name))
	case p.Role != "protected" && p.MTU <= 1500:
		add("warn", "MTU headroom", fmt.Sprintf("%d: packets of 1500 bytes do not fit a tunnel and are sent back by path MTU discovery", p.MTU), fmt.Sprintf("ip link set %s mtu 1600, if the network takes it", p.Name))
	default:
		add("ok", "MTU", strconv.Itoa(p.MTU), "")
	}
	features, err := h.features(p.Name)
	if err != nil {
		add("warn", "offloads", fmt.Sprintf("cannot be read: %v", err), "run doctor as root in the daemon's network namespace")
		return out
	}
	bad := false
	for _, f := range []struct{ name, key string }{{"rx-lro", "lro"}, {"rx-gro-hw", "rx-gro-hw"}} {
		if features[f.name] {
			bad = true
			add("fail", f.name, "on: the NIC joins packets before XDP sees them", fmt.Sprintf("ethtool -K %s %s off", p.Name, f.key))
		}
	}
	if !bad {
		add("ok", "offloads", "LRO and hardware GRO are off", "")
	}
	return out
}

// kernelVersion judges the release string.
func kernelVersion(release string) finding {
	major, minor, patch := 0, 0, 0
	fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch)
	switch {
	case major < 6 || major == 6 && minor < 6:
		return finding{"kernel", "fail", release + ": 6.6 or newer is needed (multi-buffer AF_XDP)", "boot a kernel from 6.6 on"}
	case major == 6 && minor == 17 && patch <= 10:
		return finding{"kernel", "fail", release + ": 6.17.0 to 6.17.10 corrupt AF_XDP's completion ring in copy mode (CVE-2025-40290)", "boot 6.17.11 or newer, or 6.12"}
	}
	return finding{"kernel", "ok", release, ""}
}

// capabilities judges CapEff of /proc/self/status.
func capabilities(status string) finding {
	var have uint64
	for line := range strings.SplitSeq(status, "\n") {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			have, _ = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	var lacks []string
	for _, c := range []struct {
		name string
		bit  int
	}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}, {"CAP_BPF", unix.CAP_BPF}} {
		if have&(1<<c.bit) == 0 {
			lacks = append(lacks, c.name)
		}
	}
	if len(lacks) > 0 {
		return finding{"capabilities", "warn", "this shell lacks " + strings.Join(lacks, ", "), "run as root; a daemon started here could not attach XDP"}
	}
	return finding{"capabilities", "ok", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF", ""}
}

// memlock judges the limit of locked memory, which UMEM and maps count against.
func memlock(limits string) finding {
	for line := range strings.SplitSeq(limits, "\n") {
		if !strings.HasPrefix(line, "Max locked memory") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 5 {
			break
		}
		if hard, err := strconv.ParseUint(fields[4], 10, 64); err == nil && hard < 256<<20 {
			return finding{"memlock", "warn", fmt.Sprintf("%d MiB; packet memory is larger (root raises it, others cannot)", hard>>20), "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"}
		}
		return finding{"memlock", "ok", fields[4], ""}
	}
	return finding{"memlock", "warn", "the limit cannot be read", "check /proc/self/limits"}
}

// offloads reads the active features of an interface (kernel:
// include/uapi/linux/ethtool.h, ETHTOOL_GSTRINGS of ETH_SS_FEATURES, ETHTOOL_GFEATURES).
func offloads(ifname string) (map[string]bool, error) {
	const (
		setFeatures = 4 // ETH_SS_FEATURES
		stringLen   = 32
	)
	if len(ifname) >= unix.IFNAMSIZ {
		return nil, errors.New("the interface name is too long")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	call := func(data unsafe.Pointer) error {
		var request struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(request.name[:], ifname)
		request.data = data
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	}
	var sets struct {
		cmd, reserved uint32
		mask          uint64
		count         uint32
	}
	sets.cmd, sets.mask = unix.ETHTOOL_GSSET_INFO, 1<<setFeatures
	if err := call(unsafe.Pointer(&sets)); err != nil {
		return nil, err
	}
	n := min(sets.count, 1024)
	names := make([]uint32, 3+int(n)*stringLen/4)
	names[0], names[1], names[2] = unix.ETHTOOL_GSTRINGS, setFeatures, n
	if err := call(unsafe.Pointer(&names[0])); err != nil {
		return nil, err
	}
	blocks := (n + 31) / 32
	state := make([]uint32, 2+4*blocks) // per 32 features: available, requested, active, never changed
	state[0], state[1] = unix.ETHTOOL_GFEATURES, blocks
	if err := call(unsafe.Pointer(&state[0])); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for i := range n {
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&names[3+i*stringLen/4])), stringLen)
		name, _, _ := bytes.Cut(raw, []byte{0})
		out[string(name)] = state[2+4*(i/32)+2]&(1<<(i%32)) != 0
	}
	return out, nil
}
