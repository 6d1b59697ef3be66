package secgw

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigNamesEachDirection(t *testing.T) {
	tunnel := Tunnel{SPI: 1000, Keymat: []byte{0, 1, 0xfe}, Source: "192.0.2.1", Destination: "192.0.2.2", Remote: "198.18.0.0/16", MAC0: "02:00:00:00:00:0a", MAC1: "02:00:00:00:00:0b"}
	want := `sp ipv4 in esp protect 1000 pri 1 dst 198.18.0.0/16 sport 0:65535 dport 0:65535
sa in 1000 aead_algo aes-128-gcm aead_key 00:01:fe mode ipv4-tunnel src 192.0.2.1 dst 192.0.2.2 type cpu-crypto
rt ipv4 dst 192.0.2.2/32 port 1
rt ipv4 dst 198.18.0.0/16 port 0
neigh port 0 02:00:00:00:00:0a
neigh port 1 02:00:00:00:00:0b
`
	if got := Config(tunnel, "type cpu-crypto", In); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// fake plays the gateway: a shell script that prints what it would print.
func fake(t *testing.T, script string) *Memory {
	if _, err := exec.LookPath("stdbuf"); err != nil {
		t.Skip("no stdbuf")
	}
	path := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Memory{Program: path, Mode: Modes[0], Seconds: 2, Frames: [][]byte{make([]byte, 60)}}
}

func TestRunReadsDifferencesAfterTheFirstSeconds(t *testing.T) {
	m := fake(t, `for n in 1000 2000000 5000000 9000000 16000000; do printf '\033[2JPackets sent: %30s\033[0m\n' $n; done; exec sleep 10`)
	rates, err := m.Run(context.Background())
	if err != nil || len(rates) != 2 || rates[0] != 3 || rates[1] != 4 {
		t.Errorf("%v, %v", rates, err)
	}
}

func TestRunTellsWhyItEnded(t *testing.T) {
	if _, err := fake(t, "echo no huge pages; exit 3").Run(context.Background()); err == nil || !strings.Contains(err.Error(), "no huge pages") {
		t.Error(err)
	}
}

func TestPcapHoldsTheFrames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pcap")
	if err := writePcap(path, [][]byte{{1, 2, 3}, {4}}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 24+16+3+16+1 || b[24+8] != 3 || b[24+16+3+8] != 1 || b[len(b)-1] != 4 {
		t.Errorf("% x, %v", b, err)
	}
}
