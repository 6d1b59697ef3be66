// Package tun carries packets between the gateway's TUN devices and a queue of the packet workers,
// in goroutines off the packet path, one for each device and one back: what the kernel sends into the tunnels, and what workers
// hand to the kernel.
//
//	kernel ─ read ─▶ IP datagram ─▶ Ethernet header in front ─▶ Queue.Inject ─▶ worker
//	kernel ◀ write ─ IP datagram ◀─ Ethernet header taken off ◀─ Queue.Drain ◀─ worker
//
// The Ethernet header says which device a packet is of ([packet.InterfaceOf]): 0 for the gateway's own, else that of a virtual
// interface.
package tun

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/dataplane/packet"
)

// headerSize is the length of an Ethernet header without tags.
const headerSize = 14

// EtherTypes (IEEE 802 numbers).
const (
	etherTypeIPv4 = 0x0800
	etherTypeVLAN = 0x8100
	etherTypeQinQ = 0x88a8
	etherTypeIPv6 = 0x86dd
)

// waitMax bounds how long the writing goroutine sleeps; Close wakes it. It is long because every sleep in a system call has Go's monitor thread
// look after it some 60 times: 20 a second cost a hundredth of a core, on an idle gateway too. retryPause is between two looks at a device that is down.
const (
	waitMax    = 2 * time.Second
	retryPause = 50 * time.Millisecond
)

// idlePause keeps the writing goroutine from spinning on a queue that says "ready" and gives nothing.
const idlePause = 200 * time.Microsecond

// Queue is the far end of an in-memory queue. Inject is called from several goroutines, Drain from one.
type Queue interface {
	// Inject copies a frame into the worker's receive ring; false means that there was no room.
	Inject(frame []byte) bool
	// Drain shows each frame that the worker transmitted and completes it, and returns how many.
	Drain(f func(frame []byte)) int
	// Wait returns when there is something to drain, after Interrupt, or after d. It may return early.
	Wait(d time.Duration)
	// Interrupt makes a Wait under way, or the next one, return.
	Interrupt()
}

// Counters are a pump's figures. Every datagram lands in exactly one counter of its direction.
type Counters struct {
	// FromKernel were injected; FromKernelFull found no room; FromKernelBad are no IP.
	FromKernel, FromKernelFull, FromKernelBad uint64
	// ToKernel were written; ToKernelBad are no IP frames; ToKernelFailed were refused by the device, or there is none.
	ToKernel, ToKernelBad, ToKernelFailed uint64
}

// Pump moves packets between devices and a queue.
type Pump struct {
	queue Queue
	done  chan struct{}
	wait  sync.WaitGroup // for outward
	once  sync.Once

	mu      sync.RWMutex
	devices map[uint16]*device

	fromKernel, fromKernelFull, fromKernelBad atomic.Uint64
	toKernel, toKernelBad, toKernelFailed     atomic.Uint64
}

// device is one device with its reader.
type device struct {
	file *os.File
	read []byte
	done chan struct{}
	wait sync.WaitGroup
}

// Start begins to move packets. File is the device without packet information (keeper.TUN.File,
// non-blocking); it stays the caller's, and open until Close has returned. Datagrams from the
// kernel may have up to mtu bytes.
func Start(file *os.File, queue Queue, mtu int) *Pump {
	p := &Pump{queue: queue, done: make(chan struct{}), devices: map[uint16]*device{}}
	p.Add(0, file, mtu)
	p.wait.Add(1)
	go p.outward()
	return p
}

// Add begins to move the packets of another device, a virtual interface by its number, which no device has. Its file is as in Start, and open
// until Remove or Close has returned.
func (p *Pump) Add(number uint16, file *os.File, mtu int) {
	d := &device{file: file, read: make([]byte, headerSize+mtu+1), done: make(chan struct{})}
	to := packet.InterfaceMAC(number)
	copy(d.read, to[:])
	_ = file.SetReadDeadline(time.Time{}) // a pump before may have left its own
	p.mu.Lock()
	p.devices[number] = d
	p.mu.Unlock()
	d.wait.Add(1)
	go p.inward(d)
}

