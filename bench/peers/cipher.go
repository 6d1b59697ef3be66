package peers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"sallyport/bench/crypto"
	"sallyport/bench/pipeline"
	"sallyport/bench/result"
)

//go:embed libipsec-mb/direct.c
var directSource []byte

// cipherMilliseconds is the time of one measurement of one size, both directions.
const cipherMilliseconds = 150

// direct is what is measured of libipsec-mb, beside ours and Go's.
type direct struct{ seal, open []float64 }

// ciphers is the part of a run that measures the cipher alone.
type ciphers struct {
	program string // times libipsec-mb
	cases   []cipherCase
}

// cipherCase holds one size's samples, in nanoseconds a packet.
type cipherCase struct {
	ours, standard crypto.Case
	direct         direct
}

// newCiphers builds the program that times libipsec-mb, and makes keys and packets.
func newCiphers(ctx context.Context, o *Options) (*ciphers, error) {
	c := &ciphers{program: filepath.Join(o.Folder, "direct")}
	for _, size := range o.Sizes {
		c.cases = append(c.cases, cipherCase{
			ours:     crypto.Case{Name: crypto.Names()[0], Bits: 128, Size: size},
			standard: crypto.Case{Name: crypto.Standard, Bits: 128, Size: size},
		})
		last := &c.cases[len(c.cases)-1]
		if err := errors.Join(last.ours.Prepare(), last.standard.Prepare()); err != nil {
			return c, err
		}
	}
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return c, err
	}
	source := filepath.Join(o.Folder, "direct.c")
	if err := os.WriteFile(source, directSource, 0o644); err != nil {
		return c, err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-march=native", "-o", c.program, source, "-lIPSec_MB").CombinedOutput(); err != nil {
		return c, fmt.Errorf("compiling against libipsec-mb: %w: %s", err, out)
	}
	return c, nil
}

// sample measures each size by each cipher.
func (c *ciphers) sample(ctx context.Context, o *Options) error {
	for i := range c.cases {
		k := &c.cases[i]
		if err := pipeline.OnCore(o.Core, func() error {
			const each = cipherMilliseconds * time.Millisecond
			return errors.Join(k.ours.Measure(each), k.standard.Measure(each))
		}); err != nil {
			return err
		}
		if err := k.direct.sample(ctx, c.program, o.Core, k.ours.Size); err != nil {
			return fmt.Errorf("timing libipsec-mb: %w", err)
		}
	}
	return nil
}

func (c *ciphers) unstable() bool {
	return slices.ContainsFunc(c.cases, func(k cipherCase) bool {
		return result.Unsteady(k.ours.Seal, k.ours.Open, k.standard.Seal, k.standard.Open, k.direct.seal, k.direct.open)
	})
}

func (d *direct) sample(ctx context.Context, program string, core, size int) error {
	out, err := exec.CommandContext(ctx, program, strconv.Itoa(core), strconv.Itoa(cipherMilliseconds/2), strconv.Itoa(size)).Output()
	if err != nil {
		return err
	}
	var n int
	var seal, open float64
	if _, err := fmt.Sscan(string(out), &n, &seal, &open); err != nil || n != size {
		return fmt.Errorf("it printed %q", out)
	}
	d.seal, d.open = append(d.seal, seal), append(d.open, open)
	return nil
}

// rows are named after the other cipher: the ratio is our time by its time. Those of an implementation without samples are
// left out.
func (c *ciphers) rows(o *Options) []result.Row {
	var rows []result.Row
	add := func(k *cipherCase, other, peer, suffix string, ours, theirs []float64) {
		if len(theirs) > 0 {
			name := fmt.Sprintf("aesgcm128/%s/%d%s", other, k.ours.Size, suffix)
			p := result.Parameters{Direction: "encrypt", Size: strconv.Itoa(k.ours.Size), Bytes: float64(k.ours.Size), Suite: "aes128gcm16"}
			if suffix != "" {
				p.Direction = "decrypt"
			}
			rows = append(rows, result.NewRow(name, "ns", o.Command, ours).With(p).Against(peer, theirs))
		}
	}
	for i := range c.cases {
		k := &c.cases[i]
		add(k, "libipsec-mb", "libipsec-mb direct call", "", k.ours.Seal, k.direct.seal)
		add(k, "go", "Go crypto/cipher", "", k.ours.Seal, k.standard.Seal)
	}
	for i := range c.cases {
		k := &c.cases[i]
		add(k, "libipsec-mb", "libipsec-mb direct call", "/open", k.ours.Open, k.direct.open)
		add(k, "go", "Go crypto/cipher", "/open", k.ours.Open, k.standard.Open)
	}
	return rows
}
