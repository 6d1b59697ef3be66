package wire

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sallyport/tools/testbed"
)

// startOurs starts sallyportd with one worker: an anti-replay window of 4096, no ESN,
// because the peer has none.
func (r *rig) startOurs(o *Options, decrypt bool, keymat []byte) (*testbed.Process, error) {
	pins := filepath.Join(r.folder, "bpf")
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	// Unmounted with the folder, and with it go the pins.
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a bpffs at %s: %w", pins, err)
	}
	protected, outside := inIf, outIf
	local, remote, localTS, remoteTS := outerLocal, outerRemote, innerLocal, innerRemote
	spiIn, spiOut := spi+1, spi
	unused := make([]byte, len(keymat)) // the other direction's key
	rand.Read(unused)
	keyIn, keyOut := unused, keymat
	if decrypt {
		protected, outside = outIf, inIf
		local, remote, localTS, remoteTS = remote, local, remoteTS, localTS
		spiIn, spiOut = spi, spi+1
		keyIn, keyOut = keyOut, keyIn
	}
	// The sender and the sink are the neighbours, whatever the role of their side.
	var err error
	if decrypt {
		err = errors.Join(r.address(inIf, outerRemote+"/24", outerLocal, r.macs[senderIf]),
			r.address(outIf, "198.51.100.1/24", "198.51.100.2", r.macs[sinkIf]), r.gw.Route(innerRemote, "198.51.100.2"))
	} else {
		err = errors.Join(r.address(outIf, outerLocal+"/24", outerRemote, r.macs[sinkIf]), r.address(inIf, "203.0.113.254/24", "203.0.113.1", r.macs[senderIf]))
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `instance: veth
control: {socket: %s}
workers: {count: 1, cores: %d}
dataplane: {pin_dir: %s}
interfaces:
  %s: {role: protected}
  %s: {role: outside}
insecure_manual_keys: true
connections:
  peer:
    local_addrs: %s
    remote_addrs: %s
    children:
      net: {local_ts: %s, remote_ts: %s, esp_proposals: aes128gcm16-noesn}
manual:
  peer/net: {spi_in: %d, spi_out: %d, key_in: "%x", key_out: "%x"}
`, filepath.Join(r.folder, "sock"), o.WorkerCPU, filepath.Join(pins, "veth"), protected, outside, local, remote, localTS, remoteTS, spiIn, spiOut, keyIn, keyOut)
	file := filepath.Join(r.folder, "sallyport.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return nil, err
	}
	return r.start(exec.Command(filepath.Join(o.Bin, "sallyportd"), "--config", file))
}
