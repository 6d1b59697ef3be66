package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"

	"sallyport/tools/testbed"
)

// charonPath is where Debian's strongswan-charon puts the daemon, kernelLibipsec the plugin
// (of libcharon-extra-plugins) that does ESP in user space.
const (
	charonPath     = "/usr/lib/ipsec/charon"
	kernelLibipsec = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"
)

// charonConf is the strongswan.conf of every peer; what a scenario adds comes after it and wins.
// ESP is done in user space on a TUN device, so the kernel needs none. Retransmissions come
// faster than by default, so that a scenario about silence ends within seconds.
const charonConf = `charon {
	load = random nonce drbg aes sha1 sha2 hmac kdf gcm ctr chapoly curve25519 openssl gmp mgf1 pem pkcs1 pkcs8 x509 pubkey curl revocation constraints kernel-libipsec kernel-netlink socket-default vici counters
	install_virtual_ip = yes
	retransmit_timeout = 1.0
	retransmit_base = 1.4
	retransmit_tries = 3
	plugins {
		vici {
			socket = unix://%[1]s/charon.vici
		}
		kernel-libipsec {
			load = yes
		}
	}
	filelog {
		log {
			path = %[1]s/log
			append = yes
			flush_line = yes
			time_format = %%T
			time_add_ms = yes
			default = 1
			ike = 2
			cfg = 2
		}
	}
}
include %[1]s/scenario.conf
`

// strongSwan is charon in a namespace, with its own configuration and its own /run. It is
// driven by vici; swanctl reads its files once after each start.
type strongSwan struct {
	ns      *testbed.Namespace
	folder  string // charon.conf, scenario.conf, swanctl/, log, charon.vici
	process *testbed.Process
}

