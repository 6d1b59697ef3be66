// Package prefetch asks the processor for memory that will be read soon. Packets are written by
// another core (the kernel's copy) or by a device, so the first touch of each cache line costs a
// transfer; asked for one packet ahead, it costs next to nothing.
package prefetch

// Line is the distance between two requests: a cache line.
const Line = 64
