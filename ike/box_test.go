package ike

import (
	"bytes"
	"sync"
	"sync/atomic"
)

type (
	serverBox struct{ atomic.Pointer[Server] }
	flag      struct{ atomic.Bool }
)

// paper is what a log is written on.
type paper struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *paper) Bytes() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.b.Bytes())
}
