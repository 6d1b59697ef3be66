package wire

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"sallyport/dataplane/threads"
	"sallyport/tools/testbed"
)

const (
	slots    = 8192 // frames the program takes turns to send
	slotSize = 2048
	// liveRepeat is how many frames one call sends: about a second, for each call ends with a wait for
	// the kernel to let go of its pages, of some 25 ms.
	liveRepeat = 1 << 21
	// runLiveFrames is BPF_F_TEST_XDP_LIVE_FRAMES (kernel: include/uapi/linux/bpf.h).
	runLiveFrames = 1 << 1
	verdictTX     = 3 // XDP_TX
	verdictDrop   = 1 // XDP_DROP
)

// generator sends frames as fast as one core can: an XDP program run by the kernel on live
// frames. The frames' pages come back as their last receiver left them, so
// the program writes every frame whole, from a ring of slots that user space fills. Where each
// packet must be sealed, a second thread on the same CPU does that meanwhile; the
// program drops what is not ready yet, so the order and every sequence number stay.
type generator struct {
	program  *ebpf.Program
	frames   *ebpf.Map
	position *ebpf.Map
	memory   []byte // the slots, mapped
	counts   []byte // the position, mapped
	shared   *shared
	length   int
	stopped  atomic.Bool
	done     chan struct{}
	failed   chan error
	source   *source
}

// newGenerator fills the slots with frames of the source, which all have one length; where they are sealed, that is left to the
// sealer.
func newGenerator(s *source) (_ *generator, err error) {
	g := &generator{length: s.offered()[0].length, source: s, failed: make(chan error, 2)}
	defer func() {
		if err != nil {
			g.free()
		}
	}()
	if g.frames, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: slotSize, MaxEntries: slots, Flags: unix.BPF_F_MMAPABLE}); err != nil {
		return nil, fmt.Errorf("map of frames: %w", err)
	}
	if g.position, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(sharedSize), MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}); err != nil {
		return nil, fmt.Errorf("map of the sender's position: %w", err)
	}
	if g.memory, err = unix.Mmap(g.frames.FD(), 0, slots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("mapping frames: %w", err)
	}
	if g.counts, err = unix.Mmap(g.position.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("mapping the sender's position: %w", err)
	}
	g.shared = sharedIn(g.counts)
	if !s.decrypt {
		for i := range slots {
			s.fill([][]byte{g.slot(i)}, nil)
		}
		g.shared.sealed.Store(math.MaxInt64) // always ready
	}
	g.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, g.position.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord), // sent
		asm.LoadMem(asm.R8, asm.R0, 8, asm.DWord), // sealed
		asm.JGE.Reg(asm.R7, asm.R8, "drop"),
		asm.Mov.Reg(asm.R8, asm.R7),
		asm.Add.Imm(asm.R8, 1),
		asm.StoreMem(asm.R0, 0, asm.R8, asm.DWord),
		asm.And.Imm(asm.R7, slots-1),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, g.frames.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R0),
		asm.Mov.Imm(asm.R4, int32(g.length)),
		asm.FnXdpStoreBytes.Call(),
		asm.Mov.Imm(asm.R0, verdictTX),
		asm.Return(),
		asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"),
		asm.Return(),
	}})
	if err != nil {
		return nil, fmt.Errorf("sender's program: %w", err)
	}
	return g, nil
}

func (g *generator) slot(i int) []byte { return g.memory[i*slotSize:][:g.length:slotSize] }

// xdpMD is struct xdp_md (kernel: include/uapi/linux/bpf.h).
type xdpMD struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }

// start sends out of an interface from a thread on one CPU until stop.
func (g *generator) start(ns *testbed.Namespace, name string, cpu int) error {
	index, err := ns.Index(name)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	if g.source.decrypt {
		running.Go(func() {
			runtime.LockOSThread() // ends with this goroutine, pinned as it is
			if err := g.seal(cpu); err != nil {
				g.failed <- fmt.Errorf("sealer: %w", err)
			}
		})
	}
	running.Go(func() {
		// The thread is pinned and in the namespace: it ends with this goroutine, locked.
		runtime.LockOSThread()
		err := ns.Do(func() error {
			runtime.LockOSThread() // and so does the one that Do works on
			return g.run(index, cpu)
		})
		if err != nil {
			g.failed <- fmt.Errorf("sender: %w", err)
		}
	})
	g.done = make(chan struct{})
	go func() {
		running.Wait()
		close(g.done)
	}()
	return nil
}

func (g *generator) run(index, cpu int) error {
	if err := threads.Pin(cpu); err != nil {
		return err
	}
	options := ebpf.RunOptions{
		Data:    make([]byte, g.length),
		Context: xdpMD{DataEnd: uint32(g.length), Ingress: uint32(index)},
		Repeat:  liveRepeat, Flags: runLiveFrames,
	}
	for !g.stopped.Load() {
		if _, err := g.program.Run(&options); err != nil {
			return err
		}
	}
	return nil
}

// seal keeps the slots full of fresh packets until stop, on the sender's CPU.
func (g *generator) seal(cpu int) error {
	if err := threads.Pin(cpu); err != nil {
		return err
	}
	batch := make([][]byte, 0, len(g.source.ops))
	for next := uint64(0); !g.stopped.Load(); {
		if next-g.shared.sent.Load() > slots-uint64(cap(batch)) {
			time.Sleep(50 * time.Microsecond)
			continue
		}
		batch = batch[:0]
		for range cap(batch) {
			batch = append(batch, g.slot(int(next%slots)))
			next++
		}
		g.source.fill(batch, nil)
		g.shared.sealed.Store(next)
	}
	return nil
}

// halt ends the sending.
func (g *generator) halt() {
	g.stopped.Store(true)
	if g.done != nil {
		<-g.done
	}
}

// stop ends the sending and frees what it needed.
func (g *generator) stop() {
	g.halt()
	g.free()
}

func (g *generator) free() error {
	var err error
	if g.memory != nil {
		err = unix.Munmap(g.memory)
		g.memory = nil
	}
	if g.counts != nil {
		err = errors.Join(err, unix.Munmap(g.counts))
		g.counts = nil
	}
	return errors.Join(err, g.program.Close(), g.position.Close(), g.frames.Close())
}
