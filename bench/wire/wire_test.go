package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"sallyport/bench/result"
	"sallyport/dataplane/packet"
	"sallyport/tools/craft"
	"sallyport/tools/testbed"
)

var dst, src = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}

// What the source seals, an independent codec opens: each tunnel with its own key and sequence, of every size.
func TestSourceSealsWhatOthersOpen(t *testing.T) {
	sizes, err := sizesOf(IMIX)
	if err != nil {
		t.Fatal(err)
	}
	const n = 3
	tunnels, err := newTunnels(n)
	if err != nil {
		t.Fatal(err)
	}
	tr := traffic{true, sizes, n}
	s := newSource(tr, tunnels, dst, src)
	clear := newSource(traffic{false, sizes, n}, tunnels, dst, src)
	seen := map[int]int{}
	for number := range 2 * n * len(sizes) * flows {
		sealed, plain := [][]byte{make([]byte, 2048)}, [][]byte{make([]byte, 2048)}
		at := []int64{int64(number) * 1e9}
		s.fill(sealed, at)
		clear.fill(plain, at)
		f := sealed[0]
		if !slices.Contains(tr.offered(), wire{protoESP, len(f)}) || packet.Checksum(f[l2:l2+l3], 0) != 0 {
			t.Fatalf("packet %d: %d bytes, or a wrong checksum: %x", number, len(f), f[:l2+l3])
		}
		tunnel := number % n
		esp, err := craft.NewESP(spi+uint32(tunnel), tunnels[tunnel].keymat, false)
		if err != nil {
			t.Fatal(err)
		}
		if seq := binary.BigEndian.Uint32(f[l2+l3+4:]); seq != uint32(number/n+1) {
			t.Fatalf("packet %d has sequence number %d", number, seq)
		}
		got, next, err := esp.Open(f[l2+l3:], 0)
		if err != nil || next != craft.NextIPv4 || string(got) != string(plain[0][l2:]) {
			t.Fatalf("packet %d: %v, next header %d, %x for %x", number, err, next, got, plain[0][l2:])
		}
		if packet.Checksum(got[:l3], 0) != 0 || [4]byte(got[16:20]) != remoteOf(tunnel) {
			t.Fatalf("packet %d: inner header %x", number, got[:l3])
		}
		stamp, err := opened(f[l2:], tunnels)
		if err != nil || int64(binary.LittleEndian.Uint64(stamp[stampAt:])) != at[0] || binary.LittleEndian.Uint32(stamp[stampAt+8:]) != mark {
			t.Fatalf("packet %d: time stamp %x, %v", number, stamp, err)
		}
		seen[len(got)]++
	}
	if seen[64] != 7*seen[1420] || seen[512] != 4*seen[1420] {
		t.Errorf("the mix is %v", seen)
	}
}

func TestFindRefusesNonsense(t *testing.T) {
	good := FindOptions{
		Options: Options{Runs: 1, WorkerCPU: 1, Directions: []string{Encrypt}},
		Sizes:   []string{"64"}, Tunnels: []int{1}, Sender: SenderXSK, Trial: 0.1, Sum: 0.1, Width: 0.1,
	}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*FindOptions){
		"size":      func(o *FindOptions) { o.Sizes = []string{"63"} },
		"word":      func(o *FindOptions) { o.Sizes = []string{"large"} },
		"direction": func(o *FindOptions) { o.Directions = []string{"up"} },
		"tunnels":   func(o *FindOptions) { o.Tunnels = []int{0} },
		"sender":    func(o *FindOptions) { o.Sender = SenderLive },
		"runs":      func(o *FindOptions) { o.Runs = 0 },
		"width":     func(o *FindOptions) { o.Width = math.NaN() },
		"CPU":       func(o *FindOptions) { o.WorkerCPU = 0 },
	} {
		o := good
		spoil(&o)
		if o.check() == nil {
			t.Errorf("a wrong %s is taken", what)
		}
	}
}

