package ike

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// peer is strongSwan's charon, speaking with itself over the loopback of a namespace of its own, as strongSwan's load
// tests do: both ends on the same cores, like our two servers. It is driven by vici, whose commands return at once. Its
// load-tester plugin takes the kernel's place, so that neither side's figures have any ESP in them.
type peer struct {
	bed     *testbed.Bed
	folder  string
	process *testbed.Process
	control *vici.Session
	events  chan vici.Event
}

// charonConf is strongswan.conf. Hash tables are sized for tens of thousands of IKE SAs, and looking for an IKE SA to
// reuse, which walks through all of them, is off: strongSwan at its best.
const charonConf = `charon {
	threads = 16
	ikesa_table_size = 16384
	ikesa_table_segments = 64
	reuse_ikesa = no
	dos_protection = %[2]s
	init_limit_half_open = 0
	half_open_timeout = %[3]d
	filelog {
	}
	syslog {
		daemon {
			default = -1
		}
		auth {
			default = -1
		}
	}
	plugins {
		load-tester {
			enable = yes
			fake_kernel = yes
			preshared_key = "%[4]s"
			socket = unix://%[1]s/charon.ldt
		}
		vici {
			socket = unix://%[1]s/charon.vici
		}
	}
}
`

// peerSecret is what charon shares with itself. The load tester brings a secret for everybody, which goes before swanctl.conf's.
const peerSecret = "a secret of 32 random characters"

// swanctlConf has one connection for each role. Neither is limited to one IKE SA.
const swanctlConf = `connections {
	client {
		version = 2
		local_addrs = 127.0.0.1
		remote_addrs = 127.0.0.1
		proposals = %[1]s
		unique = never
		mobike = no
		rekey_time = 24h
		local {
			auth = %[3]s
			id = client.example.org
			%[4]s
		}
		remote {
			auth = %[3]s
			id = server.example.org
		}
		children {
			net {
				local_ts = 10.0.0.0/8
				remote_ts = 198.18.0.0/15
				esp_proposals = %[2]s
				rekey_time = 24h
			}
		}
	}
	server {
		version = 2
		local_addrs = 127.0.0.1
		remote_addrs = 127.0.0.1
		proposals = %[1]s
		unique = never
		mobike = no
		rekey_time = 24h
		local {
			auth = %[3]s
			id = server.example.org
			%[5]s
		}
		remote {
			auth = %[3]s
			id = client.example.org
		}
		children {
			peer {
				local_ts = 198.18.0.0/15
				remote_ts = 10.0.0.0/8
				esp_proposals = %[2]s
				rekey_time = 24h
			}
		}
	}
}
secrets {
	ike {
		secret = "%[6]s"
	}
}
`

// eventsMax is how many events may wait to be counted.
const eventsMax = 1 << 16

// newPeer starts charon at this path with a scenario.
func newPeer(ctx context.Context, charon string, s scenario) (_ *peer, err error) {
	bed, err := testbed.New("ikepeer")
	if err != nil {
		return nil, err
	}
	ns, err := bed.Namespace("charon")
	if err != nil {
		return nil, errors.Join(err, bed.Close())
	}
	return launchPeer(ctx, charon, bed, ns, func(p *peer) error { return p.write(s) })
}

// responderConf is swanctl.conf of a gateway that anybody with the secret may call, as gw-b is in the daemons' measurements.
const responderConf = `connections {
	clients {
		version = 2
		local_addrs = %[1]s
		remote_addrs = %%any
		proposals = aes256gcm16-prfsha256-x25519
		unique = never
		mobike = no
		local {
			auth = psk
			id = %[2]s
		}
		remote {
			auth = psk
			id = *.clients.example.org
		}
		children {
			net {
				local_ts = %[3]s
				remote_ts = %[4]s
				esp_proposals = aes256gcm16
			}
		}
	}
}
secrets {
	ike {
		secret = "%[5]s"
	}
}
`

// newResponder starts charon in a namespace that has gw-b's addresses, with its protection against floods.
func newResponder(ctx context.Context, charon string, d *daemons) (*peer, error) {
	bed, err := testbed.New("ikepeer")
	if err != nil {
		return nil, err
	}
	return launchPeer(ctx, charon, bed, d.network.GwB, func(p *peer) error {
		return p.put(map[string][]byte{
			"charon.conf":          fmt.Appendf(nil, charonConf, p.folder, "yes", 30, d.secret),
			"swanctl/swanctl.conf": fmt.Appendf(nil, responderConf, rig.GwB4, serverID, rig.LANB4, spoofedNet, d.secret),
		})
	})
}

