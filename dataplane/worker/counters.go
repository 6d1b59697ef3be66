package worker

import "sallyport/dataplane/packet"

// Counters are one worker's counters. The worker alone writes them; anyone may
// read. Once the worker is idle
//
//	Received + Originated = Sent + Punted + Delivered + Merged + sum of Drops + HandedOut - HandedIn
//
// and over all workers HandedOut = HandedIn, but for what lies in the rings.
type Counters struct {
	Drops [packet.DropCount]packet.Counter

	Received       packet.Counter // packets taken from RX rings
	ReceivedBytes  packet.Counter // frame bytes of those
	Sent           packet.Counter // packets put on the TX rings of interfaces
	SentBytes      packet.Counter
	SentESP        packet.Counter // of Sent: ESP packets that this gateway sealed
	Punted         packet.Counter // packets put on the queue to the kernel
	Delivered      packet.Counter // packets put on the queue to the IKE side
	Originated     packet.Counter // packets that the gateway made: ICMP errors, fragments beyond the first
	Merged         packet.Counter // fragments whose data went into another one's frame: outer datagrams that were put together
	Reassembled    packet.Counter // outer datagrams that were put together
	Fragmented     packet.Counter // packets that were cut up: before encryption, or forwarded in pieces
	FragmentedESP  packet.Counter // ESP packets that were cut up, after encryption
	EventsLost     packet.Counter // events for key management that found their ring full
	ICMPSuppressed packet.Counter // ICMP errors that the rate limit or RFC 1122 forbade
	Bypassed       packet.Counter // cleartext packets forwarded as policy or the lack of one allows

	Sealed packet.Counter // packets encapsulated by this worker
	Opened packet.Counter // packets decapsulated by this worker

	HandedOut packet.Counter // packets given to other workers
	HandedIn  packet.Counter // packets taken from other workers
	Parked    packet.Counter // packets that waited for a neighbour
	Waited    packet.Counter // packets that waited for an association

	FreeFrames packet.Counter // frames of the worker's home that it holds idle: a level, not a count

	Batches packet.Counter // batches with at least one packet
	Sleeps  packet.Counter // times the worker went to sleep in poll
	Busy    packet.Counter // nanoseconds spent on batches with at least one packet
}

// QueueCounters are those of one queue, written by the worker that serves it, once a batch.
type QueueCounters struct {
	Received, Sent packet.Counter // packets
	_              [packet.Apart - 16]byte
}