// Every paced packet of both senders arrives, on its way through a rig without a gateway, and the stamps say when.
func TestPacedSendersLoseNothing(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	testbed.Must(t, rlimit.RemoveMemlock())
	for _, kind := range []string{SenderXSK, SenderAsavie} {
		for _, decrypt := range []bool{false, true} {
			r, err := newRig(false)
			testbed.Must(t, err)
			t.Cleanup(func() { testbed.Must(t, r.close()) })
			tunnels, err := newTunnels(2)
			testbed.Must(t, err)
			tr := traffic{decrypt, []int{64, 1420}, 2}
			testbed.Must(t, r.attachSink(r.gw, inIf, tr.offered(), true))
			p, err := r.paced(&FindOptions{}, kind, newSource(tr, tunnels, r.macs[inIf], r.macs[senderIf]))
			testbed.Must(t, err)
			// Slow enough for a machine that does other things, too; what veth loses when it is not is booked.
			o, err := r.trial(p, 5000, 0.2)
			testbed.Must(t, err)
			if o.due != 1000 || o.received+o.byVeth != o.sent || o.received == 0 {
				t.Errorf("%s, decrypt %v: %+v", kind, decrypt, o)
			}
			h, err := r.sink.stamps(decrypt, tunnels)
			testbed.Must(t, err)
			if uint64(h.TotalCount()) != o.received {
				t.Errorf("%s, decrypt %v: %d stamps of %d packets", kind, decrypt, h.TotalCount(), o.received)
			}
		}
	}
}

