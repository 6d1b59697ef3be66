package wiretest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/tools/craft"
	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

var programs string

func TestMain(m *testing.M) { os.Exit(rig.WithPrograms(&programs, m.Run)) }

// The addresses of the drawing; farN is a host behind the peer.
var (
	host4, host6 = netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:a::10")
	far4, far6   = netip.MustParseAddr("198.51.100.138"), netip.MustParseAddr("2001:db8:b::10")
	gw4, gw6     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	peer4, peer6 = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
)

// SPIs of the gateway's associations. The second pair is UDP-encapsulated over IPv6.
const (
	spiIn, spiOut   = 0x5a110402, 0x5a110401
	spiIn6, spiOut6 = 0x5a110602, 0x5a110601
)

// end is one end of a cable, in the namespace of the host or the peer.
type end struct {
	ns          *testbed.Namespace
	near        string // the gateway's interface
	mac, gwMAC  [6]byte
	fd, index   int
	sent        uint64 // frames put on the cable
	lostEarlier uint64 // frames that veths which are gone had dropped
}

// wire is the gateway under attack.
type wire struct {
	t          testing.TB
	bed        *testbed.Bed
	ns         *testbed.Namespace
	gateway    *rig.Gateway
	host, peer *end
	// in encodes what the gateway opens, out decodes what it seals.
	in, in6, out *craft.ESP
	seq          uint64 // of in, last used
	seq6         uint64
	serial       uint64 // of good packets
	control      net.Conn
	answers      *json.Decoder
}

// ring is the size of the sockets' rings: small, so that they can be filled.
const ring = 256

func start(t testing.TB) *wire {
	testbed.Need(t, testbed.Root...)
	w := &wire{t: t, bed: testbed.ForTest(t, "badinput")}
	w.host, w.peer = &end{near: "lan"}, &end{near: "wan"}
	var err error
	w.ns, err = w.bed.Namespace("gw")
	w.must(err)
	for name, e := range map[string]*end{"host": w.host, "peer": w.peer} {
		e.ns, err = w.bed.Namespace(name)
		w.must(err)
		// Silent: no address, no IPv6.
		w.must(e.ns.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	}
	w.must(errors.Join(w.ns.Sysctl("net.ipv4.ip_forward", "1"), w.ns.Sysctl("net.ipv6.conf.all.forwarding", "1")))
	w.connect(w.host)
	w.connect(w.peer)

	keys := make([][]byte, 4)
	for i := range keys {
		keys[i] = make([]byte, 20)
		rand.Read(keys[i])
	}
	w.in, err = craft.NewESP(spiIn, keys[0], true)
	w.must(err)
	w.out, err = craft.NewESP(spiOut, keys[1], true)
	w.must(err)
	w.in6, err = craft.NewESP(spiIn6, keys[2], false)
	w.must(err)
	w.gateway, err = rig.NewGateway(w.bed, w.ns, programs, "gw", 4, func(g *rig.Gateway) string {
		return fmt.Sprintf(`instance: wire
control: {socket: %s}
workers: {count: 2}
dataplane: {pin_dir: %s, ring_size: %d}
interfaces:
  lan: {role: protected}
  wan: {role: outside}
insecure_manual_keys: true
connections:
  four:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.2
    children:
      net: {local_ts: [198.51.100.0/25], remote_ts: [198.51.100.128/25], esp_proposals: aes128gcm16-esn}
  six:
    local_addrs: "2001:db8::1"
    remote_addrs: "2001:db8::2"
    encap: true
    children:
      net: {local_ts: ["2001:db8:a::/64"], remote_ts: ["2001:db8:b::/64"], esp_proposals: aes128gcm16-noesn}
manual:
  four/net: {spi_in: %#x, spi_out: %#x, key_in: "%x", key_out: "%x"}
  six/net: {spi_in: %#x, spi_out: %#x, key_in: "%x", key_out: "%x"}
`, g.Socket, g.Pins, ring, spiIn, spiOut, keys[0], keys[1], spiIn6, spiOut6, keys[2], keys[3])
	})
	w.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			report, _ := w.gateway.Report(30)
			t.Log(report)
		}
	})
	w.must(w.gateway.Launch())
	w.must(w.gateway.Ready(15 * time.Second))
	w.still()
	return w
}