// launchPeer starts charon in a namespace. What it needs is taken down with the bed; configure writes its files.
func launchPeer(ctx context.Context, charon string, bed *testbed.Bed, ns *testbed.Namespace, configure func(p *peer) error) (_ *peer, err error) {
	p := &peer{bed: bed, events: make(chan vici.Event, eventsMax)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.folder, err = bed.Folder(); err != nil {
		return nil, err
	}
	if err = configure(p); err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(p.folder, "output"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	// charon writes a process number below /run, and its build may want a folder of its own for that.
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs tmpfs /run && exec "+charon)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environment(), output, output
	if p.process, err = ns.Start(cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err = p.connect(ctx); err != nil {
		text, _ := os.ReadFile(filepath.Join(p.folder, "output"))
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	load := exec.CommandContext(ctx, "swanctl", "--load-all", "--noprompt", "--uri", "unix://"+filepath.Join(p.folder, "charon.vici"))
	load.Env = p.environment()
	if text, err := load.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("load strongSwan's configuration: %w: %s", err, text)
	}
	return p, nil
}

func (p *peer) write(s scenario) error {
	auth, local, remote := "psk", "", ""
	files := map[string][]byte{"charon.conf": fmt.Appendf(nil, charonConf, p.folder, "no", 120, peerSecret)}
	if s.method == ecdsaP256 {
		auth, local, remote = "pubkey", "certs = client.pem", "certs = server.pem"
		c, err := newCertificates()
		if err != nil {
			return err
		}
		files["swanctl/x509ca/ca.pem"] = c.authority.pem()
		for _, k := range []*keyPair{c.client, c.server} {
			files["swanctl/x509/"+k.name+".pem"] = k.pem()
			files["swanctl/private/"+k.name+".pem"] = k.keyPEM()
		}
	}
	files["swanctl/swanctl.conf"] = fmt.Appendf(nil, swanctlConf, s.ike, s.esp, auth, local, remote, peerSecret)
	return p.put(files)
}

// put writes files below charon's folder.
func (p *peer) put(files map[string][]byte) error {
	for name, text := range files {
		path := filepath.Join(p.folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) environment() []string {
	return append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(p.folder, "charon.conf"), "SWANCTL_DIR="+filepath.Join(p.folder, "swanctl"))
}

// connect waits for the control socket.
func (p *peer) connect(ctx context.Context) (err error) {
	path := filepath.Join(p.folder, "charon.vici")
	for {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			break
		}
		select {
		case <-p.process.Done():
			return fmt.Errorf("charon ended: %w", p.process.Wait())
		case <-ctx.Done():
			return fmt.Errorf("charon does not answer: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.control, err = vici.NewSession(vici.WithSocketPath(path))
	return err
}

func (p *peer) close() error {
	if p.control != nil {
		p.control.Close()
	}
	if p.process != nil {
		p.process.Kill() // told to end, it sometimes hangs
	}
	return p.bed.Close()
}

func (p *peer) call(ctx context.Context, command string, args map[string]string) (*vici.Message, error) {
	m := vici.NewMessage()
	for key, value := range args {
		if err := m.Set(key, value); err != nil {
			return nil, err
		}
	}
	answer, err := p.control.Call(ctx, command, m)
	if err != nil {
		return nil, fmt.Errorf("strongSwan: %s: %w", command, err)
	}
	return answer, nil
}

// count returns how many IKE SAs there are, both ends of each, and how many are half-open.
func (p *peer) count(ctx context.Context) (total, halfOpen int, err error) {
	m, err := p.call(ctx, "stats", nil)
	if err != nil {
		return 0, 0, err
	}
	sas, ok := m.Get("ikesas").(*vici.Message)
	if !ok {
		return 0, 0, errors.New("strongSwan: no figures of IKE SAs")
	}
	total, err = strconv.Atoi(fmt.Sprint(sas.Get("total")))
	if err != nil {
		return 0, 0, err
	}
	halfOpen, err = strconv.Atoi(fmt.Sprint(sas.Get("half-open")))
	return total, halfOpen, err
}

// underWay is how many handshakes are begun before the first are complete: enough for all threads, and not so many that
// a socket's buffer overflows.
const underWay = 48

// establish sets up n tunnels.
func (p *peer) establish(ctx context.Context, n int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cpu, start := p.processorTime(), time.Now()
	first, _, err := p.count(ctx)
	if err != nil {
		return sample{}, err
	}
	for begun := 0; ; {
		total, halfOpen, err := p.count(ctx)
		if err != nil {
			return sample{}, err
		}
		if begun == n && halfOpen == 0 && total-first >= 2*n {
			break
		}
		for ; begun < n && halfOpen < 2*underWay; begun, halfOpen = begun+1, halfOpen+2 {
			if _, err := p.call(ctx, "initiate", map[string]string{"ike": "client", "child": "net", "timeout": "-1"}); err != nil {
				return sample{}, err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return sample{n, time.Since(start), p.processorTime() - cpu}, nil
}

// rekey rekeys the children of the n IKE SAs that there are, rounds times.
func (p *peer) rekey(ctx context.Context, n, rounds int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p.control.NotifyEvents(p.events)
	defer p.control.StopEvents(p.events)
	if err := p.control.Subscribe("child-rekey"); err != nil {
		return sample{}, err
	}
	defer p.control.Unsubscribe("child-rekey")
	cpu, start := p.processorTime(), time.Now()
	for range rounds {
		if _, err := p.call(ctx, "rekey", map[string]string{"ike": "client", "child": "net"}); err != nil {
			return sample{}, err
		}
		for done := 0; done < n; {
			select {
			case e := <-p.events:
				if e.Message.Get("client") != nil {
					done++
				}
			case <-ctx.Done():
				return sample{}, fmt.Errorf("strongSwan rekeyed %d of %d children: %w", done, n, ctx.Err())
			}
		}
	}
	return sample{n * rounds, time.Since(start), p.processorTime() - cpu}, nil
}

// processorTime is what charon has used, in user and kernel mode.
func (p *peer) processorTime() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.process.Cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The second field is a name in parentheses; utime and stime are the 14th and 15th, in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory returns charon's resident bytes.
func (p *peer) memory() float64 { return residentBytes(p.process.Cmd.Process.Pid) }

// residentBytes is the memory of a process, 0 if it has ended.
func residentBytes(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize())
}