// A gateway that cannot start, and a run that is interrupted, leave nothing behind.
func TestNothingStaysBehind(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	o := FindOptions{
		Options: Options{Runs: 1, WorkerCPU: 1, Directions: []string{Encrypt}, Bin: t.TempDir()},
		Sizes:   []string{"64"}, Tunnels: []int{1}, Sender: SenderXSK, Trial: 0.1, Sum: 0.1, Width: 0.1,
	}
	_, holes, err := Find(t.Context(), o)
	if err != nil || len(holes) != 1 || !strings.Contains(holes[0].Reason, "sallyportd") {
		t.Errorf("without the program: %v, %v", holes, err)
	}
	if left := testbed.Left("wire"); len(left) > 0 {
		t.Errorf("a failure leaves %v", left)
	}

	o.Bin, o.Sum = programs(t), 1000 // a search that does not end by itself
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(2*time.Second, cancel)
	if _, _, err := Find(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if left := testbed.Left("wire"); len(left) > 0 {
		t.Errorf("an interruption leaves %v", left)
	}
}

// programs builds sallyportd and sallyport.
func programs(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/sallyportd", "../../cmd/sallyport").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// A run that may take no time says so of every case, and measures the senders all the same.
func TestABoundedRunTellsWhatItLeftOut(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	rows, holes, err := Find(t.Context(), FindOptions{
		Options: Options{Runs: 2, WorkerCPU: 1, Directions: []string{Encrypt, Decrypt}, Bin: t.TempDir()},
		Sizes:   []string{"1420"}, Tunnels: []int{1}, Sender: SenderXSK, Trial: 0.1, Sum: 0.1, Width: 0.1, LatencySeconds: 0.1, Within: time.Millisecond,
	})
	if err != nil || len(rows) != 2 || len(holes) != 2 {
		t.Fatalf("%d rows, %v, %v", len(rows), holes, err)
	}
	for i, name := range []string{"wire/encrypt/1420", "wire/decrypt/1420"} {
		if holes[i].Name != name || !strings.Contains(holes[i].Reason, "no time was left") {
			t.Errorf("%+v", holes[i])
		}
	}
}

// What the gateway drops is told by its own words: here ESP under keys that are not its own.
func TestDropsAreTold(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	f := &finder{FindOptions: FindOptions{Options: Options{WorkerCPU: 1, Bin: programs(t)}, Sender: SenderXSK}}
	a, err := f.prepare(&scene{direction: Decrypt, size: "64", tunnels: 1}, ours, false)
	testbed.Must(t, err)
	t.Cleanup(func() { testbed.Must(t, a.close()) })
	for last := uint64(0); a.sink.count() != last; { // a gateway that others kept from its CPU still has some of what came first
		last = a.sink.count()
		time.Sleep(300 * time.Millisecond)
	}
	strangers, err := newTunnels(1)
	testbed.Must(t, err)
	strangers[0].seq = 1 << 20 // beyond what was sent so far
	a.paced.source = newSource(a.traffic, strangers, a.macs[inIf], a.macs[senderIf])
	told := func() (all []result.Drop, sum uint64) {
		all, err := a.drops(&f.Options)
		testbed.Must(t, err)
		for _, d := range all {
			sum += d.Packets
		}
		return all, sum
	}
	_, before := told()
	o, err := a.trial(a.paced, 5000, 0.1)
	testbed.Must(t, err)
	drops, after := told() // on a busy machine some are lost in front of the worker, and told as that
	if o.received > 0 || after-before < o.sent || !slices.ContainsFunc(drops, func(d result.Drop) bool { return d.Name == "bad-icv" }) {
		t.Errorf("%d before, %+v, %+v", before, drops, o)
	}
}

// strongSwan's own ESP comes out at the length that the sink looks for.
func TestStrongSwanCarries(t *testing.T) {
	charon, err := FindStrongSwan()
	if err != nil {
		t.Skip(err)
	}
	testbed.Need(t, testbed.Root...)
	f := &finder{FindOptions: FindOptions{Options: Options{WorkerCPU: 1, StrongSwan: charon}, Sender: SenderXSK}}
	for _, size := range []string{"64", "1280"} {
		a, err := f.prepare(&scene{direction: Encrypt, size: size, tunnels: 1}, strongSwan, false)
		testbed.Must(t, err)
		o, err := a.trial(a.paced, 2000, 0.1)
		if testbed.Must(t, err); o.received == 0 || a.sink.others() > 10 {
			t.Errorf("%s bytes: %+v, %d others", size, o, a.sink.others())
		}
		testbed.Must(t, a.close())
	}
	if (&scene{direction: Encrypt, size: "1420", tunnels: 1}).carries(strongSwan) {
		t.Error("1420 bytes do not fit its TUN device")
	}
}

// Only what has no part in a measurement counts as a disturbance.
func TestOthersAreSeen(t *testing.T) {
	c := exec.Command("sh", "-c", "while :; do :; done")
	testbed.Must(t, c.Start())
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	ran := func(o *others) time.Duration {
		before := o.ran()
		time.Sleep(200 * time.Millisecond)
		after := o.ran()
		for name := range after { // what else this machine does is not asked here
			if !strings.HasPrefix(name, "/proc/"+strconv.Itoa(c.Process.Pid)+"/") {
				delete(after, name)
			}
		}
		return between(before, after)
	}
	if got := ran(&others{}); got <= 0 || got > time.Second {
		t.Errorf("a process that never rests ran %v", got)
	}
	if got := ran(&others{ours: map[int]bool{c.Process.Pid: true}}); got != 0 {
		t.Errorf("a process of the measurement counts with %v", got)
	}
}

// TestPercentilesNeedPackets: a percentile of a few packets is the moment at which the machine stopped last.
func TestPercentilesNeedPackets(t *testing.T) {
	for _, c := range []struct {
		percent float64
		packets int64
		want    bool
	}{{50, 20, true}, {50, 19, false}, {99, 1000, true}, {99, 999, false}, {99.99, 100_000, true}, {99.99, 99_000, false}, {100, 1, true}} {
		if got := supported(c.percent, c.packets); got != c.want {
			t.Errorf("%v %% of %d packets: %v", c.percent, c.packets, got)
		}
	}
}
