package testbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a capture keeps for the reader and gives to the kernel.
const (
	captureBufferSize  = 256 << 20 // bytes of frames the kernel may queue for us
	captureExamplesMax = 8         // descriptions of suspicious frames
	captureSnap        = 2048      // bytes of a frame that are looked at
)

// Watch is what a capture looks for in every frame.
type Watch struct {
	Inner   []netip.Prefix // no frame may go from or to these ...
	Pairs   []netip.Addr   // ... nor contain, anywhere, two neighbouring ones of these (v4) or one (v6)
	Needles [][]byte       // no frame may contain these bytes
	Nonces  bool           // no two packets of ESP may have SPI and IV in common; for suites with an IV of eight bytes
}

// Figures is what a capture has seen. The counts are of frames that ARRIVED on the
// captured interfaces, so a frame that crosses a bridge between two of them counts once.
type Figures struct {
	Frames   uint64            `json:"frames"`
	Bytes    uint64            `json:"bytes"`
	Kinds    map[string]uint64 `json:"kinds"`     // by Kind's name
	Inner    uint64            `json:"inner"`     // frames from or to an inner address, or with one inside
	Needles  uint64            `json:"plaintext"` // frames with a needle in them
	Bare     uint64            `json:"bare"`      // those of either that are not ESP
	Repeated uint64            `json:"repeated"`  // packets of ESP with the SPI and IV of an earlier one
	Missed   uint64            `json:"missed"`    // frames that the kernel could not queue for the capture
	Examples []string          `json:"examples,omitempty"`
}

// ESP is the number of ESP packets, raw and in UDP.
func (f Figures) ESP() uint64 { return f.Kinds[ESP.String()] + f.Kinds[ESPInUDP.String()] }

// Sub returns what was added since an earlier reading; the examples are f's.
func (f Figures) Sub(earlier Figures) Figures {
	f.Frames -= earlier.Frames
	f.Bytes -= earlier.Bytes
	f.Inner -= earlier.Inner
	f.Needles -= earlier.Needles
	f.Bare -= earlier.Bare
	f.Repeated -= earlier.Repeated
	f.Missed -= earlier.Missed
	kinds := map[string]uint64{}
	for k, v := range f.Kinds {
		kinds[k] = v - earlier.Kinds[k]
	}
	f.Kinds = kinds
	f.Examples = slices.Clone(f.Examples[min(len(earlier.Examples), len(f.Examples)):])
	return f
}

// Capture reads every frame that arrives on some interfaces of one namespace, with
// packet sockets. It sees what others send to these interfaces; it does not see
// what an XDP program takes away or an AF_XDP socket sends there, so capture in a
// namespace where neither is used.
type Capture struct {
	watch Watch
	fds   []int
	wait  sync.WaitGroup

	mu      sync.Mutex
	figures Figures
	kinds   [kindCount]uint64
	nonces  nonces
}

// Capture starts capturing what arrives on the named interfaces. It ends with the bed or by Close.
func (n *Namespace) Capture(watch Watch, names ...string) (*Capture, error) {
	c := &Capture{watch: watch, nonces: nonces{}}
	c.watch.Needles = slices.Clone(watch.Needles)
	fds := make([]int, 0, len(names))
	err := n.Do(func() error {
		for _, name := range names {
			index, err := n.Index(name)
			if err != nil {
				return err
			}
			fd, err := packetSocket(index)
			if err != nil {
				return fmt.Errorf("capturing on %s in %s: %w", name, n.Name, err)
			}
			fds = append(fds, fd)
		}
		return nil
	})
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	c.fds = fds
	addresses := addressNeedles(watch.Pairs)
	for _, fd := range fds {
		c.wait.Add(1)
		go c.read(fd, addresses)
	}
	n.bed.Defer(func() error { c.Close(); return nil })
	return c, nil
}

// packetSocket opens a packet socket for what arrives on one interface. It is bound
// before it takes any protocol, so that nothing of another interface gets in.
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBufferSize); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("receive buffer: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("ignoring outgoing frames: %w", err)
	}
	tick := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("receive timeout: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("binding: %w", err)
	}
	return fd, nil
}

