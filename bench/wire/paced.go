package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"sallyport/dataplane/threads"
	"sallyport/tools/testbed"
)

// paced is a sender that keeps to a schedule: packet i is due i/rate seconds after the start, and what has become
// due since leaves in bursts of at most burstMax. One that is late does not change when the others are due.
type paced struct {
	ring   ring
	source *source
	cpu    int

	running sync.Mutex  // held while it sends
	stopped atomic.Bool // a signal takes the rig down under it
}

// close ends the sending and then closes the ring. Any goroutine may call it.
func (p *paced) close() error {
	p.stopped.Store(true)
	p.running.Lock() // for good: nothing is sent any more
	return p.ring.close()
}

var errStopped = errors.New("the sender was stopped")

// clock is CLOCK_MONOTONIC in nanoseconds, which is what a BPF program's bpf_ktime_get_ns reads.
func clock() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// run sends for so long and returns how many packets were due and how many left. At an infinite rate, everything is due
// at once. It works on a thread of its own.
func (p *paced) run(rate, seconds float64) (due, sent uint64, err error) {
	if !p.running.TryLock() {
		return 0, 0, errStopped
	}
	defer p.running.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()                               // ends with this goroutine, pinned as it is
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness) // this thread's; without the right to, it is less even
		if err = threads.Pin(p.cpu); err == nil {
			due, sent, err = p.loop(rate, seconds)
		}
	}()
	<-done
	return due, sent, err
}

func (p *paced) loop(rate, seconds float64) (due, sent uint64, err error) {
	var at [burstMax]int64
	gap := 1e9 / rate
	start := clock()
	end := start + int64(seconds*1e9)
	total := uint64(math.MaxInt64)
	if !math.IsInf(rate, 1) {
		total = max(1, uint64(rate*seconds))
	}
	// Packets that do not leave while the trial lasts are not sent any more: the sender, not the gateway, is at its end.
	for sent < total {
		if p.stopped.Load() {
			return total, sent, errStopped
		}
		now := clock()
		if now >= end+int64(10*time.Millisecond) || math.IsInf(rate, 1) && now >= end {
			break
		}
		ready := min(total, uint64(float64(now-start)/gap)+1)
		if math.IsInf(rate, 1) {
			ready = sent + burstMax
		}
		n := int(min(ready-sent, burstMax))
		if n == 0 {
			continue
		}
		frames := p.ring.reserve(n)
		if len(frames) == 0 { // all travel: the kernel may want to be told again
			if _, err := p.ring.send(nil); err != nil {
				return total, sent, err
			}
			continue
		}
		for i := range frames {
			at[i] = start + int64(float64(sent+uint64(i))*gap)
		}
		if math.IsInf(rate, 1) {
			for i := range frames {
				at[i] = now
			}
		}
		p.source.fill(frames, at[:])
		for len(frames) > 0 {
			taken, err := p.ring.send(frames)
			if err != nil {
				return total, sent, err
			}
			sent += uint64(taken)
			if p.stopped.Load() {
				return total, sent, errStopped
			}
			if taken == 0 && clock() >= end+int64(10*time.Millisecond) {
				return total, sent, nil
			}
			if taken < len(frames) {
				// The ring is full: what is left moves to the place of the next buffers, in order.
				left := frames[taken:]
				again := p.ring.reserve(len(left))
				for i := range again {
					copy(again[i][:len(left[i])], left[i])
					again[i] = again[i][:len(left[i])]
				}
				frames = again
				continue
			}
			break
		}
	}
	if math.IsInf(rate, 1) {
		total = sent
	}
	return total, sent, nil
}

// outcome is what became of a trial's packets.
type outcome struct {
	due, sent, received uint64
	// byVeth were dropped because a veth's own ring was full, before or behind the gateway.
	byVeth uint64
	took   float64 // seconds
}