// newStrongSwan writes the configuration: extra is what the scenario adds to strongswan.conf,
// credentials are PEM files by their path below swanctl's folder.
func newStrongSwan(ns *testbed.Namespace, folder, swanctl, extra string, credentials map[string][]byte) (*strongSwan, error) {
	s := &strongSwan{ns: ns, folder: folder}
	files := map[string][]byte{
		"charon.conf":          fmt.Appendf(nil, charonConf, folder),
		"scenario.conf":        []byte(extra),
		"swanctl/swanctl.conf": []byte(swanctl),
	}
	for path, text := range credentials {
		files[filepath.Join("swanctl", path)] = text
	}
	for path, text := range files {
		path = filepath.Join(folder, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *strongSwan) socket() string { return filepath.Join(s.folder, "charon.vici") }

func (s *strongSwan) environment() []string {
	return append(os.Environ(),
		"STRONGSWAN_CONF="+filepath.Join(s.folder, "charon.conf"),
		"SWANCTL_DIR="+filepath.Join(s.folder, "swanctl"))
}

// Start runs charon and has swanctl load everything. charon writes a process number below
// /run, so it gets one of its own.
func (s *strongSwan) Start(ctx context.Context) error {
	os.Remove(s.socket())
	output, err := os.OpenFile(filepath.Join(s.folder, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		"mount -t tmpfs tmpfs /run && exec "+charonPath)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.environment(), output, output
	if s.process, err = s.ns.Start(cmd); err != nil {
		return err
	}
	for {
		if c, err := net.Dial("unix", s.socket()); err == nil {
			c.Close()
			break
		}
		select {
		case <-s.process.Done():
			return fmt.Errorf("charon in %s ended: %w", s.ns.Name, s.process.Wait())
		case <-ctx.Done():
			return fmt.Errorf("charon in %s does not answer: %w", s.ns.Name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	load := exec.CommandContext(ctx, "swanctl", "--load-all", "--noprompt", "--uri", "unix://"+s.socket())
	load.Env = s.environment()
	if text, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("swanctl --load-all in %s: %w: %s", s.ns.Name, err, text)
	}
	return nil
}

func (s *strongSwan) Kill() {
	if s.process != nil {
		s.process.Kill()
	}
}

// Stop is never an error: charon sometimes hangs when it is told to end, which is not the gateway's doing.
func (s *strongSwan) Stop() error {
	if s.process != nil {
		s.process.Stop(2 * time.Second)
	}
	return nil
}

// call makes one vici request.
func (s *strongSwan) call(ctx context.Context, command string, args map[string]string) error {
	session, err := vici.NewSession(vici.WithSocketPath(s.socket()))
	if err != nil {
		return err
	}
	defer session.Close()
	m := vici.NewMessage()
	for key, value := range args {
		if err := m.Set(key, value); err != nil {
			return err
		}
	}
	if _, err = session.Call(ctx, command, m); err != nil {
		return fmt.Errorf("strongSwan: %s %v: %w", command, args, err)
	}
	return nil
}

func (s *strongSwan) Up(ctx context.Context, connection, child string) error {
	what := map[string]string{"ike": connection, "timeout": "15000"} // milliseconds
	if child != "" {
		what["child"] = child
	}
	return s.call(ctx, "initiate", what)
}

func (s *strongSwan) Down(ctx context.Context, connection string) error {
	return s.call(ctx, "terminate", map[string]string{"ike": connection, "timeout": "10000"})
}

func (s *strongSwan) Rekey(ctx context.Context, connection, child string) error {
	if child != "" {
		return s.call(ctx, "rekey", map[string]string{"ike": connection, "child": child})
	}
	return s.call(ctx, "rekey", map[string]string{"ike": connection})
}

func (s *strongSwan) Log() ([]byte, error) { return os.ReadFile(filepath.Join(s.folder, "log")) }

func (s *strongSwan) SAs(ctx context.Context) ([]ikeSA, error) {
	session, err := vici.NewSession(vici.WithSocketPath(s.socket()))
	if err != nil {
		return nil, err
	}
	defer session.Close()
	// Events are put into the channel before the answer that follows them is returned. (The library's
	// CallStreaming waits for both at once and may see the answer first: SAs are then missing.)
	events := make(chan vici.Event, eventsMax)
	session.NotifyEvents(events)
	if err := session.Subscribe("list-sa"); err != nil {
		return nil, fmt.Errorf("strongSwan: list-sa: %w", err)
	}
	if _, err := session.Call(ctx, "list-sas", nil); err != nil {
		return nil, fmt.Errorf("strongSwan: list-sas: %w", err)
	}
	session.StopEvents(events)
	close(events)
	var all []ikeSA
	for event := range events {
		for _, name := range event.Message.Keys() {
			if m, ok := event.Message.Get(name).(*vici.Message); ok {
				all = append(all, ikeOf(name, m))
			}
		}
	}
	return all, nil
}

// eventsMax is how many SAs a reading may hold; one more would be lost.
const eventsMax = 1024

// ikeOf reads one section of a list-sa event.
func ikeOf(name string, m *vici.Message) ikeSA {
	s := ikeSA{
		Connection:   name,
		Established:  text(m, "state") == "ESTABLISHED",
		Initiator:    text(m, "initiator") == "yes",
		SPIInitiator: text(m, "initiator-spi"), SPIResponder: text(m, "responder-spi"),
		Local: text(m, "local-host"), Remote: text(m, "remote-host"),
		LocalPort: number(m, "local-port"), RemotePort: number(m, "remote-port"),
		LocalID: text(m, "local-id"), RemoteID: text(m, "remote-id"),
		VIPs:     append(list(m, "local-vips"), list(m, "remote-vips")...),
		Proposal: proposalOf(m),
	}
	children, ok := m.Get("child-sas").(*vici.Message)
	if !ok {
		return s
	}
	for _, key := range children.Keys() {
		c, ok := children.Get(key).(*vici.Message)
		if !ok || !strings.HasPrefix(text(c, "state"), "INSTALLED") {
			continue
		}
		s.Children = append(s.Children, child{
			Name:  text(c, "name"),
			SPIIn: text(c, "spi-in"), SPIOut: text(c, "spi-out"),
			Encap:    text(c, "encap") == "yes",
			Proposal: proposalOf(c),
			LocalTS:  list(c, "local-ts"), RemoteTS: list(c, "remote-ts"),
			PacketsIn: uint64(number(c, "packets-in")), PacketsOut: uint64(number(c, "packets-out")),
		})
	}
	return s
}

// algorithms are the proposal words of what vici calls by its registry name.
var algorithms = map[string]string{
	"AES_GCM_16": "aes%sgcm16", "AES_GCM_12": "aes%sgcm12", "AES_GCM_8": "aes%sgcm8", "AES_CBC": "aes%s", "CHACHA20_POLY1305": "chacha20poly1305", "NULL": "null",
	"HMAC_SHA2_256_128": "sha256", "HMAC_SHA2_384_192": "sha384", "HMAC_SHA2_512_256": "sha512",
	"PRF_HMAC_SHA2_256": "prfsha256", "PRF_HMAC_SHA2_384": "prfsha384", "PRF_HMAC_SHA2_512": "prfsha512",
	"MODP_2048": "modp2048", "MODP_3072": "modp3072", "MODP_4096": "modp4096",
	"ECP_256": "ecp256", "ECP_384": "ecp384", "ECP_521": "ecp521", "CURVE_25519": "x25519",
}

// proposalOf writes the algorithms of an SA as one word.
func proposalOf(m *vici.Message) string {
	var words []string
	for _, key := range []string{"encr-alg", "integ-alg", "prf-alg", "dh-group"} {
		name := text(m, key)
		if name == "" {
			continue
		}
		word, ok := algorithms[name]
		switch {
		case !ok:
			word = name
		case strings.Contains(word, "%s"):
			word = fmt.Sprintf(word, text(m, "encr-keysize"))
		}
		words = append(words, word)
	}
	return strings.Join(words, "-")
}

func text(m *vici.Message, key string) string {
	s, _ := m.Get(key).(string)
	return s
}

func number(m *vici.Message, key string) int {
	n, _ := strconv.Atoi(text(m, key))
	return n
}

func list(m *vici.Message, key string) []string {
	l, _ := m.Get(key).([]string)
	return slices.Clone(l)
}
