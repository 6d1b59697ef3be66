package wire

import (
	"fmt"

	"github.com/asavie/xdp"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/xsk"
	"sallyport/tools/testbed"
)

// burstMax is how many frames a sender hands over at once: well below the 256 that veth's own ring holds.
const burstMax = 32

// ring is a way to send frames. It belongs to one thread.
type ring interface {
	// reserve returns up to n buffers for frames; what is not sent is reserved again.
	reserve(n int) [][]byte
	// send sends the frames, which are the beginnings of the buffers of the last reserve, and returns how many were taken.
	send(frames [][]byte) (int, error)
	close() error
}

// Names of the senders that can be paced.
const (
	SenderXSK    = "xsk"    // our own rings
	SenderAsavie = "asavie" // github.com/asavie/xdp, which shares nothing with ours
)

func newRing(kind string, ns *testbed.Namespace, name string) (ring, error) {
	index, err := ns.Index(name)
	if err != nil {
		return nil, err
	}
	if kind == SenderAsavie {
		return newAsavie(ns, index)
	}
	return newXSK(ns, index, name)
}

// xskRing sends by package xsk.
type xskRing struct {
	umem   *xsk.UMEM
	socket *xsk.Socket
	free   []uint64
	out    []packet.Desc
	frames [][]byte
	done   [burstMax]uint64
}

// txFrames is how many frames wait or travel at most.
const txFrames = 1024

func newXSK(ns *testbed.Namespace, index int, name string) (*xskRing, error) {
	u, err := xsk.NewUMEM(txFrames)
	if err != nil {
		return nil, err
	}
	domain := xsk.NewDomain(u, xsk.Copy, true, func() (fd int, err error) {
		err = ns.Do(func() (err error) { fd, err = xsk.OpenLocal(); return err })
		return fd, err
	})
	r := &xskRing{umem: u}
	if r.socket, err = domain.Open(xsk.Config{Ifindex: index, Ifname: name}); err != nil {
		u.Close()
		return nil, err
	}
	for i := range txFrames {
		r.free = append(r.free, uint64(i*packet.FrameSize))
	}
	return r, nil
}

func (r *xskRing) reserve(n int) [][]byte {
	for len(r.free) < n {
		got := r.socket.Complete(r.done[:])
		if got == 0 {
			break
		}
		r.free = append(r.free, r.done[:got]...)
	}
	r.frames = r.frames[:0]
	for _, a := range r.free[len(r.free)-min(n, len(r.free)):] {
		r.frames = append(r.frames, r.umem.Mem()[a:][:packet.LenMax])
	}
	return r.frames
}

func (r *xskRing) send(frames [][]byte) (int, error) {
	r.out = r.out[:0]
	first := len(r.free) - len(r.frames)
	for i, f := range frames {
		r.out = append(r.out, packet.Desc{Addr: r.free[first+i], Len: uint32(len(f))})
	}
	taken := r.socket.Transmit(r.out)
	// What was not taken goes to the place of what was.
	copy(r.free[first:], r.free[first+taken:])
	r.free = r.free[:len(r.free)-taken]
	return taken, r.socket.Flush()
}

func (r *xskRing) close() error {
	err := r.socket.Close()
	if e := r.umem.Close(); err == nil {
		err = e
	}
	return err
}

// asavieRing sends by github.com/asavie/xdp. That never unmaps its rings, so the kernel keeps the socket, and its namespace
// without a name, until this process ends.
type asavieRing struct {
	socket *xdp.Socket
	descs  []xdp.Desc
	frames [][]byte
}

func newAsavie(ns *testbed.Namespace, index int) (*asavieRing, error) {
	r := &asavieRing{}
	return r, ns.Do(func() (err error) {
		r.socket, err = xdp.NewSocket(index, 0, &xdp.SocketOptions{
			// Few frames, for it looks for free ones from the first on.
			NumFrames: 4 * burstMax, FrameSize: 2048, FillRingNumDescs: 64, CompletionRingNumDescs: 256, RxRingNumDescs: 64, TxRingNumDescs: 256,
		})
		return err
	})
}

func (r *asavieRing) reserve(n int) [][]byte {
	if done := r.socket.NumCompleted(); done > 0 {
		r.socket.Complete(done)
	}
	r.descs = r.socket.GetDescs(n)
	r.frames = r.frames[:0]
	for _, d := range r.descs {
		r.frames = append(r.frames, r.socket.GetFrame(d))
	}
	return r.frames
}

// send kicks the kernel by the library's call, which panics at what it does not expect, such as an interface that is gone.
func (r *asavieRing) send(frames [][]byte) (taken int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("asavie/xdp: %v", p)
		}
	}()
	for i, f := range frames {
		r.descs[i].Len = uint32(len(f))
	}
	return r.socket.Transmit(r.descs[:len(frames)]), nil
}

func (r *asavieRing) close() error { return r.socket.Close() }