func (w *wire) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// connect lays the cable between the gateway and e, and tells the gateway's kernel who is there.
//
// The functions run when the cable is there and has no addresses yet.
func (w *wire) connect(e *end, before ...func()) {
	w.t.Helper()
	w.must(w.bed.Veth(w.ns, e.near, e.ns, "eth0", 2))
	for _, f := range before {
		f()
	}
	mac, err := e.ns.MAC("eth0")
	w.must(err)
	e.mac = [6]byte(mac)
	mac, err = w.ns.MAC(e.near)
	w.must(err)
	e.gwMAC = [6]byte(mac)
	if e == w.host {
		w.must(w.ns.Address("lan", "198.51.100.1/25", "2001:db8:a::1/64"))
	} else {
		w.must(w.ns.Address("wan", "192.0.2.1/24", "2001:db8::1/64"))
		w.must(w.ns.Route("default4", peer4.String()))
		w.must(w.ns.Route("default6", peer6.String()))
	}
	w.neighbours(e)
	w.must(e.ns.Do(func() error {
		e.index, err = e.ns.Index("eth0")
		if err != nil {
			return err
		}
		e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		return errors.Join(
			unix.SetsockoptInt(e.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
			unix.Bind(e.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: e.index}))
	}))
	fd := e.fd
	w.bed.Defer(func() error { return unix.Close(fd) })
}

// neighbours tells the gateway's kernel for good which link addresses are behind e's cable.
func (w *wire) neighbours(e *end) {
	w.t.Helper()
	there := []netip.Addr{host4, host6}
	if e == w.peer {
		there = []netip.Addr{peer4, peer6}
	}
	index, err := w.ns.Index(e.near)
	w.must(err)
	for _, a := range there {
		w.must(w.ns.Netlink().NeighSet(&netlink.Neigh{LinkIndex: index, State: unix.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: net.HardwareAddr(e.mac[:])}))
	}
}

// send puts frames on the cable.
func (w *wire) send(e *end, frames ...[]byte) {
	w.t.Helper()
	for _, f := range frames {
		for {
			err := unix.Sendto(e.fd, f, 0, &unix.SockaddrLinklayer{Ifindex: e.index, Halen: 6})
			if err == unix.EAGAIN || err == unix.ENOBUFS {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			if err != nil {
				w.t.Fatalf("sending %d bytes: %v", len(f), err)
			}
			e.sent++
			break
		}
	}
}

// received returns what came out of the cable since the last call, but for what kernels say on their own.
func (e *end) received() (frames [][]byte) {
	buffer := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(e.fd, buffer, 0)
		if err != nil {
			return frames
		}
		if k, _, _ := testbed.Classify(buffer[:n]); k != testbed.ND && k != testbed.ARP {
			frames = append(frames, bytes.Clone(buffer[:n]))
		}
	}
}

// outer puts a packet for the gateway's outer address into a frame on the peer's cable.
func (w *wire) outer(proto byte, payload []byte) []byte {
	return w.toGateway(craft.IP(peer4, gw4, proto, payload))
}

func (w *wire) toGateway(ip []byte) []byte { return craft.Ethernet(w.peer.gwMAC, w.peer.mac, ip) }
func (w *wire) fromHost(ip []byte) []byte  { return craft.Ethernet(w.host.gwMAC, w.host.mac, ip) }

// esp returns a frame with a fresh sequence number that carries an inner packet.
func (w *wire) esp(inner []byte) []byte {
	w.seq++
	return w.outer(craft.ESPv, w.in.Carry(w.seq, inner))
}

// authentic returns a frame whose ESP is authentic and has this plaintext.
func (w *wire) authentic(plaintext []byte) []byte {
	w.seq++
	return w.outer(craft.ESPv, w.in.Seal(w.seq, plaintext))
}

// esp6 is esp through the UDP-encapsulated tunnel over IPv6.
func (w *wire) esp6(inner []byte) []byte {
	w.seq6++
	return w.toGateway(craft.IP(peer6, gw6, craft.UDPv, craft.UDP(peer6, gw6, 4500, 4500, w.in6.Carry(w.seq6, inner))))
}

