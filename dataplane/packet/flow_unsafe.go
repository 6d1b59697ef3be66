package packet

import "unsafe"

// Rest returns what a flow is besides its addresses, as one number: ports, flags, version and protocol. The fields lie
// behind each other, eight bytes aligned to eight, which a test holds.
func (f *Flow) Rest() uint64 { return *(*uint64)(unsafe.Pointer(&f.SrcPort)) }
