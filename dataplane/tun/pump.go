// Package tun carries packets between the gateway's TUN device and a queue of the packet workers,
// in two goroutines off the packet path: what the kernel sends into the tunnels, and what workers
// hand to the kernel.
//
//	kernel ─ read ─▶ IP datagram ─▶ Ethernet header in front ─▶ Queue.Inject ─▶ worker
//	kernel ◀ write ─ IP datagram ◀─ Ethernet header taken off ◀─ Queue.Drain ◀─ worker
package tun

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
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

// waitMax bounds how long the writing goroutine sleeps, so that it sees the end.
const waitMax = 50 * time.Millisecond

// idlePause keeps the writing goroutine from spinning on a queue that says "ready" and gives nothing.
const idlePause = 200 * time.Microsecond

// Queue is the far end of an in-memory queue. Inject and Drain are called from one goroutine each.
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
	// ToKernel were written; ToKernelBad are no IP frames; ToKernelFailed were refused by the device.
	ToKernel, ToKernelBad, ToKernelFailed uint64
}

// Pump moves packets between a device and a queue.
type Pump struct {
	file  *os.File
	queue Queue
	read  []byte
	done  chan struct{}
	wait  sync.WaitGroup
	once  sync.Once

	fromKernel, fromKernelFull, fromKernelBad atomic.Uint64
	toKernel, toKernelBad, toKernelFailed     atomic.Uint64
}

// Start begins to move packets. File is the device without packet information (keeper.TUN.File,
// non-blocking); it stays the caller's, and open until Close has returned. Datagrams from the
// kernel may have up to mtu bytes.
func Start(file *os.File, queue Queue, mtu int) *Pump {
	p := &Pump{file: file, queue: queue, read: make([]byte, headerSize+mtu+1), done: make(chan struct{})}
	_ = file.SetReadDeadline(time.Time{}) // a pump before may have left its own
	p.wait.Add(2)
	go p.inward()
	go p.outward()
	return p
}

// Close stops both goroutines and returns when they have ended. Frames that workers transmitted
// before are written first.
func (p *Pump) Close() {
	p.once.Do(func() {
		close(p.done)
		_ = p.file.SetReadDeadline(time.Unix(1, 0))
		p.queue.Interrupt()
		p.wait.Wait()
	})
}

// Counters returns the figures. Anyone may call it.
func (p *Pump) Counters() Counters {
	return Counters{
		p.fromKernel.Load(), p.fromKernelFull.Load(), p.fromKernelBad.Load(),
		p.toKernel.Load(), p.toKernelBad.Load(), p.toKernelFailed.Load(),
	}
}

func (p *Pump) stopped() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// inward reads from the device until Close, or until the device is gone.
func (p *Pump) inward() {
	defer p.wait.Done()
	for !p.stopped() {
		n, err := p.file.Read(p.read[headerSize:])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
				return
			}
			// The device is down (EIO) or deleted (EBADFD): it may come up again.
			select {
			case <-p.done:
				return
			case <-time.After(waitMax):
			}
			continue
		}
		switch {
		case n == 0 || headerSize+n == len(p.read) || !writeHeader(p.read, p.read[headerSize]):
			p.fromKernelBad.Add(1)
		case p.queue.Inject(p.read[:headerSize+n]):
			p.fromKernel.Add(1)
		default:
			p.fromKernelFull.Add(1)
		}
	}
}

// writeHeader writes an Ethernet header with zero addresses for a datagram whose first octet is
// given; false if it is neither IPv4 nor IPv6.
func writeHeader(frame []byte, first byte) bool {
	clear(frame[:12])
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

// outward writes to the device what workers transmit, until Close.
func (p *Pump) outward() {
	defer p.wait.Done()
	idle := 0
	for !p.stopped() {
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
	if _, err := p.file.Write(datagram); err != nil {
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