// loss is the gateway's share of lost packets. What veth's ring lost is the rig's, unless that ring is what the
// gateway receives by.
func (o outcome) loss(vethIsTheirs bool) float64 {
	lost := float64(o.due) - float64(o.received)
	if !vethIsTheirs {
		lost -= float64(o.byVeth)
	}
	return max(0, lost) / float64(max(1, o.due))
}

// drained is how long the last packets may take.
const drained = 30 * time.Millisecond

// trial sends at a rate for so long and counts what arrives.
func (r *rig) trial(p *paced, rate, seconds float64) (o outcome, err error) {
	veth := r.droppedByVeth()
	before, began := r.sink.count(), time.Now()
	if o.due, o.sent, err = p.run(rate, seconds); err != nil {
		return o, err
	}
	o.took = time.Since(began).Seconds()
	for last, quiet := r.sink.count(), 0; quiet < 2; {
		time.Sleep(drained / 2)
		if n := r.sink.count(); n != last {
			last, quiet = n, 0
		} else {
			quiet++
		}
	}
	o.received = r.sink.count() - before
	o.byVeth = r.droppedByVeth() - veth
	return o, nil
}

func (r *rig) droppedByVeth() (n uint64) {
	ends := []struct {
		ns   *testbed.Namespace
		name string
	}{{r.sender, senderIf}, {r.gw, outIf}}
	if r.far != nil {
		ends = append(ends, struct {
			ns   *testbed.Namespace
			name string
		}{r.far, farOut})
	}
	for _, e := range ends {
		if d, err := e.ns.Dropped(e.name); err == nil {
			n += d
		}
	}
	return n
}

// stamps returns a histogram, in nanoseconds, of the times between when packets were due and when they arrived. Sealed
// ones are deciphered as far as the stamp goes, with the tunnels' keys.
func (s *sink) stamps(sealed bool, tunnels []tunnel) (*hdrhistogram.Histogram, error) {
	h := hdrhistogram.New(1, int64(10*time.Second), 3)
	var n uint64
	if err := s.next.Lookup(uint32(0), &n); err != nil {
		return nil, err
	}
	record := make([]byte, recordSize)
	strange := 0
	for i := range uint32(min(n, records)) {
		if err := s.records.Lookup(i, &record); err != nil {
			return nil, err
		}
		arrived := int64(binary.NativeEndian.Uint64(record))
		ip := record[8+l2:]
		if sealed {
			var err error
			if ip, err = opened(ip, tunnels); err != nil {
				return nil, err
			}
		}
		if binary.LittleEndian.Uint32(ip[stampAt+8:]) != mark {
			strange++
			continue
		}
		due := int64(binary.LittleEndian.Uint64(ip[stampAt:]))
		if err := h.RecordValue(max(1, arrived-due)); err != nil {
			strange++
		}
	}
	if strange > 0 {
		return nil, fmt.Errorf("%d of %d records hold no time stamp", strange, min(n, records))
	}
	return h, nil
}

// opened deciphers the first blocks of a sealed packet without looking at its tag, which is not in the record: GCM's counter
// begins at 2 for the first block (NIST SP 800-38D, 7.1).
func opened(ip []byte, tunnels []tunnel) ([]byte, error) {
	e := ip[l3:]
	i := int(binary.BigEndian.Uint32(e)) - spi
	if i < 0 || i >= len(tunnels) {
		return nil, fmt.Errorf("a record of SPI %d", i+spi)
	}
	t := &tunnels[i]
	block, err := aes.NewCipher(t.keymat[:keymatSize-4])
	if err != nil {
		return nil, err
	}
	var counter [16]byte
	copy(counter[:], t.keymat[keymatSize-4:])
	copy(counter[4:], e[espLen:espLen+ivLen])
	counter[15] = 2
	text := make([]byte, 48)
	cipher.NewCTR(block, counter[:]).XORKeyStream(text, e[espLen+ivLen:][:48])
	return text, nil
}