// good returns an inner UDP packet of the family of src that nobody else has sent.
func (w *wire) good(src, dst netip.Addr) []byte {
	w.serial++
	payload := binary.BigEndian.AppendUint64([]byte("good packet "), w.serial)
	return craft.IP(src, dst, craft.UDPv, craft.UDP(src, dst, 4000, 5000, append(payload, make([]byte, 100)...)))
}

// pass sends one good packet each way through the tunnel and fails unless both arrive, byte by byte.
func (w *wire) pass(what string) {
	w.t.Helper()
	before := w.figures()
	inward, outward := w.good(far4, host4), w.good(host4, far4)
	w.send(w.peer, w.esp(inward))
	w.send(w.host, w.fromHost(outward))
	hop := func(ip []byte) []byte {
		ip = bytes.Clone(ip)
		ip[8]--
		return craft.FixIPv4(ip)
	}
	in, out := false, false
	for deadline := time.Now().Add(3 * time.Second); !(in && out) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, f := range w.host.received() {
			in = in || bytes.Equal(f[14:], hop(inward))
		}
		for _, f := range w.peer.received() {
			if len(f) > 34 && f[23] == craft.ESPv {
				inner, next, err := w.out.Open(f[34:], 0)
				out = out || err == nil && next == craft.NextIPv4 && bytes.Equal(inner, hop(outward))
			}
		}
	}
	if !in || !out {
		w.t.Errorf("%s: good packets no longer pass: inwards %v, outwards %v; %+v", what, in, out, w.figures().since(before))
	}
}

// figures is everything that was counted anywhere.
type figures struct {
	sent, lost            uint64 // frames put on the cables, and those that the veths dropped
	xdp, drops            map[string]uint64
	received, refused     uint64 // of lan and wan: by workers; by sockets
	fromKernel            uint64 // packets received from TUN
	ringFull, fillEmpty   uint64
	originated, out, punt uint64
	free                  uint64 // frames that workers hold idle
}

// ask asks the daemon for figures on a connection that stays, which is quicker than a program each time.
func (w *wire) ask(verb string, into any) {
	w.t.Helper()
	if w.control == nil {
		c, err := net.Dial("unix", w.gateway.Socket)
		w.must(err)
		w.bed.Defer(c.Close)
		w.control, w.answers = c, json.NewDecoder(c)
	}
	w.control.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := fmt.Fprintf(w.control, "{\"verb\": %q}\n", verb)
	w.must(err)
	answer := struct {
		Error  string
		Result any
	}{Result: into}
	w.must(w.answers.Decode(&answer))
	if answer.Error != "" {
		w.t.Fatalf("%s: %s", verb, answer.Error)
	}
}

func (w *wire) figures() (f figures) {
	w.t.Helper()
	var counters struct {
		Totals struct{ Originated, Sent, Punted uint64 }
		Drops  []struct {
			Name    string
			Packets uint64
		}
		XDP []struct {
			Name  string
			Value uint64
		}
		Ports []struct {
			Name   string
			Queues []struct {
				Received   uint64
				RxDropped  uint64 `json:"rx_dropped"`
				RxRingFull uint64 `json:"rx_ring_full"`
				FillEmpty  uint64 `json:"fill_empty"`
			}
		}
	}
	var status struct {
		Workers []struct {
			FramesFree uint64 `json:"frames_free"`
		}
	}
	w.ask("counters", &counters)
	w.ask("status", &status)
	f.xdp, f.drops = map[string]uint64{}, map[string]uint64{}
	for _, d := range counters.Drops {
		f.drops[d.Name] = d.Packets
	}
	for _, x := range counters.XDP {
		f.xdp[x.Name] = x.Value
	}
	for _, p := range counters.Ports {
		for _, q := range p.Queues {
			if p.Name != "lan" && p.Name != "wan" {
				f.fromKernel += q.Received
				continue
			}
			f.received += q.Received
			f.refused += q.RxDropped + q.RxRingFull
			f.ringFull += q.RxRingFull
			f.fillEmpty += q.FillEmpty
		}
	}
	f.originated, f.out, f.punt = counters.Totals.Originated, counters.Totals.Sent, counters.Totals.Punted
	for _, x := range status.Workers {
		f.free += x.FramesFree
	}
	for _, e := range []*end{w.host, w.peer} {
		f.sent += e.sent
		lost, err := e.ns.Dropped("eth0")
		if err == nil {
			f.lost += lost
		}
		f.lost += e.lostEarlier
	}
	return f
}

