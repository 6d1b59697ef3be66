// Package release publishes the index of a ring: its entries, written or read before, then the index.
//
// The stores of sync/atomic are ordered with all others, later loads among them: on amd64 they wait until
// everything stored before has reached the cache, which for a batch of packets takes as long as some packets
// do. A ring's index only needs what its other end goes by: that what happened before it in the program happens
// before it there too.
package release
