package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/tools/testbed"
)

// Gateway is one sallyportd on the rig, running or not.
type Gateway struct {
	Name   string // gw-a or gw-b
	NS     *testbed.Namespace
	Socket string // its control socket
	Config string // its YAML file
	Log    string // the file into which all its runs write
	Pins   string // dataplane.pin_dir, in a bpffs that ends with the rig

	bin          string // folder of the programs
	associations int    // that it holds when it is ready
	process      *testbed.Process
}

// Readings is what one gateway says of itself, verbatim.
type Readings struct {
	Gateway      string          `json:"gateway"`
	Status       json.RawMessage `json:"status"`
	SAs          json.RawMessage `json:"sas"`
	Counters     json.RawMessage `json:"counters"`
	SAsText      string          `json:"-"`
	CountersText string          `json:"-"`
}

// Sent is what one gateway says it sent as ESP.
type Sent struct {
	Gateway       string   `json:"gateway"`
	Packets       uint64   `json:"packets"`        // by the sockets of its outside interface
	Sealed        uint64   `json:"sealed"`         // by its workers
	KernelDropped uint64   `json:"kernel_dropped"` // of these, by the veth behind it
	Workers       []uint64 `json:"workers"`        // packets that each worker took in
}

// Total is the number of packets that all workers took in.
func (s Sent) Total() (n uint64) {
	for _, w := range s.Workers {
		n += w
	}
	return n
}

// Command is sallyportd with further arguments and this gateway's configuration, to be started in its
// namespace; what it prints goes to the log.
func (g *Gateway) Command(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(g.bin, "sallyportd"), append([]string{"--config", g.Config}, args...)...)
}

// Run runs sallyportd in the gateway's namespace to its end, at most ten seconds.
func (g *Gateway) Run(args ...string) error {
	p, err := g.launch(args...)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Wait()
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("sallyportd %v for %s did not end", args, g.Name)
	}
}

// Launch starts the daemon and does not wait for it.
func (g *Gateway) Launch() (err error) {
	g.process, err = g.launch()
	return err
}

func (g *Gateway) launch(args ...string) (*testbed.Process, error) {
	log, err := os.OpenFile(g.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := g.Command(args...)
	cmd.Stdout, cmd.Stderr = log, log
	return g.NS.Start(cmd)
}

// Signal sends a signal to the daemon.
func (g *Gateway) Signal(s syscall.Signal) error { return g.process.Signal(s) }

// Kill kills the daemon at once and waits for its end.
func (g *Gateway) Kill() { g.process.Kill() }

// Stop asks the daemon to end and kills it if it does not, which is an error.
func (g *Gateway) Stop(grace time.Duration) error { return g.process.Stop(grace) }

// PID is the daemon's process number.
func (g *Gateway) PID() int { return g.process.Cmd.Process.Pid }

// Alive is an error if the daemon has ended.
func (g *Gateway) Alive() error {
	select {
	case <-g.process.Done():
		return fmt.Errorf("%s ended by itself: %v", g.Name, g.process.Wait())
	default:
		return nil
	}
}

// Ready waits until the daemon answers and holds its associations.
func (g *Gateway) Ready(atMost time.Duration) error { return g.ready(atMost, g.associations) }

func (g *Gateway) ready(atMost time.Duration, associations int) error {
	deadline := time.Now().Add(atMost)
	for {
		if err := g.Alive(); err != nil {
			return err
		}
		var status struct {
			Associations int `json:"associations"`
		}
		text, err := g.Ask("status", "--json")
		if err == nil {
			err = json.Unmarshal(text, &status)
		}
		if err == nil && status.Associations >= associations {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s was not ready after %v: %d associations of %d (%v)", g.Name, atMost, status.Associations, associations, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Ask runs sallyport with one verb, inside the gateway's namespace.
func (g *Gateway) Ask(args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.Command(filepath.Join(g.bin, "sallyport"), append([]string{"--socket", g.Socket}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	cmd.Stdout, cmd.Stderr = &out, &complaint
	p, err := g.NS.Start(cmd)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("sallyport %s for %s: %w: %s", strings.Join(args, " "), g.Name, err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}

// Read asks for everything that is shown and compared.
func (g *Gateway) Read() (Readings, Sent, error) {
	r, s := Readings{Gateway: g.Name}, Sent{Gateway: g.Name}
	for _, x := range []struct {
		verb string
		json *json.RawMessage
		text *string
	}{{"status", &r.Status, nil}, {"sas", &r.SAs, &r.SAsText}, {"counters", &r.Counters, &r.CountersText}} {
		raw, err := g.Ask(x.verb, "--json")
		if err != nil {
			return r, s, err
		}
		*x.json = raw
		if x.text != nil {
			if raw, err = g.Ask(x.verb); err != nil {
				return r, s, err
			}
			*x.text = string(raw)
		}
	}
	var status struct {
		Workers []struct {
			PacketsIn uint64 `json:"packets_in"`
			Sealed    uint64 `json:"sealed"`
		} `json:"workers"`
	}
	var counters struct {
		Ports []struct {
			Name   string `json:"name"`
			Queues []struct {
				Sent uint64 `json:"sent"`
			} `json:"queues"`
		} `json:"ports"`
	}
	err := errors.Join(json.Unmarshal(r.Status, &status), json.Unmarshal(r.Counters, &counters))
	if err != nil {
		return r, s, fmt.Errorf("what %s says as JSON: %w", g.Name, err)
	}
	for _, w := range status.Workers {
		s.Workers = append(s.Workers, w.PacketsIn)
		s.Sealed += w.Sealed
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

// Report returns the last lines of the daemon's log and, if it still answers, its associations and counters.
func (g *Gateway) Report(lines int) (string, error) {
	text, err := os.ReadFile(g.Log)
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	var b strings.Builder
	fmt.Fprintf(&b, "── the last lines of %s's log\n%s\n", g.Name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	for _, verb := range []string{"sas", "counters"} {
		if out, err := g.Ask(verb); err == nil {
			fmt.Fprintf(&b, "── sallyport %s, %s\n%s", verb, g.Name, out)
		}
	}
	return b.String(), nil
}
