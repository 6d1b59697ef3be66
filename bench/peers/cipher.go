package peers

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/bench/result"
	"sallyport/dataplane/aesgcm"
)

//go:embed libipsec-mb/direct.c
var directSource []byte

// cipherMilliseconds is the time of one measurement of one size and direction.
const cipherMilliseconds = 150

// ciphers are measured by who does the work.
const (
	ourCipher = iota
	goCipher
	directCall
	cipherCount
)

// ciphers is the part of a run that measures the cipher alone.
type ciphers struct {
	direct string // the program that times libipsec-mb
	// samples by size, direction and cipher, in nanoseconds a packet
	samples map[int]*[2][cipherCount][]float64
}

// newCipher builds the program that times libipsec-mb.
func newCipher(ctx context.Context, o *Options) (*ciphers, error) {
	c := &ciphers{direct: filepath.Join(o.Folder, "direct"), samples: map[int]*[2][cipherCount][]float64{}}
	for _, size := range o.Sizes {
		c.samples[size] = new([2][cipherCount][]float64)
	}
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return c, err
	}
	source := filepath.Join(o.Folder, "direct.c")
	if err := os.WriteFile(source, directSource, 0o644); err != nil {
		return c, err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-march=native", "-o", c.direct, source, "-lIPSec_MB").CombinedOutput(); err != nil {
		return c, fmt.Errorf("compiling against libipsec-mb: %w: %s", err, out)
	}
	return c, nil
}

// sample measures each size and direction by each cipher.
func (c *ciphers) sample(ctx context.Context, o *Options) error {
	for _, size := range o.Sizes {
		// Of its own, because the thread ends with the goroutine, and the affinity with it.
		failed := make(chan error)
		go func() {
			runtime.LockOSThread()
			var set unix.CPUSet
			set.Set(o.Core)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				failed <- fmt.Errorf("run on CPU %d: %w", o.Core, err)
				return
			}
			for direction := range 2 {
				s := &c.samples[size][direction]
				s[ourCipher] = append(s[ourCipher], timeOurs(size, direction == 1))
				s[goCipher] = append(s[goCipher], timeGo(size, direction == 1))
			}
			failed <- nil
		}()
		if err := <-failed; err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, c.direct, strconv.Itoa(o.Core), strconv.Itoa(cipherMilliseconds), strconv.Itoa(size)).Output()
		if err != nil {
			return fmt.Errorf("timing libipsec-mb: %w", err)
		}
		f := strings.Fields(string(out))
		if len(f) != 3 {
			return fmt.Errorf("timing libipsec-mb: %q", out)
		}
		for direction := range 2 {
			ns, err := strconv.ParseFloat(f[1+direction], 64)
			if err != nil {
				return fmt.Errorf("timing libipsec-mb: %w", err)
			}
			s := &c.samples[size][direction]
			s[directCall] = append(s[directCall], ns)
		}
	}
	return nil
}

// Buffers of a batch, as many as the program for libipsec-mb takes in turn, and the additional data of ESP without ESN.
const (
	buffers   = 32
	aadLength = 8
)

// timeOurs returns the time a packet takes by the batch call. What is opened was sealed before, outside the timed part.
func timeOurs(size int, open bool) float64 {
	key, err := aesgcm.NewKey(make([]byte, 16))
	if err != nil {
		panic(err)
	}
	ops, sealed := make([]aesgcm.Op, buffers), make([][]byte, buffers)
	for i := range ops {
		ops[i] = aesgcm.Op{Key: &key, Buf: make([]byte, size+aesgcm.TagSize, size+aesgcm.TagSize+aesgcm.Slack), AADLen: aadLength}
		ops[i].Nonce[11] = byte(i)
	}
	if !open {
		return each(func() {}, func() { aesgcm.Seal(ops) })
	}
	aesgcm.Seal(ops)
	for i := range ops {
		sealed[i] = append([]byte{}, ops[i].Buf...)
	}
	return each(func() {
		for i := range ops {
			copy(ops[i].Buf, sealed[i])
		}
	}, func() { aesgcm.Open(ops) })
}

// timeGo is timeOurs for the standard library.
func timeGo(size int, open bool) float64 {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonces, aad := make([][]byte, buffers), make([]byte, aadLength)
	text, sealed := make([][]byte, buffers), make([][]byte, buffers)
	for i := range text {
		nonces[i], text[i] = make([]byte, 12), make([]byte, size+gcm.Overhead())
		nonces[i][11] = byte(i)
		sealed[i] = gcm.Seal(nil, nonces[i], text[i][:size], aad)
	}
	if !open {
		return each(func() {}, func() {
			for i, t := range text {
				gcm.Seal(t[:0], nonces[i], t[:size], aad)
			}
		})
	}
	return each(func() {
		for i, s := range sealed {
			copy(text[i], s)
		}
	}, func() {
		for i, t := range text {
			if _, err := gcm.Open(t[:0], nonces[i], t, aad); err != nil {
				panic(err)
			}
		}
	})
}

// each returns the time a packet takes in work, which does a batch; prepare and the clock's own time are not counted.
func each(prepare, work func()) float64 {
	const rounds = 15
	clock := timed(func() {}, func() {}, time.Millisecond)
	var took []float64
	for range rounds {
		took = append(took, (timed(prepare, work, cipherMilliseconds*time.Millisecond/rounds)-clock)/buffers)
	}
	return result.Median(took)
}

// timed returns the mean time of work in nanoseconds.
func timed(prepare, work func(), budget time.Duration) float64 {
	n := 0
	for began := time.Now(); time.Since(began) < budget; n++ {
		prepare()
		work()
	}
	var all time.Duration
	for range n {
		prepare()
		began := time.Now()
		work()
		all += time.Since(began)
	}
	return float64(all) / float64(n)
}

// rows are named after the other cipher: ratio is our time by its time.
func (c *ciphers) rows(o *Options) []result.Row {
	var rows []result.Row
	for direction, suffix := range []string{"", "/open"} {
		for _, size := range o.Sizes {
			s := c.samples[size][direction]
			for _, other := range []struct {
				who        int
				name, peer string
			}{{directCall, "libipsec-mb", "libipsec-mb direct call"}, {goCipher, "go", "Go crypto/cipher"}} {
				if len(s[other.who]) == 0 {
					continue
				}
				row := result.NewRow(fmt.Sprintf("aesgcm128/%s/%d%s", other.name, size, suffix), "ns", o.Command, s[ourCipher])
				rows = append(rows, row.Against(other.peer, s[other.who]))
			}
		}
	}
	return rows
}
