package secgw

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Mode is a way to run it.
type Mode struct {
	Name   string
	extra  string   // of each association's line
	args   []string // of the program
	device string
}

// Modes are the ways to run it that compete; the best is the one to compare with.
var Modes = []Mode{
	{"legacy", "", nil, "crypto_aesni_gcm0"},
	{"librte_ipsec", "", []string{"-l"}, "crypto_aesni_gcm0"},
	{"cpu-crypto", "type cpu-crypto", []string{"-l"}, "crypto_aesni_gcm0"},
	{"aesni_mb", "", nil, "crypto_aesni_mb0"},
}

// Memory is a run from memory to memory: packets from a file that is read into memory and comes round again and again,
// one copy each, into a port that forgets them.
type Memory struct {
	Program string
	Mode    Mode
	Tunnel  Tunnel
	Decrypt bool
	// Frames are what arrives: Ethernet frames, sealed ones if Decrypt.
	Frames [][]byte
	Core   int
	// Seconds of one-second intervals that count; two more are left out at the start.
	Seconds int
}

// sent is a line of its statistics, which it prints once a second: all packets since the start.
var sent = regexp.MustCompile(`^Packets sent: +(\d+)`)

// Run returns millions of packets a second, one figure a second. It needs the huge pages of [ReserveHugePages].
func (m *Memory) Run(ctx context.Context) ([]float64, error) {
	folder, err := os.MkdirTemp("", "secgw")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	pcap, config := filepath.Join(folder, "in.pcap"), filepath.Join(folder, "secgw.cfg")
	direction, rx, tx, ports := Out, 0, 1, "(0,0,%d)"
	if m.Decrypt {
		direction, rx, tx, ports = In, 1, 0, "(1,0,%d)"
	}
	if err := os.WriteFile(config, []byte(Config(m.Tunnel, m.Mode.extra, direction)), 0o600); err != nil {
		return nil, err
	}
	if err := writePcap(pcap, m.Frames); err != nil {
		return nil, err
	}
	// Ports are numbered in the order of their arguments.
	devices := [2]string{}
	devices[rx] = fmt.Sprintf("net_pcap%d,rx_pcap=%s,infinite_rx=1", rx, pcap)
	devices[tx] = fmt.Sprintf("net_null%d,no-rx=1", tx)
	args := []string{"-l", strconv.Itoa(m.Core), "--in-memory", "--no-pci", "--vdev", devices[0], "--vdev", devices[1], "--vdev", m.Mode.device, "--", "-p", "0x3", "-P"}
	if m.Decrypt {
		args = append(args, "-u", "0x2")
	}
	args = append(append(args, m.Mode.args...), "--config="+fmt.Sprintf(ports, m.Core), "-f", config, "-t", "1")
	const warmUp = 2 // seconds, the first interval included
	ctx, cancel := context.WithTimeout(ctx, time.Duration(m.Seconds+warmUp+30)*time.Second)
	defer cancel()
	return m.follow(ctx, exec.CommandContext(ctx, m.Program, args...), warmUp)
}

// follow starts the program and reads its statistics until there are enough.
func (m *Memory) follow(ctx context.Context, c *exec.Cmd, skip int) ([]float64, error) {
	// A terminal would be line buffered; a pipe is not, unless stdbuf sees to it.
	if path, err := exec.LookPath("stdbuf"); err == nil {
		c.Args = append([]string{"stdbuf", "-oL", c.Path}, c.Args[1:]...)
		c.Path = path
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var rates []float64
	var last uint64
	lines := 0
	enough := make(chan struct{})
	var log bytes.Buffer
	w := &lineWriter{line: func(line string) {
		match := sent.FindStringSubmatch(line)
		if match == nil {
			if log.Len() < 1<<16 {
				fmt.Fprintln(&log, line)
			}
			return
		}
		n, _ := strconv.ParseUint(match[1], 10, 64)
		if lines++; lines > skip && len(rates) < m.Seconds {
			if rates = append(rates, float64(n-last)/1e6); len(rates) == m.Seconds {
				close(enough)
			}
		}
		last = n
	}}
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-enough:
		c.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			c.Process.Kill()
			<-ended
		}
		return rates, nil
	case err := <-ended:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errors.Join(err, fmt.Errorf("%s ended: %s", Name, lastLines(log.Bytes(), 5)))
	}
}

// escapes are a terminal's control sequences.
var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// lineWriter cuts an output into lines.
type lineWriter struct {
	rest string
	line func(string)
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest += string(b)
	for {
		line, rest, whole := strings.Cut(w.rest, "\n")
		if !whole {
			return len(b), nil
		}
		w.rest = rest
		w.line(strings.TrimSpace(escapes.ReplaceAllString(line, "")))
	}
}

// writePcap writes frames as a capture file.
func writePcap(path string, frames [][]byte) error {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 1<<16)
	b = le.AppendUint32(b, 1) // Ethernet
	for _, f := range frames {
		b = append(b, make([]byte, 8)...)
		b = le.AppendUint32(b, uint32(len(f)))
		b = le.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return os.WriteFile(path, b, 0o600)
}

// ModeNames are the names of [Modes].
func ModeNames() []string {
	var names []string
	for _, m := range Modes {
		names = append(names, m.Name)
	}
	return names
}
