//go:build ignore
/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The steering program: it decides which frames of an interface belong to the
 * gateway's workers, which to its IKE socket, and which to the kernel.
 *
 * It fails closed. What policy protects, and ESP and AH to our endpoints, is
 * redirected with XDP_DROP as the fallback, so an empty socket slot (the
 * process is dead or not yet there) drops it. A header that ends before it can
 * be judged is dropped too. An interface that the ports map does not know has
 * both roles and no sockets. */
#include "maps.h"
#include "parse.h"
#include "types.h"

#define GO_ON (-1) /* no verdict yet */

#define PORT_IKE 500
#define PORT_NATT 4500 /* RFC 3948 */

static __always_inline __u32 address_flags(const struct ip *ip, const struct address6 *address)
{
	__u32 *flags;

	if (ip->version == 4)
		flags = bpf_map_lookup_elem(&addresses4, &address->word[0]);
	else
		flags = bpf_map_lookup_elem(&addresses6, address);
	return flags ? *flags : 0;
}

static __always_inline __u32 prefix_flags(const struct ip *ip, const struct address6 *address)
{
	__u32 *flags;

	if (ip->version == 4) {
		struct key4 key = { .bits = 32, .address = address->word[0] };

		flags = bpf_map_lookup_elem(&prefixes4, &key);
	} else {
		struct key6 key = { .bits = 128 };

		__builtin_memcpy(key.address, address, 16);
		flags = bpf_map_lookup_elem(&prefixes6, &key);
	}
	return flags ? *flags : 0;
}

/* An answer is what the tables say of a packet: what the port is that it came by,
 * what the destination is as an address, and if that is none of ours, what both
 * addresses are by prefix. Its lowest four bits are the IP version, so that no
 * answer is 0. */
#define ANSWER_VERSION(answer) ((answer) & 0xf)
#define ANSWER_ADDRESS(answer) ((answer) >> 4 & 3)
#define ANSWER_ROLES(answer) ((answer) >> 6 & 3)
#define ANSWER_PORT(answer) ((answer) >> 8 & 0xff)
#define ANSWER_SRC(answer) ((answer) >> 16 & 0xff)
#define ANSWER_DST(answer) ((answer) >> 24 & 0xff)

static __always_inline __u32 ask_tables(const struct ip *ip, __u32 ifindex)
{
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	__u32 answer = ip->version | address_flags(ip, &ip->dst) << 4;

	if (port)
		answer |= port->roles << 6 | port->index << 8;
	else
		answer |= (ROLE_PROTECTED | ROLE_OUTSIDE) << 6 | PORTS_MAX << 8;
	if (!ANSWER_ADDRESS(answer))
		answer |= prefix_flags(ip, &ip->src) << 16 | prefix_flags(ip, &ip->dst) << 24;
	return answer;
}

