package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/control"
	"sallyport/dataplane/ethtool"
	"sallyport/dataplane/xsk"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, note, warn or fail
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
	var findings []finding
	examine := func() { findings = append(findings, host{"/", ethtool.Features}.examine(status, err)...) }
	if status == nil {
		examine()
	} else if elsewhere, entered := inNetworkOf(status.PID, examine); !entered {
		examine()
	} else if elsewhere {
		findings = append(findings, finding{"network", "note", "the daemon's network namespace is another than this shell's; its own was examined", ""})
	}
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

// inNetworkOf runs f on a thread in the network namespace of a process, and says whether that
// is another than ours. It runs nothing if the namespace cannot be entered (that takes root).
func inNetworkOf(pid int, f func()) (elsewhere, entered bool) {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	theirs, err := os.Readlink(path)
	if err != nil {
		return false, false
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err == nil && ours == theirs {
		f()
		return false, true
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err == nil
	}()
	entered = <-done
	return entered, entered
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
	if status != nil {
		add("ok", "bpffs", "the daemon keeps its XDP links in "+status.PinDir, "")
	} else if strings.Contains(h.read("proc/mounts"), " /sys/fs/bpf bpf ") {
		add("ok", "bpffs", "mounted on /sys/fs/bpf", "")
	} else {
		add("warn", "bpffs", "not mounted on /sys/fs/bpf here; the daemon will try to mount it", "mount -t bpf bpf /sys/fs/bpf")
	}
	out = append(out, capabilities(h.read("proc/self/status")), memlock(h.read("proc/self/limits"), h.read("proc/self/status")))

	if n, _ := strconv.Atoi(h.read("proc/sys/vm/nr_hugepages")); n > 0 {
		add("ok", "huge pages", fmt.Sprintf("%d reserved", n), "")
	} else {
		add("warn", "huge pages", "none reserved; packets and associations use small pages", "sysctl -w vm.nr_hugepages=64, then restart the daemon")
	}
	if isolated := h.read("sys/devices/system/cpu/isolated"); isolated != "" {
		add("ok", "isolated cores", isolated, "")
	} else {
		add("note", "isolated cores", "none; other threads share the workers' cores", "boot with isolcpus=LIST nohz_full=LIST and set workers.cores to LIST")
	}
	for _, family := range []struct{ name, path string }{{"IPv4 forwarding", "proc/sys/net/ipv4/ip_forward"}, {"IPv6 forwarding", "proc/sys/net/ipv6/conf/all/forwarding"}} {
		if h.read(family.path) == "1" {
			add("ok", family.name, "on: traffic without a policy is routed by the kernel; protected traffic is fenced", "")
		} else {
			add("note", family.name, "off: tunnels work, but traffic without a policy is not routed", "sysctl -w "+strings.ReplaceAll(strings.TrimPrefix(family.path, "proc/sys/"), "/", ".")+"=1")
		}
	}
	add("note", "nftables", "traffic into and out of tunnels does not pass nftables on this machine", "filter it with policies (action: discard) or behind the gateway")

	if status == nil {
		reason := "no daemon"
		if unreachable != nil {
			reason = unreachable.Error()
		}
		add("warn", "daemon", reason, "start sallyportd, then run doctor again for its interfaces, queues and modes")
		return out
	}
	add("ok", "daemon", fmt.Sprintf("version %s, %d workers", status.Version, len(status.Workers)), "")
	if !slices.ContainsFunc(status.Workers, func(w control.Worker) bool { return w.Core >= 0 }) {
		add("note", "workers", "not bound to cores: there are no more cores than workers", "set workers.count below the number of cores, or name some in workers.cores")
	}
	for _, p := range status.Ports {
		if p.Role == "kernel" {
			continue // the TUN device has neither queues nor offloads
		}
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
	if !p.Up {
		add("fail", "state", "down, or gone", fmt.Sprintf("ip link set %s up", p.Name))
	}
	switch p.Mode {
	case "zero-copy":
		add("ok", "mode", "zero-copy", "")
	default:
		add("warn", "mode", fmt.Sprintf("%s: %s", p.Mode, p.Reason), "use cards whose drivers have AF_XDP zero-copy; one without it puts all into copy mode")
	}
	switch n := len(p.Queues); {
	case n > 0 && n%workers == 0:
		add("ok", "queues", fmt.Sprintf("%d for %d workers", n, workers), "")
	default:
		add("warn", "queues", fmt.Sprintf("%d for %d workers: the load is uneven", n, workers), fmt.Sprintf("ethtool -L %s combined %d (veth: rx %d tx %d) and a restart, or another workers.count", p.Name, workers, workers, workers))
	}
	mode := xsk.Copy
	if p.Mode == "zero-copy" {
		mode = xsk.ZeroCopy
	}
	limit, _ := xsk.MTUMax(mode)
	switch {
	case p.MTU > limit:
		add("fail", "MTU", fmt.Sprintf("%d: larger packets than %d bytes do not fit a frame and are lost", p.MTU, limit), fmt.Sprintf("ip link set %s mtu %d", p.Name, limit))
	case p.Role != "protected" && p.MTU < 1280+100:
		add("warn", "MTU", fmt.Sprintf("%d: no room for an IPv6 packet of 1280 bytes in a tunnel", p.MTU), fmt.Sprintf("ip link set %s mtu 1500", p.Name))
	case p.Role != "protected" && p.MTU <= 1500:
		add("note", "MTU", fmt.Sprintf("%d: packets of 1500 bytes do not fit into a tunnel; their senders are told by ICMP", p.MTU), fmt.Sprintf("ip link set %s mtu 1600, if the whole way to the peer takes it", p.Name))
	default:
		add("ok", "MTU", strconv.Itoa(p.MTU), "")
	}
	// The larger of the two numbers counts (kernel: Documentation/networking/ip-sysctl.rst): 1 is strict, 2 loose.
	filter := 0
	for _, name := range []string{"all", p.Name} {
		n, _ := strconv.Atoi(h.read("proc/sys/net/ipv4/conf/" + name + "/rp_filter"))
		filter = max(filter, n)
	}
	if filter == 1 && p.Role != "protected" {
		add("note", "rp_filter", "strict: a peer in transport mode on the same link gets no answer to its ARP requests, since the way to it leads into the tunnel device", fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", p.Name))
	}
	features, err := h.features(p.Name)
	if err != nil {
		add("warn", "offloads", fmt.Sprintf("cannot be read: %v", err), "run doctor as root in the daemon's network namespace")
		return out
	}
	if features["rx-vlan-hw-parse"] {
		add("note", "rx-vlan-hw-parse", "on: the card takes VLAN tags out before XDP sees them; harmless where there are none", fmt.Sprintf("ethtool -K %s rxvlan off", p.Name))
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

// effective returns CapEff of /proc/self/status.
func effective(status string) uint64 {
	for line := range strings.SplitSeq(status, "\n") {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			have, _ := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return have
		}
	}
	return 0
}

// capabilities judges CapEff of /proc/self/status.
func capabilities(status string) finding {
	have := effective(status)
	var lacks []string
	for _, c := range []struct {
		name string
		bit  int
	}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}, {"CAP_BPF", unix.CAP_BPF}, {"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}} {
		if have&(1<<c.bit) == 0 {
			lacks = append(lacks, c.name)
		}
	}
	if len(lacks) > 0 {
		return finding{"capabilities", "warn", "this shell lacks " + strings.Join(lacks, ", "), "run as root; a daemon started here could not attach XDP"}
	}
	return finding{"capabilities", "ok", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_SYS_ADMIN", ""}
}

// memlock judges the limit of locked memory, which packet memory counts against unless the
// process may lock as much as it likes (status is its /proc/self/status).
func memlock(limits, status string) finding {
	for line := range strings.SplitSeq(limits, "\n") {
		if !strings.HasPrefix(line, "Max locked memory") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 5 {
			break
		}
		if hard, err := strconv.ParseUint(fields[4], 10, 64); err == nil && hard < 256<<20 {
			if have := effective(status); have&(1<<unix.CAP_SYS_RESOURCE|1<<unix.CAP_IPC_LOCK) != 0 {
				return finding{"memlock", "ok", fmt.Sprintf("%d MiB, which a daemon started as root raises", hard>>20), ""}
			}
			return finding{"memlock", "warn", fmt.Sprintf("%d MiB, and packet memory is larger", hard>>20), "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"}
		}
		return finding{"memlock", "ok", fields[4], ""}
	}
	return finding{"memlock", "warn", "the limit cannot be read", "check /proc/self/limits"}
}
