/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Types that the steering program and its loader share. bpf2go carries the
 * enums into Go, so no number stands in two places. */
#ifndef SALLYPORT_TYPES_H
#define SALLYPORT_TYPES_H

#include <linux/types.h>

/* Sizes of the socket maps: slot = port index * QUEUES_MAX + receive queue.
 * The loader learns them from the maps. */
#define PORTS_MAX 64
#define QUEUES_MAX 64
/* Each CPU remembers that many sets of so many packets' addresses; powers of two. */
#define KNOWN_SETS 1024
#define KNOWN_WAYS 2
#define SLOT_NONE (PORTS_MAX * QUEUES_MAX) /* outside both maps: the redirect falls back */

/* Role bits of a port. */
enum role {
	ROLE_PROTECTED = 1,
	ROLE_OUTSIDE = 2,
};

/* What an address is to this gateway. */
enum address_flag {
	ADDRESS_ENDPOINT = 1, /* an outer address of our tunnels */
	ADDRESS_OWN = 2,      /* an address of the gateway itself */
};

/* What a prefix is to the policies. A stored prefix carries the flags of every
 * prefix that covers it, because a trie look-up sees only the longest. */
enum prefix_flag {
	PREFIX_LOCAL = 1,
	PREFIX_REMOTE = 2,
	PREFIX_NAMED = 4, /* a policy names multicast or link-local addresses */
	PREFIX_PEER = 8,  /* the other end of transport mode */
	PREFIX_ROUTED = 16, /* routed into a virtual interface */
	PREFIX_PAST = 32,   /* a more special route that leads past them */
};

/* The verdicts. Every frame is counted in exactly one of them. Their order is
 * the table of what happens: see conclude() in steer.c. */
enum counter {
	/* to the kernel */
	COUNTER_PASS_NOT_IP,
	COUNTER_PASS_NEIGHBOUR,
	COUNTER_PASS_LINK_LOCAL,
	COUNTER_PASS_MULTICAST,
	COUNTER_PASS_OWN,
	COUNTER_PASS_OTHER,
	/* dropped here */
	COUNTER_DROP_MALFORMED,
	COUNTER_DROP_TAGS,
	COUNTER_DROP_VLAN,
	COUNTER_DROP_KEEPALIVE,
	/* to a worker; without a socket: dropped */
	COUNTER_ESP,
	COUNTER_AH,
	COUNTER_ESP_IN_UDP,
	COUNTER_PROTECT,
	COUNTER_CLEARTEXT,
	COUNTER_SPOOFED,
	/* to a worker; without a socket: to the kernel */
	COUNTER_UDP_FRAGMENT,
	COUNTER_ICMP_ERROR,
	/* to the IKE socket; without it: to the kernel */
	COUNTER_IKE,
	/* the fallbacks, counted instead of the verdicts above */
	COUNTER_NO_SOCKET_DROP,
	COUNTER_NO_SOCKET_PASS,
	COUNTER_COUNT,
};

struct port {
	__u32 index; /* below PORTS_MAX */
	enum role roles;
};

struct key4 {
	__u32 bits;
	__be32 address;
};

struct key6 {
	__u32 bits;
	__be32 address[4];
};

struct address6 {
	union {
		__be32 word[4];
		__u64 half[2];
	};
};

/* What the tables say of a packet's interface and addresses, in a word that also
 * says of which generation of the tables and for which packet: see ask() in
 * steer.c. Of IPv4 the first words of the addresses count. */
struct known {
	__u64 word;
	__u32 ifindex;
	struct address6 src, dst;
};

struct known_set {
	struct known way[KNOWN_WAYS];
};

#endif