// since returns what was added since an earlier reading.
func (f figures) since(o figures) figures {
	sub := func(m, o map[string]uint64) map[string]uint64 {
		d := map[string]uint64{}
		for k, v := range m {
			if v != o[k] {
				d[k] = v - o[k]
			}
		}
		return d
	}
	f.xdp, f.drops = sub(f.xdp, o.xdp), sub(f.drops, o.drops)
	for _, x := range []struct{ a, b *uint64 }{
		{&f.sent, &o.sent}, {&f.lost, &o.lost}, {&f.received, &o.received}, {&f.refused, &o.refused}, {&f.fromKernel, &o.fromKernel},
		{&f.ringFull, &o.ringFull}, {&f.fillEmpty, &o.fillEmpty}, {&f.originated, &o.originated}, {&f.out, &o.out}, {&f.punt, &o.punt},
	} {
		*x.a -= *x.b
	}
	// The kernel may speak on its TUN interface at any time: no policy is for that.
	if f.fromKernel > 0 && f.drops["no-policy"] == f.fromKernel {
		delete(f.drops, "no-policy")
		f.fromKernel = 0
	}
	return f
}

func sum(m map[string]uint64) (n uint64) {
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// toWorkers are the verdicts that send a packet to a worker.
var toWorkers = []string{"esp", "ah", "esp-in-udp", "protect", "cleartext", "spoofed", "udp-fragment", "icmp-error"}

// unbalanced says what does not add up, "" if all does: injected = steering verdicts + what the cables lost;
// redirected = received by workers + refused by sockets; received + made = sent + punted + dropped.
func (f figures) unbalanced() string {
	var wrong []string
	if seen := sum(f.xdp) + f.lost; seen != f.sent {
		wrong = append(wrong, fmt.Sprintf("%d frames sent, %d seen by the steering program or lost on the cable", f.sent, seen))
	}
	var redirected uint64
	for _, name := range toWorkers {
		redirected += f.xdp[name]
	}
	if redirected != f.received+f.refused {
		wrong = append(wrong, fmt.Sprintf("%d redirected, %d received by workers, %d refused by sockets", redirected, f.received, f.refused))
	}
	if in, out := f.received+f.fromKernel+f.originated, f.out+f.punt+sum(f.drops); in != out {
		wrong = append(wrong, fmt.Sprintf("%d received, %d from the kernel, %d made, but %d sent, %d punted, %d dropped", f.received, f.fromKernel, f.originated, f.out, f.punt, sum(f.drops)))
	}
	return strings.Join(wrong, "; ")
}

// settle waits until everything sent since before adds up and returns what was counted since then.
func (w *wire) settle(before figures) figures {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		f := w.figures().since(before)
		wrong := f.unbalanced()
		if wrong == "" {
			return f
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the sums do not match: %s\n%+v", wrong, f)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// still waits until nothing moves and the sums match.
func (w *wire) still() figures {
	w.t.Helper()
	last, same := w.figures(), 0
	for range 100 {
		time.Sleep(30 * time.Millisecond)
		now := w.figures()
		d := now.since(last)
		if sum(d.xdp)+sum(d.drops)+d.received+d.fromKernel+d.out+d.originated == 0 && now.free == last.free {
			if same++; same == 3 {
				return now
			}
		} else {
			same = 0
		}
		last = now
	}
	w.t.Fatalf("the gateway does not come to rest: %+v", last)
	return last
}

// home fails unless the workers hold as many frames idle as when nothing was in flight before.
func (w *wire) home(before figures) {
	w.t.Helper()
	var free uint64
	for range 100 {
		if free = w.figures().free; free == before.free {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	w.t.Errorf("%d frames idle at rest, %d at rest before", free, before.free)
}
