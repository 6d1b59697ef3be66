package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

// daemon is one running sallyportd.
type daemon struct {
	name    string
	tool    string // path of sallyport
	socket  string
	config  string
	log     string
	process *testbed.Process
}

// readings is what one gateway says of itself, verbatim.
type readings struct {
	Gateway      string          `json:"gateway"`
	Status       json.RawMessage `json:"status"`
	SAs          json.RawMessage `json:"sas"`
	Counters     json.RawMessage `json:"counters"`
	SAsText      string          `json:"-"`
	CountersText string          `json:"-"`
}

// sent is what one gateway says it sent as ESP.
type sent struct {
	Gateway       string   `json:"gateway"`
	Packets       uint64   `json:"packets"`        // by the sockets of its outside interface
	Sealed        uint64   `json:"sealed"`         // by its outbound associations
	KernelDropped uint64   `json:"kernel_dropped"` // of these, by the veth behind it
	Workers       []uint64 `json:"workers"`        // packets that each worker took in
}

func (s sent) total() (n uint64) {
	for _, w := range s.Workers {
		n += w
	}
	return n
}

// tunnels of gateway a; gateway b's are the mirror image. Key lengths are in bytes,
// the salt of four included.
var tunnels = []struct {
	name, proposal string
	keyBytes       int
	encap          bool
	local, remote  string // outer
	localTS        string
	remoteTS       string
	spiAB, spiBA   uint32
}{
	{"four", "aes256gcm16-esn", 36, false, gwA4, gwB4, lanA4, lanB4, 0x5a110401, 0x5a110402},
	{"six", "aes128gcm16-esn", 20, true, gwA6, gwB6, lanA6, lanB6, 0x5a110601, 0x5a110602},
}

// startGateways writes two configurations with fresh keys, starts a daemon on each
// and waits until both answer and hold all their associations.
func startGateways(bed *testbed.Bed, n *network, bin string) ([]*daemon, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	folder, err := bed.Folder()
	if err != nil {
		return nil, err
	}
	// A bpffs of the demo's own, so that no pin of it can outlive it.
	pins := filepath.Join(folder, "bpf")
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a bpffs at %s: %w", pins, err)
	}

	keys := make([][2][]byte, len(tunnels))
	for i, t := range tunnels {
		for j := range keys[i] {
			keys[i][j] = make([]byte, t.keyBytes)
			rand.Read(keys[i][j])
		}
	}
	var daemons []*daemon
	for i, gw := range []*testbed.Namespace{n.gwA, n.gwB} {
		d := &daemon{name: [...]string{"gw-a", "gw-b"}[i], tool: filepath.Join(bin, "sallyport")}
		d.socket = filepath.Join(folder, d.name+".sock")
		d.config = filepath.Join(folder, d.name+".yaml")
		d.log = filepath.Join(folder, d.name+".log")
		text := configuration(d, filepath.Join(pins, d.name), keys, i == 1)
		if err := os.WriteFile(d.config, text, 0o600); err != nil {
			return nil, err
		}
		log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(filepath.Join(bin, "sallyportd"), "--config", d.config)
		cmd.Stdout, cmd.Stderr = log, log
		d.process, err = gw.Start(cmd)
		log.Close()
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	for _, d := range daemons {
		if err := d.ready(15 * time.Second); err != nil {
			return nil, errors.Join(err, logs(daemons))
		}
	}
	return daemons, nil
}

// configuration is the YAML of one gateway.
func configuration(d *daemon, pins string, keys [][2][]byte, mirrored bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `instance: %s
control: {socket: %s}
workers: {count: 2}
dataplane: {pin_dir: %s}
interfaces:
  lan: {role: protected}
  wan: {role: outside}
insecure_manual_keys: true
connections:
`, d.name, d.socket, pins)
	for _, t := range tunnels {
		if mirrored {
			t.local, t.remote, t.localTS, t.remoteTS = t.remote, t.local, t.remoteTS, t.localTS
		}
		fmt.Fprintf(&b, `  %s:
    local_addrs: %s
    remote_addrs: %s
    encap: %t
    children:
      net: {local_ts: [%q], remote_ts: [%q], esp_proposals: %s}
`, t.name, t.local, t.remote, t.encap, t.localTS, t.remoteTS, t.proposal)
	}
	b.WriteString("manual:\n")
	for i, t := range tunnels {
		in, out, keyIn, keyOut := t.spiBA, t.spiAB, keys[i][1], keys[i][0]
		if mirrored {
			in, out, keyIn, keyOut = out, in, keyOut, keyIn
		}
		fmt.Fprintf(&b, "  %s/net: {spi_in: %#x, spi_out: %#x, key_in: \"%x\", key_out: \"%x\"}\n", t.name, in, out, keyIn, keyOut)
	}
	return b.Bytes()
}

