package ike

import "sync/atomic"

type (
	serverBox struct{ atomic.Pointer[Server] }
	flag      struct{ atomic.Bool }
)
