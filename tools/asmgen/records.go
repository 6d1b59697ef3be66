package main

// Sizes and flags of package packet, and layouts of its Batch and Packet, in bytes. Tests of the packages that use the assembly hold all these
// and the types together.
const (
	frameSize = 4096
	tailSlack = 64
	batchMax  = 64

	etherLen  = 14
	ipv4Len   = 20
	ipv4DF    = 16384
	protoTCP  = 6
	protoUDP  = 17
	protoESP  = 50
	tcpSYN    = 2
	protoIPv4 = 4

	batchMem   = 0
	batchP     = 24
	batchN     = 4120
	batchFlows = 4128

	packetAddr    = 0
	packetLen     = 8
	packetPort    = 10
	packetL3      = 12 // and L4
	packetEnd     = 16 // then ports, version and protocol
	packetVersion = 22
	packetTOS     = 24 // then TTL and flags
	packetFlags   = 26
	packetClass   = 28
	packetSPI     = 32 // and slot
	packetSlot    = 36
	packetSeq     = 40
	packetHop     = 48 // and tunnel
	packetReason  = 56
	packetSize    = 64

	classOutbound = 1
	classForward  = 3
	flagPorts     = 1
	flagDF        = 8
	// flagsKept are those that a packet keeps when it is encapsulated.
	flagsKept = 192
	// classInbound is that of packets that are to be opened.
	classInbound = 2
	// flagsOpened are those of what came out of an association and has ports.
	flagsOpened = 513

	packetFlowSrc  = 0
	packetFlowDst  = 16
	packetFlowRest = 32
	packetFlowSize = 40
)

// Layout of sad.Outbound.
const (
	outboundLive          = 0
	outboundSPI           = 4 // and slot
	outboundSlot          = 8
	outboundOwner         = 12
	outboundWant          = 16
	outboundHop           = 20
	outboundHopGeneration = 24
	outboundFlags         = 28
	outboundIVLen         = 33
	outboundICVLen        = 34
	outboundAlign         = 35
	outboundHeaderLen     = 37
	outboundMTU           = 38
	outboundSeq           = 40
	outboundSeqMax        = 48
	outboundPath          = 64
	outboundBound         = 68
	outboundLast          = 80
	outboundRoom          = 104 // of the front, then of the trailer
	outboundHeaderSum     = 106
	outboundHeader        = 108
	outboundSize          = 256
)

// Layout of fib.Hop; kinds of next hops that lead to a neighbour follow each other.
const (
	hopKind = 0
	hopMTU  = 4
	hopSize = 64

	kindForward = 1
	kindsLead   = 3
)

// Layouts of transform.GCMRun, in which the salt stands behind the key, and of plainOutbound of package esp.
const (
	gcmRunSPI    = 12
	gcmRunAADLen = 16

	plainBatch   = 0
	plainLive    = 8
	plainSA      = 32
	plainOf      = 56
	plainOps     = 64
	plainLengths = 88
	plainGCM     = 112
	plainTOSMask = 136
	plainCopyDF  = 140
	plainSetDF   = 148
	plainID      = 156
	plainSeq     = 160
	plainBytes   = 168
	plainFrom    = 176
	plainKeys    = 184
	plainNow     = 208
	plainDue     = 216
	plainRuns    = 224
	plainDone    = 232

	// otherForm are the flags of associations whose packets have another form; flagESN to flagSetDF are the bits of some others.
	otherForm     = 2923522
	bitESN        = 2
	bitECN        = 3
	bitCopyDSCP   = 4
	bitCopyDF     = 5
	bitSetDF      = 6
	runSize       = 24 // association, packets, bytes
	plainHeader   = 28
	transformSize = 576 // of a transform.Key

	// plainFront is what stands in front of the text: IPv4 header, SPI, sequence number, IV; trailerLen is that of pad length and next header.
	plainFront = 36
	trailerLen = 2
)