// ask runs sallyport with one verb.
func (d *daemon) ask(args ...string) ([]byte, error) {
	cmd := exec.Command(d.tool, append([]string{"--socket", d.socket}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("sallyport %s for %s: %s", strings.Join(args, " "), d.name, bytes.TrimSpace(exit.Stderr))
		}
		return nil, err
	}
	return out, nil
}

// ready waits until the daemon answers and holds its associations.
func (d *daemon) ready(atMost time.Duration) error {
	deadline := time.Now().Add(atMost)
	for {
		if err := d.alive(); err != nil {
			return err
		}
		var status struct {
			Associations int `json:"associations"`
		}
		text, err := d.ask("status", "--json")
		if err == nil {
			err = json.Unmarshal(text, &status)
		}
		if err == nil && status.Associations == 2*len(tunnels) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s was not ready after %v: %d associations of %d (%v)", d.name, atMost, status.Associations, 2*len(tunnels), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// alive is an error if the daemon has ended.
func (d *daemon) alive() error {
	select {
	case <-d.process.Done():
		return fmt.Errorf("%s ended by itself: %v", d.name, d.process.Wait())
	default:
		return nil
	}
}

// read asks for everything that the demo shows and compares.
func (d *daemon) read() (readings, sent, error) {
	r, s := readings{Gateway: d.name}, sent{Gateway: d.name}
	for _, x := range []struct {
		verb string
		json *json.RawMessage
		text *string
	}{{"status", &r.Status, nil}, {"sas", &r.SAs, &r.SAsText}, {"counters", &r.Counters, &r.CountersText}} {
		raw, err := d.ask(x.verb, "--json")
		if err != nil {
			return r, s, err
		}
		*x.json = raw
		if x.text != nil {
			if raw, err = d.ask(x.verb); err != nil {
				return r, s, err
			}
			*x.text = string(raw)
		}
	}
	var status struct {
		Workers []struct {
			PacketsIn uint64 `json:"packets_in"`
		} `json:"workers"`
	}
	var sas struct {
		SAs []struct {
			Direction string `json:"direction"`
			Packets   uint64 `json:"packets"`
		} `json:"sas"`
	}
	var counters struct {
		Ports []struct {
			Name   string `json:"name"`
			Queues []struct {
				Sent uint64 `json:"sent"`
			} `json:"queues"`
		} `json:"ports"`
	}
	err := errors.Join(json.Unmarshal(r.Status, &status), json.Unmarshal(r.SAs, &sas), json.Unmarshal(r.Counters, &counters))
	if err != nil {
		return r, s, fmt.Errorf("what %s says as JSON: %w", d.name, err)
	}
	for _, w := range status.Workers {
		s.Workers = append(s.Workers, w.PacketsIn)
	}
	for _, a := range sas.SAs {
		if a.Direction == "out" {
			s.Sealed += a.Packets
		}
	}
	for _, p := range counters.Ports {
		if p.Name == "wan" {
			for _, q := range p.Queues {
				s.Packets += q.Sent
			}
		}
	}
	return r, s, nil
}

// logs prints the end of every daemon's log and returns nil, or the error of reading them.
func logs(daemons []*daemon) error {
	for _, d := range daemons {
		text, err := os.ReadFile(d.log)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Printf("── the last lines of %s's log\n%s\n", d.name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
		for _, verb := range []string{"sas", "counters"} {
			if out, err := d.ask(verb); err == nil {
				fmt.Printf("── sallyport %s, %s\n%s", verb, d.name, out)
			}
		}
	}
	return nil
}