// addressNeedles turns addresses into byte strings that random ciphertext will not
// contain by chance: an IPv6 address, or two IPv4 addresses as they stand side by
// side in a header (eight bytes; one address alone, four bytes, turns up once in
// some ten gigabytes).
func addressNeedles(addrs []netip.Addr) [][]byte {
	var needles [][]byte
	for _, a := range addrs {
		if a.Is6() {
			needles = append(needles, a.AsSlice())
			continue
		}
		for _, z := range addrs {
			if z.Is4() && a != z {
				needles = append(needles, append(a.AsSlice(), z.AsSlice()...))
			}
		}
	}
	return needles
}

// read counts frames until the socket is taken away. Counts are published for
// every run of frames that were already waiting.
func (c *Capture) read(fd int, addresses [][]byte) {
	defer c.wait.Done()
	// A capture that loses frames proves nothing: ask for the processor ahead of
	// the traffic. Without the right to, it is merely slower.
	runtime.LockOSThread()
	unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -15)
	frame := make([]byte, captureSnap)
	for {
		n, _, err := unix.Recvfrom(fd, frame, unix.MSG_TRUNC)
		switch err {
		case nil:
		case unix.EAGAIN, unix.EINTR:
			c.mu.Lock()
			closing := c.fds == nil
			c.mu.Unlock()
			if closing {
				unix.Close(fd)
				return
			}
			continue
		case unix.ENETDOWN: // the interface went down; it may come up again
			continue
		default:
			unix.Close(fd)
			return
		}
		c.see(frame[:min(n, len(frame))], n, addresses)
	}
}

func (c *Capture) see(frame []byte, length int, addresses [][]byte) {
	kind, src, dst := Classify(frame)
	inner := src.IsValid() && (c.isInner(src) || c.isInner(dst)) || containsAny(frame, addresses)
	needle := containsAny(frame, c.watch.Needles)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figures.Frames++
	c.figures.Bytes += uint64(length)
	c.kinds[kind]++
	if c.watch.Nonces && !c.nonces.add(espHeader(kind, frame)) {
		c.figures.Repeated++
	}
	if inner {
		c.figures.Inner++
	}
	if needle {
		c.figures.Needles++
	}
	if (inner || needle) && kind != ESP && kind != ESPInUDP {
		c.figures.Bare++
	}
	if (inner || needle || kind == Other) && len(c.figures.Examples) < captureExamplesMax {
		c.figures.Examples = append(c.figures.Examples, describe(frame))
	}
}

func (c *Capture) isInner(a netip.Addr) bool {
	return slices.ContainsFunc(c.watch.Inner, func(p netip.Prefix) bool { return p.Contains(a) })
}

func containsAny(frame []byte, needles [][]byte) bool {
	return slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(frame, n) })
}

// Figures returns what was seen so far.
func (c *Capture) Figures() (Figures, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.fds {
		// Reading the statistics sets them to zero.
		s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return Figures{}, fmt.Errorf("the capture's own statistics: %w", err)
		}
		c.figures.Missed += uint64(s.Drops)
	}
	f := c.figures
	f.Kinds = make(map[string]uint64, kindCount)
	for k := range c.kinds {
		f.Kinds[Kind(k).String()] = c.kinds[k]
	}
	f.Examples = slices.Clone(f.Examples)
	return f, nil
}

// Settled waits until no ESP, IKE or other traffic has come for the quiet time (at most
// so long altogether) and returns the figures then.
func (c *Capture) Settled(quiet, atMost time.Duration) (Figures, error) {
	deadline := time.Now().Add(atMost)
	last, err := c.Figures()
	since := time.Now()
	for err == nil && time.Since(since) < quiet && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		var now Figures
		if now, err = c.Figures(); err == nil && (now.ESP() != last.ESP() || now.Frames != last.Frames) {
			last, since = now, time.Now()
		}
	}
	return last, err
}

// Close ends the capture. The figures stay readable.
func (c *Capture) Close() {
	c.mu.Lock()
	c.fds = nil
	c.mu.Unlock()
	c.wait.Wait()
}
