package wire

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"sallyport/tools/testbed"
)

// StrongSwanName names strongSwan with ESP in user space in rows.
const StrongSwanName = "strongSwan kernel-libipsec"

const (
	charonPath     = "/usr/lib/ipsec/charon" // as Debian has it
	kernelLibipsec = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"
	// libipsecMax is the MTU of its TUN device, which cannot be changed.
	libipsecMax = 1400
)

// FindStrongSwan returns the path of a charon that can do ESP in user space, or says what is missing.
func FindStrongSwan() (string, error) {
	for _, path := range []string{charonPath, kernelLibipsec} {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s is not there: install strongswan-charon, strongswan-swanctl and libcharon-extra-plugins", path)
		}
	}
	if _, err := exec.LookPath("swanctl"); err != nil {
		return "", errors.New("swanctl is not there: install strongswan-swanctl")
	}
	return charonPath, nil
}

// charonConf does ESP in user space, on a TUN device.
const charonConf = `charon {
	load = random nonce aes sha1 sha2 hmac kdf gcm curve25519 openssl kernel-libipsec kernel-netlink socket-default vici
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
			default = 1
			flush_line = yes
		}
	}
}
`

const swanctlConf = `connections {
	site {
		version = 2
		local_addrs = %[1]s
		remote_addrs = %[2]s
		proposals = aes128gcm16-prfsha256-x25519
		rekey_time = 0
		dpd_delay = 0
		mobike = no
		local {
			auth = psk
		}
		remote {
			auth = psk
		}
		children {
			net {
				local_ts = %[3]s
				remote_ts = %[4]s
				esp_proposals = aes128gcm16
				rekey_time = 0
			}
		}
	}
}
secrets {
	ike-site {
		secret = 0x%[5]x
	}
}
`

// strongSwanWires are ESP in UDP, as it always sends.
func strongSwanWires(t traffic) (all []wire) {
	for _, size := range t.sizes {
		all = append(all, wire{protoUDP, l2 + sealedSize(size) + 8})
	}
	return all
}

// startStrongSwan starts one charon in the gateway's namespace, on the worker's CPU, and one behind it, which ends with the
// handshake: from then on the sink drops.
func (r *rig) startStrongSwan(o *Options) (*testbed.Process, error) {
	if err := errors.Join(r.router(), address(r.gw, outIf, outerLocal+"/24", outerRemote, r.macs[sinkIf]),
		address(r.drain, sinkIf, outerRemote+"/24", outerLocal, r.macs[outIf]), r.drain.Address(sinkIf, "198.18.0.1/15")); err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	var ends [2]*testbed.Process
	var folders [2]string
	for i, end := range []struct {
		ns                            *testbed.Namespace
		cpu                           int
		local, remote, inside, beyond string
	}{
		{r.drain, o.SenderCPU, outerRemote, outerLocal, innerRemote, innerLocal},
		{r.gw, o.WorkerCPU, outerLocal, outerRemote, innerLocal, innerRemote},
	} {
		folder := filepath.Join(r.folder, "charon-"+strconv.Itoa(i))
		folders[i] = folder
		for name, text := range map[string]string{
			"strongswan.conf":      fmt.Sprintf(charonConf, folder),
			"swanctl/swanctl.conf": fmt.Sprintf(swanctlConf, end.local, end.remote, end.inside, end.beyond, secret),
		} {
			path := filepath.Join(folder, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				return nil, err
			}
		}
		// It writes its process number below /run, so it gets one of its own.
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
			"mount -t tmpfs tmpfs /run && exec taskset -c "+strconv.Itoa(end.cpu)+" "+o.StrongSwan)
		cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(folder, "strongswan.conf"))
		var err error
		if ends[i], err = r.start(end.ns, cmd); err != nil {
			return nil, err
		}
		if err := charonSays(ends[i], folder, "--load-all", "--noprompt"); err != nil {
			return nil, err
		}
	}
	if err := charonSays(ends[1], folders[1], "--initiate", "--child", "net", "--timeout", "10"); err != nil {
		return nil, err
	}
	ends[0].Kill()
	return ends[1], nil
}

// charonSays runs swanctl once charon listens.
func charonSays(p *testbed.Process, folder string, args ...string) error {
	socket := filepath.Join(folder, "charon.vici")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-p.Done():
			return fmt.Errorf("charon ended: %w", p.Wait())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("charon does not answer: %w", err)
		}
	}
	cmd := exec.Command("swanctl", append(args, "--uri", "unix://"+socket)...)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(folder, "strongswan.conf"), "SWANCTL_DIR="+filepath.Join(folder, "swanctl"))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swanctl %s: %w: %s", args[0], err, text)
	}
	return nil
}
