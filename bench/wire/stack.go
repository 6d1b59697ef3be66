package wire

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

// KernelName names the kernel's forwarding in rows. It encrypts nothing, so it is a ceiling of gateways that use its stack.
const KernelName = "kernel forwarding (plain)"

// forwardByKernel makes the gateway's namespace a router, whose reception runs in a thread on the worker's CPU.
func (r *rig) forwardByKernel(o *Options) error {
	err := errors.Join(r.router(), address(r.gw, outIf, outerLocal+"/24", outerRemote, r.macs[sinkIf]), r.gw.Route(innerRemote, outerRemote))
	if err != nil {
		return err
	}
	// Only /sys as the namespace sees it has its interfaces.
	cmd := exec.Command("/bin/sh", "-c", "mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/"+inIf+"/threaded")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	p, err := r.start(r.gw, cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("giving %s a thread: %w: %s", inIf, err, r.lastWords())
	}
	var cpu unix.CPUSet
	cpu.Set(o.WorkerCPU)
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	pinned := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(text), "napi/"+inIf+"-") {
			continue
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && unix.SchedSetaffinity(id, &cpu) == nil {
			pinned++
		}
	}
	if pinned == 0 {
		return fmt.Errorf("%s has no thread to put on CPU %d", inIf, o.WorkerCPU)
	}
	return nil
}

// router has the gateway's kernel receive the inner packets and forward them.
func (r *rig) router() error {
	return errors.Join(r.gw.Sysctl("net.ipv4.ip_forward", "1"), r.gw.Sysctl("net.ipv4.conf.all.rp_filter", "0"),
		r.gw.Sysctl("net.ipv4.conf."+inIf+".rp_filter", "0"), r.gw.GROOn(inIf), r.gw.Address(inIf, "203.0.113.254/24"))
}

// WireguardName names the user-space WireGuard in rows.
const WireguardName = "wireguard-go"

// wireguardVersion is that of the module golang.zx2c4.com/wireguard.
const wireguardVersion = "v0.0.0-20260522210424-ecfc5a8d5446"

// BuildWireguard builds wireguard-go in a folder, from the module proxy, and returns its path. What is there already is used again.
func BuildWireguard(ctx context.Context, folder string, log io.Writer) (string, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	program := filepath.Join(folder, WireguardName)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintln(log, "building", WireguardName)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module peers\n\ngo 1.23\n"), 0o644); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"get", "golang.zx2c4.com/wireguard@" + wireguardVersion},
		{"build", "-o", program, "golang.zx2c4.com/wireguard"},
	} {
		c := exec.CommandContext(ctx, "go", args...)
		c.Dir, c.Env = folder, append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return program, nil
}

// wireguardWires are the frames around inner packets, which are padded to 16 bytes but not beyond the MTU.
func wireguardWires(t traffic) (all []wire) {
	const mtu, header, tag = 1420, 16, 16
	for _, size := range t.sizes {
		all = append(all, wire{protoUDP, l2 + l3 + 8 + header + min((size+15)&^15, max(mtu, size)) + tag})
	}
	return all
}

// startWireguard starts one WireGuard in the gateway's namespace, on the worker's CPU, and one behind it, which ends with the
// handshake: from then on the sink drops.
func (r *rig) startWireguard(o *Options) (*testbed.Process, error) {
	if err := errors.Join(r.router(), address(r.gw, outIf, outerLocal+"/24", outerRemote, r.macs[sinkIf]),
		address(r.drain, sinkIf, outerRemote+"/24", outerLocal, r.macs[outIf])); err != nil {
		return nil, err
	}
	var private [2]*ecdh.PrivateKey
	for i := range private {
		var err error
		if private[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	const port = 51820
	var processes [2]*testbed.Process
	for i, end := range []struct {
		ns                     *testbed.Namespace
		cpu                    int
		address, allowed, peer string
	}{
		{r.gw, o.WorkerCPU, "198.51.100.1/32", innerRemote, outerRemote},
		{r.drain, o.SenderCPU, "198.18.0.1/32", "0.0.0.0/0", outerLocal},
	} {
		name := fmt.Sprintf("wg%d-%d", os.Getpid(), i)
		socket := "/var/run/wireguard/" + name + ".sock"
		cmd := exec.Command("taskset", "-c", strconv.Itoa(end.cpu), o.Wireguard, "-f", name)
		cmd.Env = append(os.Environ(), "LOG_LEVEL=error", "WG_PROCESS_FOREGROUND=1")
		p, err := r.start(end.ns, cmd)
		if err != nil {
			return nil, err
		}
		r.bed.Defer(func() error { p.Kill(); os.Remove(socket); return nil })
		processes[i] = p
		text := fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=%s\n\n",
			private[i].Bytes(), port, private[1-i].PublicKey().Bytes(), end.peer, port, end.allowed)
		if _, err := wireguardSays(p, socket, text); err != nil {
			return nil, err
		}
		if err := errors.Join(end.ns.Address(name, end.address), end.ns.Up(name)); err != nil {
			return nil, err
		}
		if i == 0 {
			if err := end.ns.RouteOut(innerRemote, name); err != nil {
				return nil, err
			}
		}
	}
	gateway := fmt.Sprintf("/var/run/wireguard/wg%d-0.sock", os.Getpid())
	for deadline := time.Now().Add(startMax); ; time.Sleep(100 * time.Millisecond) {
		err := r.gw.Do(func() error {
			c, err := net.Dial("udp", "198.18.0.1:9")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("a packet into the tunnel: %w", err)
		}
		state, err := wireguardSays(processes[0], gateway, "get=1\n\n")
		if err != nil {
			return nil, err
		}
		if strings.Contains(state, "last_handshake_time_sec=") && !strings.Contains(state, "last_handshake_time_sec=0\n") {
			return processes[0], nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no handshake in %v: %s", startMax, r.lastWords())
		}
	}
}

// wireguardSays makes one request over WireGuard's configuration socket and returns the answer.
func wireguardSays(p *testbed.Process, socket, text string) (string, error) {
	var c net.Conn
	var err error
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err = net.Dial("unix", socket); err == nil {
			break
		}
		select {
		case <-p.Done():
			return "", fmt.Errorf("%s ended: %w", WireguardName, p.Wait())
		default:
		}
		if time.Now().After(deadline) {
			return "", err
		}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	var answer []byte
	for b := make([]byte, 4096); !bytes.Contains(answer, []byte("\n\n")); {
		n, err := c.Read(b)
		if err != nil {
			return "", err
		}
		answer = append(answer, b[:n]...)
	}
	if !bytes.Contains(answer, []byte("errno=0\n")) {
		return "", fmt.Errorf("%s refuses its configuration", WireguardName)
	}
	return string(answer), nil
}
