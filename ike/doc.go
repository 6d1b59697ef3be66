// Package ike is the IKEv2 server: many IKE SAs on a few goroutines.
//
//	Receive ─► gate: header, cookie, half-open limits; no state ─► shard queue ─┐
//	Acquire, Expired, PeerMoved, AddressesChanged (data plane) ─────────────────┤► shard: SPI ─► ikesa.SA ─► outputs, in order
//	Up, Down, Rekey, Apply (operator) ─► manager: links, tries, failover, DNS ──┘      ▲                       │
//	                        ▲                                                          timers                  ├─► Transport
//	                        └──────────────────── what became of it ───────────────────────────────────────────┴─► Kernel
//
// An IKE SA belongs to one shard for life: the low bits of our SPI name it, and its successors get SPIs of the same
// shard. A shard is one goroutine; nothing it needs for a datagram is locked against other shards. The manager is one
// more goroutine; it decides which connections should be up, and never handles a datagram.
//
// Not handled here: what an exchange means (ikesa), sockets (Transport), associations (Kernel), configuration files.
package ike