// Layouts of package worker: outRun, flows, flowEntry4, known. A place has the size of four entries, 128 bytes.
const (
	expressLen = 48

	outBatch     = 0
	outFlows     = 8
	outProtected = 16
	outValid     = 24
	outSA        = 32
	outMTU       = 40
	outHandle    = 48
	outHop       = 56 // and tunnel
	outTunnel    = 60
	outOutbound  = 64
	outList      = 72
	outTook      = 80
	outNext      = 88
	outSlots     = 96
	outHops      = 120
	outMask      = 144
	outOwner     = 148
	outRoutes    = 152

	// notPlain are the flags of associations that outRun does not turn to.
	notPlain = 6839808

	flowsPlaces = 0
	flowsShift  = 96
	flowsSeed   = 104

	flowRest   = 0
	flowAddrs  = 8
	flowKnown  = 16
	flowSize   = 32
	knownValid = 0
	knownWay   = 8
	knownOf    = 12
)

// Layout of inRun of package worker.
const (
	inRunBatch  = 0
	inRunFlows  = 8
	inRunIn     = 16
	inRunList   = 40
	inRunValid  = 48
	inRunRoutes = 56
	inRunWay    = 60
	inRunMTU    = 64
	inRunNext   = 72
	inRunKept   = 80
	inRunTook   = 88
)

// Layouts of sad.Inbound and sad.Finder, and of replay.Window and spd.Plain within the former.
const (
	inboundLive      = 0
	inboundSPI       = 4
	inboundSlot      = 8
	inboundOwner     = 12 // and wish
	inboundFlags     = 24
	inboundVersion   = 36
	inboundWindow    = 40
	inboundPackets   = 56
	inboundBytes     = 64
	inboundLast      = 72
	inboundBounds    = 80 // of bytes, then of packets
	inboundPlain     = 96
	inboundAddresses = 116
	inboundSize      = 192

	windowTop  = 0
	windowRun  = 8
	windowSpan = 12
	windowLog  = 14

	plainRemote  = 0
	plainRemotes = 4
	plainLocal   = 8
	plainLocals  = 12
	plainProto   = 16
	plainMatters = 18
	// noPlain is what protocol and the bits of it that matter are where no packet matches.
	noPlain = 16777472

	finderSlots = 0
	finderKeys  = 24
	finderOwner = 48
	finderKnown = 56
	// knownLog is the binary logarithm of how many SPIs a finder knows.
	knownLog = 12
)

// Layout of plainInbound of package esp, and the bit of sad.FlagEncap.
const (
	openBatch = 0
	openLive  = 8
	openOps   = 32
	openIn    = 56
	openFrom  = 64
	openEnd   = 72
	openTop   = 80
	openBytes = 88
	openRuns  = 96
	openRun   = 120
	openNow   = 128
	openDue   = 136
	openFront = 144
	openECN   = 152

	flagEncap = 1
	// openRunSize is the size of an openRun: association, packets.
	openRunSize = 16
)

// Layout of plainTaken of package esp.
const (
	takeBatch     = 0
	takeIn        = 8
	takeFrom      = 16
	takeFind      = 24
	takeRuns      = 32
	takeDone      = 40
	takeOps       = 48
	takeFirst     = 72
	takeAddresses = 80
	takeGCM       = 88
	takeHi        = 112
	takeAbove     = 120
	takeSlot      = 124
	takePort      = 128
	takeLate      = 130

	// notTurned are the flags of associations that are not turned to.
	notTurned = 2940433
)

// Layout of departure, in which the link header's ends for IPv4 and IPv6 stand behind its beginning, and the bit of packet.FlagSealed.
const (
	departureBatch  = 0
	departureList   = 8
	departureDescs  = 32
	departureSealed = 56
	departureLink   = 80
	departureHop    = 104
	departurePort   = 108
	departureFlags  = 110

	flagSealedBit = 8
)
