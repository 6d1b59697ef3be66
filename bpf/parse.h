/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The cursor parser. Each helper checks bounds, advances the cursor and returns
 * the next protocol, or a negative number. */
#ifndef SALLYPORT_PARSE_H
#define SALLYPORT_PARSE_H

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

/* Of linux/icmp.h, which in some versions includes the C library's headers. */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

#define TAGS_MAX 2       /* 802.1Q/802.1ad tags looked through */
#define EXTENSIONS_MAX 8 /* IPv6 extension headers looked through */

enum parse_error {
	PARSE_MALFORMED = -1,
	PARSE_TAGS = -2,
};

struct cursor {
	struct xdp_md *ctx;
	void *pos;
	void *end;
};

/* What the verdict needs of an IP header. Addresses of IPv4 are in word 0. */
struct ip {
	struct address6 src, dst;
	__u8 version;
	__u8 hops;
	bool fragment;       /* offset not 0, or more to come */
	bool later_fragment; /* no upper-layer header here */
};

struct tag {
	__be16 tci;
	__be16 type;
};

struct extension {
	__u8 next;
	__u8 units; /* of 8 bytes, beyond the first */
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* take returns the next n bytes and steps over them, or NULL. */
static __always_inline void *take(struct cursor *c, __u32 n)
{
	void *at = c->pos;

	if (at + n > c->end)
		return NULL;
	c->pos = at + n;
	return at;
}

static __always_inline bool is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* parse_ethernet returns the EtherType in host order, and sets *vlan for a frame
 * of another VLAN than 0. Linux strips any number of priority tags (VLAN 0), so a
 * deeper stack must not hide an IP packet. */
static __always_inline int parse_ethernet(struct cursor *c, bool *vlan)
{
	struct ethhdr *eth = take(c, sizeof(*eth));
	__be16 type;

	if (!eth)
		return PARSE_MALFORMED;
	type = eth->h_proto;
#pragma unroll
	for (int i = 0; i < TAGS_MAX; i++) {
		struct tag *tag;

		if (!is_tag(type))
			break;
		tag = take(c, sizeof(*tag));
		if (!tag)
			return PARSE_MALFORMED;
		if (tag->tci & bpf_htons(0x0fff))
			*vlan = true;
		type = tag->type;
	}
	return is_tag(type) ? PARSE_TAGS : bpf_ntohs(type);
}

/* parse_ipv4 returns the protocol and steps over the options. */
static __always_inline int parse_ipv4(struct cursor *c, struct ip *ip)
{
	struct iphdr *h = take(c, sizeof(*h));

	if (!h || h->version != 4 || h->ihl < 5)
		return PARSE_MALFORMED;
	if (!take(c, (h->ihl - 5) * 4))
		return PARSE_MALFORMED;
	ip->version = 4;
	ip->hops = h->ttl;
	ip->src.word[0] = h->saddr;
	ip->dst.word[0] = h->daddr;
	ip->fragment = h->frag_off & bpf_htons(0x3fff);
	ip->later_fragment = h->frag_off & bpf_htons(0x1fff);
	return h->protocol;
}

#define OFFSET_MAX 0x3fff /* a chain that reaches further is malformed; also the verifier's bound */

/* walk_extensions walks the chain that starts at offset from the frame's
 * first byte with protocol proto. It returns the upper-layer protocol (of a later
 * fragment, what its header names: RFC 8200, 4) in bits 0..7, fragment in bit 8,
 * later_fragment in bit 9, and the offset behind the chain from bit 16 on; or
 * PARSE_MALFORMED. A global function, so that the verifier looks at the loop
 * once and not once a path that leads to it. */
__attribute__((noinline)) int walk_extensions(struct xdp_md *ctx, __u32 offset, __u32 proto)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 flags = 0;

	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		struct cursor c = { .end = end };
		struct fragment_header *f;
		struct extension *x;

		if (offset > OFFSET_MAX)
			return PARSE_MALFORMED;
		/* The compiler may not drop the mask: the verifier sees the bound in it only. */
		asm volatile("" : "+r"(offset));
		offset &= OFFSET_MAX;
		c.pos = data + offset;
		switch (proto & 0xff) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
		case 139: /* HIP */
		case 140: /* Shim6 */
			x = take(&c, 8);
			if (!x)
				return PARSE_MALFORMED;
			proto = x->next;
			offset += 8 + x->units * 8;
			break;
		case IPPROTO_FRAGMENT:
			f = take(&c, sizeof(*f));
			if (!f)
				return PARSE_MALFORMED;
			proto = f->next;
			offset += sizeof(*f);
			if (f->offset & bpf_htons(0xfff9))
				flags |= 0x100;
			if (!(f->offset & bpf_htons(0xfff8)))
				break;
			flags |= 0x200;
			return offset << 16 | flags | (proto & 0xff);
		default:
			return offset << 16 | flags | (proto & 0xff);
		}
	}
	return PARSE_MALFORMED;
}

/* parse_ipv6 returns the upper-layer protocol. */
static __always_inline int parse_ipv6(struct cursor *c, struct ip *ip)
{
	struct ipv6hdr *h = take(c, sizeof(*h));
	void *data;
	int chain;

	if (!h || h->version != 6)
		return PARSE_MALFORMED;
	ip->version = 6;
	ip->hops = h->hop_limit;
	__builtin_memcpy(&ip->src, &h->saddr, 16);
	__builtin_memcpy(&ip->dst, &h->daddr, 16);
	data = (void *)(long)c->ctx->data;
	chain = walk_extensions(c->ctx, c->pos - data, h->nexthdr);
	if (chain < 0)
		return PARSE_MALFORMED;
	ip->fragment = chain & 0x100;
	ip->later_fragment = chain & 0x200;
	c->end = (void *)(long)c->ctx->data_end;
	c->pos = (void *)(long)c->ctx->data + ((__u32)chain >> 16 & OFFSET_MAX);
	if (c->pos > c->end)
		return PARSE_MALFORMED;
	return chain & 0xff;
}

#endif