// Remove ends what Add began; what workers still transmit there is refused. It returns when the file is not used any more.
func (p *Pump) Remove(number uint16) {
	p.mu.Lock()
	d := p.devices[number]
	delete(p.devices, number)
	p.mu.Unlock()
	if d != nil {
		d.stop()
	}
}

// stop ends the device's reader and waits for it.
func (d *device) stop() {
	close(d.done)
	_ = d.file.SetReadDeadline(time.Unix(1, 0))
	d.wait.Wait()
}

// Close stops all goroutines and returns when they have ended. Frames that workers transmitted
// before are written first.
func (p *Pump) Close() {
	p.once.Do(func() {
		close(p.done)
		p.queue.Interrupt()
		p.wait.Wait()
		for number := range p.devices {
			p.Remove(number)
		}
	})
}

// Counters returns the figures. Anyone may call it.
func (p *Pump) Counters() Counters {
	return Counters{
		p.fromKernel.Load(), p.fromKernelFull.Load(), p.fromKernelBad.Load(),
		p.toKernel.Load(), p.toKernelBad.Load(), p.toKernelFailed.Load(),
	}
}

func stopped(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// inward reads from a device until it is stopped, or until the device is gone.
func (p *Pump) inward(d *device) {
	defer d.wait.Done()
	for !stopped(d.done) {
		n, err := d.file.Read(d.read[headerSize:])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
				return
			}
			// The device is down (EIO) or deleted (EBADFD): it may come up again.
			select {
			case <-d.done:
				return
			case <-time.After(retryPause):
			}
			continue
		}
		switch {
		case n == 0 || headerSize+n == len(d.read) || !writeType(d.read, d.read[headerSize]):
			p.fromKernelBad.Add(1)
		case p.queue.Inject(d.read[:headerSize+n]):
			p.fromKernel.Add(1)
		default:
			p.fromKernelFull.Add(1)
		}
	}
}

// writeType writes the EtherType for a datagram whose first octet is given; false if it is neither IPv4 nor IPv6.
func writeType(frame []byte, first byte) bool {
	switch first >> 4 {
	case 4:
		binary.BigEndian.PutUint16(frame[12:], etherTypeIPv4)
	case 6:
		binary.BigEndian.PutUint16(frame[12:], etherTypeIPv6)
	default:
		return false
	}
	return true
}

// outward writes to the devices what workers transmit, until Close.
func (p *Pump) outward() {
	defer p.wait.Done()
	idle := 0
	for !stopped(p.done) {
		if p.queue.Drain(p.write) > 0 {
			idle = 0
			continue
		}
		if idle++; idle > 2 {
			// Wait may return at once while the worker leaves no room for completions.
			time.Sleep(idlePause)
		}
		began := time.Now()
		p.queue.Wait(waitMax)
		if time.Since(began) > idlePause {
			idle = 0
		}
	}
	p.queue.Drain(p.write)
}

func (p *Pump) write(frame []byte) {
	datagram := datagramOf(frame)
	if datagram == nil {
		p.toKernelBad.Add(1)
		return
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	d := p.devices[packet.InterfaceOf(frame)]
	if d == nil {
		p.toKernelFailed.Add(1)
		return
	}
	if _, err := d.file.Write(datagram); err != nil {
		p.toKernelFailed.Add(1)
		return
	}
	p.toKernel.Add(1)
}

// datagramOf returns the IP datagram in a frame, behind up to two VLAN tags and without Ethernet
// padding; nil if there is none whole.
func datagramOf(frame []byte) []byte {
	at := headerSize
	for range 2 {
		if len(frame) < at {
			return nil
		}
		if t := binary.BigEndian.Uint16(frame[at-2:]); t != etherTypeVLAN && t != etherTypeQinQ {
			break
		}
		at += 4
	}
	if len(frame) < at+20 {
		return nil
	}
	d := frame[at:]
	size := 0
	switch etherType := binary.BigEndian.Uint16(frame[at-2:]); {
	case etherType == etherTypeIPv4 && d[0]>>4 == 4:
		size = int(binary.BigEndian.Uint16(d[2:]))
	case etherType == etherTypeIPv6 && d[0]>>4 == 6 && len(d) >= 40:
		size = 40 + int(binary.BigEndian.Uint16(d[4:]))
	}
	if size < 20 || size > len(d) {
		return nil
	}
	return d[:size]
}