static __always_inline __u32 hash(const struct ip *ip, __u32 ifindex)
{
	__u64 h = (__u64)ip->dst.word[0] << 32 | ip->src.word[0];

	if (ip->version == 6) {
		h = (ip->src.half[0] + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
		h ^= (ip->src.half[1] + 0x94d049bb133111eb) * 0xff51afd7ed558ccd;
		h ^= (ip->dst.half[0] + 0xc4ceb9fe1a85ec53) * 0x9fb21c651e98df25;
		h ^= (ip->dst.half[1] + 0xd6e8feb86659fd93) * 0xa0761d6478bd642f;
	}
	h = (h + ifindex * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
	h ^= h >> 32;
	h *= 0xe7037ed1a0b428db;
	return h >> 32;
}

static __always_inline bool is_about(const struct known *k, const struct ip *ip, __u32 ifindex)
{
	if (k->ifindex != ifindex)
		return false;
	if (ip->version == 4)
		return k->src.word[0] == ip->src.word[0] && k->dst.word[0] == ip->dst.word[0];
	return k->src.half[0] == ip->src.half[0] && k->src.half[1] == ip->src.half[1] &&
	       k->dst.half[0] == ip->dst.half[0] && k->dst.half[1] == ip->dst.half[1];
}

/* ask answers from what this CPU remembers, if the tables have not changed
 * since: the look-ups in hashes and tries cost more than the rest of the program.
 *
 * The upper half of the word is the hash of interface and addresses plus the
 * generation. So it tells one generation from the next, and on kernels where one
 * run of this program can interrupt another on its CPU, it tells a word from one
 * that belongs to other addresses. The loader changes the generation last, and
 * the answer is asked for after the generation was read: an answer from old
 * tables never bears the new one.
 *
 * Which of a set is forgotten for a new one is left to chance: those that are
 * wanted again and again find places where they leave each other alone. */
static __always_inline __u32 ask(const struct ip *ip, __u32 ifindex)
{
	__u32 key = 0, tag = hash(ip, ifindex), slot = tag & (KNOWN_SETS - 1), answer;
	__u32 *now = bpf_map_lookup_elem(&generation, &key);
	struct known_set *set = bpf_map_lookup_elem(&known, &slot);
	struct known *k;
	__u64 word;

	if (!now || !set)
		return ask_tables(ip, ifindex);
	tag += *(volatile __u32 *)now;
#pragma unroll
	for (int i = 0; i < KNOWN_WAYS; i++) {
		k = &set->way[i];
		word = *(volatile __u64 *)&k->word;
		if (word >> 32 == tag && ANSWER_VERSION(word) == ip->version && is_about(k, ip, ifindex))
			return word;
	}
	k = &set->way[bpf_get_prandom_u32() & (KNOWN_WAYS - 1)];
	/* Forgets what is there; an exchange is a barrier on every architecture. */
	__sync_lock_test_and_set(&k->word, 0);
	answer = ask_tables(ip, ifindex);
	k->ifindex = ifindex;
	k->src = ip->src;
	k->dst = ip->dst;
	*(volatile __u64 *)&k->word = (__u64)tag << 32 | answer;
	return answer;
}

/* neighbour: what keeps the link itself alive. Hop limit 255 proves that
 * discovery comes from the link (RFC 4861, 6.1 and 7.1); MLD has 1 (RFC 3810,
 * 5). Anything else with these types could be forwarded, and is judged as data. */
static __always_inline int neighbour(struct cursor c, const struct ip *ip, int proto)
{
	__u8 *type;

	if (ip->version != 6 || proto != IPPROTO_ICMPV6 || ip->later_fragment)
		return GO_ON;
	type = take(&c, 1);
	if (!type)
		return GO_ON;
	if (*type >= 133 && *type <= 137 && ip->hops == 255)
		return COUNTER_PASS_NEIGHBOUR;
	if (((*type >= 130 && *type <= 132) || *type == 143) && ip->hops == 1)
		return COUNTER_PASS_NEIGHBOUR;
	return GO_ON;
}

/* unroutable: addresses that no tunnel carries unless a policy names them. Linux
 * forwards an IPv4 packet with a link-local source, so only the destination
 * counts there; it never forwards such an IPv6 packet. Multicast that never leaves
 * its link (RFC 5771, 4; RFC 4291, 2.7) stays the kernel's whatever policy says:
 * IGMP, mDNS, routing protocols. */
static __always_inline int unroutable(const struct ip *ip)
{
	__u32 dst = bpf_ntohl(ip->dst.word[0]);
	__u32 src = bpf_ntohl(ip->src.word[0]);
	int verdict = GO_ON;

	if (ip->version == 4) {
		if (dst >> 8 == 0xe00000 || dst == 0xffffffff)
			return COUNTER_PASS_MULTICAST;
		if (dst >> 28 == 0xe)
			verdict = COUNTER_PASS_MULTICAST;
		else if (dst >> 16 == 0xa9fe)
			verdict = COUNTER_PASS_LINK_LOCAL;
	} else {
		if (dst >> 24 == 0xff && (dst >> 16 & 0xf) <= 2)
			return COUNTER_PASS_MULTICAST;
		if (dst >> 24 == 0xff)
			verdict = COUNTER_PASS_MULTICAST;
		else if (dst >> 22 == 0x3fa || src >> 22 == 0x3fa)
			verdict = COUNTER_PASS_LINK_LOCAL;
	}
	if (verdict != GO_ON && prefix_flags(ip, &ip->dst) & PREFIX_NAMED)
		return GO_ON;
	return verdict;
}

/* udp_to_endpoint tells IKE, ESP in UDP and keepalives apart (RFC 3948, 2). A
 * payload that is announced but not there cannot be told apart: dropped. */
static __always_inline int udp_to_endpoint(struct cursor c)
{
	struct udphdr *udp = take(&c, sizeof(*udp));
	__u16 payload_len;
	__be32 *marker;
	__u8 *first;

	if (!udp)
		return COUNTER_DROP_MALFORMED;
	if (udp->dest == bpf_htons(PORT_IKE))
		return COUNTER_IKE;
	if (udp->dest != bpf_htons(PORT_NATT))
		return GO_ON;
	payload_len = bpf_ntohs(udp->len);
	if (payload_len <= sizeof(*udp))
		return COUNTER_DROP_MALFORMED;
	payload_len -= sizeof(*udp);
	if (payload_len < sizeof(*marker)) {
		first = take(&c, 1);
		if (!first)
			return COUNTER_DROP_MALFORMED;
		return payload_len == 1 && *first == 0xff ? COUNTER_DROP_KEEPALIVE : COUNTER_ESP_IN_UDP;
	}
	marker = take(&c, sizeof(*marker));
	if (!marker)
		return COUNTER_DROP_MALFORMED;
	return *marker ? COUNTER_ESP_IN_UDP : COUNTER_IKE;
}

/* icmp_error: an error about a packet that we sent under IPsec. The quoted
 * source must be an endpoint; what is quoted may end after the ports
 * (RFC 792: 8 bytes behind the header). */
static __always_inline int icmp_error(struct cursor c, int version)
{
	struct ip quoted = {};
	struct udphdr *udp;
	__u8 *type = take(&c, 8);
	int proto;

	if (!type)
		return GO_ON;
	if (version == 4) {
		if (*type != ICMP_DEST_UNREACH && *type != ICMP_TIME_EXCEEDED && *type != ICMP_PARAMETERPROB)
			return GO_ON;
		proto = parse_ipv4(&c, &quoted);
	} else {
		if (*type < ICMPV6_DEST_UNREACH || *type > ICMPV6_PARAMPROB)
			return GO_ON;
		proto = parse_ipv6(&c, &quoted);
	}
	if (proto < 0 || !(address_flags(&quoted, &quoted.src) & ADDRESS_ENDPOINT))
		return GO_ON;
	if (proto == IPPROTO_ESP || proto == IPPROTO_AH)
		return COUNTER_ICMP_ERROR;
	if (proto != IPPROTO_UDP || quoted.later_fragment)
		return GO_ON;
	udp = take(&c, sizeof(*udp));
	if (!udp)
		return GO_ON;
	if (udp->source == bpf_htons(PORT_NATT) || udp->source == bpf_htons(PORT_IKE))
		return COUNTER_ICMP_ERROR;
	return GO_ON;
}

static __always_inline int to_endpoint(struct cursor c, const struct ip *ip, int proto)
{
	switch (proto) {
	case IPPROTO_ESP:
		return COUNTER_ESP;
	case IPPROTO_AH:
		return COUNTER_AH;
	case IPPROTO_UDP:
		return ip->fragment ? COUNTER_UDP_FRAGMENT : udp_to_endpoint(c);
	case IPPROTO_ICMP:
		return ip->version == 4 && !ip->later_fragment ? icmp_error(c, 4) : GO_ON;
	case IPPROTO_ICMPV6:
		return ip->version == 6 && !ip->later_fragment ? icmp_error(c, 6) : GO_ON;
	}
	return GO_ON;
}

/* by_policy judges source and destination together. Selectors by protocol and
 * port are the worker's. What a route leads into a virtual interface is
 * protected wherever it comes from; on the protected side, what comes from
 * there is none of our business, as routes may be asymmetric. */
static __always_inline int by_policy(__u32 src, __u32 dst, __u32 roles)
{
	bool outward = ((src & PREFIX_LOCAL) && (dst & PREFIX_REMOTE)) || (dst & PREFIX_ROUTED);
	bool inward = (src & PREFIX_REMOTE) && (dst & PREFIX_LOCAL);

	if (outward && (roles & ROLE_PROTECTED))
		return COUNTER_PROTECT;
	if ((inward || (src & PREFIX_ROUTED)) && (roles & ROLE_OUTSIDE))
		return COUNTER_CLEARTEXT;
	if ((outward && (roles & ROLE_OUTSIDE)) || (inward && (roles & ROLE_PROTECTED)))
		return COUNTER_SPOOFED;
	return COUNTER_PASS_OTHER;
}

static __always_inline __u32 socket_slot(__u32 port, __u32 queue)
{
	return port < PORTS_MAX && queue < QUEUES_MAX ? port * QUEUES_MAX + queue : SLOT_NONE;
}

/* judge is the program's table of contents. It sets *slot before any verdict that
 * sends the frame to a socket. */
static __always_inline int judge(struct cursor c, bool *vlan, __u32 *slot)
{
	struct ip ip = {};
	int proto, verdict;
	__u32 answer, dst;

	switch (parse_ethernet(&c, vlan)) {
	case ETH_P_IP:
		proto = parse_ipv4(&c, &ip);
		break;
	case ETH_P_IPV6:
		proto = parse_ipv6(&c, &ip);
		break;
	case PARSE_TAGS:
		return COUNTER_DROP_TAGS;
	case PARSE_MALFORMED:
		return COUNTER_DROP_MALFORMED;
	default:
		return COUNTER_PASS_NOT_IP;
	}
	if (proto < 0)
		return COUNTER_DROP_MALFORMED;

	verdict = neighbour(c, &ip, proto);
	if (verdict != GO_ON)
		return verdict;
	verdict = unroutable(&ip);
	if (verdict != GO_ON)
		return verdict;
	answer = ask(&ip, c.ctx->ingress_ifindex);
	*slot = socket_slot(ANSWER_PORT(answer), c.ctx->rx_queue_index);
	dst = ANSWER_ADDRESS(answer);
	if (dst & ADDRESS_ENDPOINT) {
		verdict = to_endpoint(c, &ip, proto);
		if (verdict != GO_ON)
			return verdict;
	}
	if (dst & ADDRESS_ENDPOINT && prefix_flags(&ip, &ip.src) & PREFIX_PEER)
		return COUNTER_CLEARTEXT; /* transport mode wants some of it protected: the worker knows */
	if (dst)
		return COUNTER_PASS_OWN;
	return by_policy(ANSWER_SRC(answer), ANSWER_DST(answer), ANSWER_ROLES(answer));
}

/* classify keeps the frames of VLANs from the workers: a port is the untagged
 * network of its interface. What policy would protect there does not pass to the
 * kernel either, which might forward it between its VLAN interfaces. */
static __always_inline int classify(struct cursor c, __u32 *slot)
{
	bool vlan = false;
	int verdict = judge(c, &vlan, slot);

	if (!vlan || verdict < COUNTER_ESP)
		return verdict;
	return verdict <= COUNTER_SPOOFED ? COUNTER_DROP_VLAN : COUNTER_PASS_OTHER;
}

/* conclude is the one exit: it performs the verdict and counts it. The kernel
 * answers a redirect to an empty slot with the fallback action, which has a
 * counter of its own. */
static __always_inline int conclude(enum counter verdict, __u32 slot)
{
	__u32 key = verdict;
	__u64 *count;
	int action;

	if (verdict <= COUNTER_PASS_OTHER)
		action = XDP_PASS;
	else if (verdict <= COUNTER_DROP_KEEPALIVE)
		action = XDP_DROP;
	else if (verdict <= COUNTER_SPOOFED)
		action = bpf_redirect_map(&xsks, slot, XDP_DROP);
	else if (verdict <= COUNTER_ICMP_ERROR)
		action = bpf_redirect_map(&xsks, slot, XDP_PASS);
	else
		action = bpf_redirect_map(&xsks_ike, slot, XDP_PASS);
	if (verdict >= COUNTER_ESP && action != XDP_REDIRECT)
		key = action == XDP_DROP ? COUNTER_NO_SOCKET_DROP : COUNTER_NO_SOCKET_PASS;

	count = bpf_map_lookup_elem(&counters, &key);
	if (count)
		++*count;
	return action;
}

SEC("xdp")
int sallyport_steer(struct xdp_md *ctx)
{
	struct cursor c = {
		.ctx = ctx,
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	__u32 slot = SLOT_NONE;
	int verdict = classify(c, &slot);

	return conclude(verdict, slot);
}

char __license[] SEC("license") = "Dual MIT/GPL";
