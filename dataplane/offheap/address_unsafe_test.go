package offheap

import "unsafe"

// address is where the memory begins. It is compared with the kernel's lists and never turned back.
func address(m Mapping) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(m))) }
