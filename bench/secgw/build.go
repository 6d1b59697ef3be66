package secgw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are what building and running it takes, beside its sources in dpdk-doc.
var packages = []string{"dpdk", "libdpdk-dev", "libipsec-mb-dev", "gcc", "libc6-dev", "make", "pkg-config"}

// Install installs the Debian packages that are missing. Log is told what is done.
func Install(ctx context.Context, log io.Writer) error {
	var missing []string
	for _, p := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Status}", p).Output()
		if err != nil || !strings.Contains(string(out), "install ok installed") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintln(log, "installing", strings.Join(missing, " "))
	if err := command(ctx, "", "apt-get", "update"); err != nil {
		return err
	}
	return command(ctx, "", "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"}, missing...)...)
}

// Build builds the gateway in folder from the sources that Debian's dpdk-doc packs, and returns its path. What is
// there already is used again.
func Build(ctx context.Context, folder string, log io.Writer) (string, error) {
	// The commands below run inside the folder.
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", fmt.Errorf("folder to build %s in: %w", Name, err)
	}
	source := filepath.Join(folder, "ipsec-secgw")
	program := filepath.Join(source, "build", "ipsec-secgw")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintln(log, "building", Name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	// The package is unpacked, not installed: it would bring scripts and fonts with it.
	if err := command(ctx, folder, "apt-get", "download", "dpdk-doc"); err != nil {
		return "", err
	}
	archives, _ := filepath.Glob(filepath.Join(folder, "dpdk-doc_*.deb"))
	if len(archives) == 0 {
		return "", errors.New("apt-get downloaded no dpdk-doc")
	}
	unpacked := filepath.Join(folder, "dpdk-doc")
	if err := command(ctx, folder, "dpkg", "-x", archives[0], unpacked); err != nil {
		return "", err
	}
	if err := os.CopyFS(source, os.DirFS(filepath.Join(unpacked, "usr/share/dpdk/examples/ipsec-secgw"))); err != nil {
		return "", err
	}
	// It insists on checksum offload at reception, which no software port here offers.
	file := filepath.Join(source, "ipsec-secgw.c")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	relaxed := bytes.Replace(text, []byte(".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,"), []byte(".offloads = 0,"), 1)
	if err := os.WriteFile(file, relaxed, 0o644); err != nil {
		return "", err
	}
	// Its Makefile reads the sources in the folders beside it.
	common := filepath.Join(unpacked, "usr/share/dpdk/examples/common")
	if _, err := os.Stat(common); err == nil {
		if err := os.CopyFS(filepath.Join(folder, "common"), os.DirFS(common)); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return program, command(ctx, source, "make", "-s", "shared")
}

// command runs a program in a folder; its output is part of the error.
func command(ctx context.Context, folder, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = folder
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(out, 5))
	}
	return nil
}

// lastLines is the end of an output.
func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
