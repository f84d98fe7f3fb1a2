/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * mss.h: the segments that a client may send, smaller by what will be around them.
 *
 * The workload's SYN/ACK says which segments fit its interface. It knows nothing of the encapsulation in which they come there, and who takes it off
 * is the only one who meets the SYN/ACK.
 */
#ifndef DSR_MSS_H
#define DSR_MSS_H

#define DSR_OPTIONS 40		/* bytes of TCP options at most */
#define DSR_AROUND_IP4 20	/* an IPv4 header */
#define DSR_AROUND_IP6 40
#define DSR_AROUND_GUE4 40	/* IPv4, UDP, and GUE with a list of one hop */
#define DSR_AROUND_GUE6 72

enum dsr_option {
	DSR_OPTION_END = 0,
	DSR_OPTION_NOP = 1,
	DSR_OPTION_MSS = 2,
};

#define DSR_MSS_BYTES 4
#define DSR_OPTIONS_ROOM 64	/* a power of 2, so that a mask bounds what is read of them */

/*
 * The most that may be around a packet of a flow whose first one had `around` bytes; 0: not known. A SYN has no list of hops, but later packets may.
 */
static __always_inline u32 dsr_overhead(u32 around, u32 forms)
{
	if (!around)
		return forms & DSR_GUE ? DSR_AROUND_GUE6 : DSR_AROUND_IP6;
	if (around > DSR_AROUND_IP4 && around < DSR_AROUND_GUE4)
		return DSR_AROUND_GUE4;
	if (around >= DSR_AROUND_IP6 + sizeof(struct udphdr) && around < DSR_AROUND_GUE6)
		return DSR_AROUND_GUE6;
	return around;
}

/* Where the value of the MSS option is, counted from the first option; 0: there is none. */
static __always_inline u32 dsr_find_mss(const u8 *options, u32 bytes)
{
	u64 at = 0;

	for (u32 i = 0; i < DSR_OPTIONS; i++) {
		u32 kind, length;

		if (at + DSR_MSS_BYTES > bytes)
			return 0;
		at &= DSR_OPTIONS_ROOM - 1;
		asm volatile("" : "+r"(at));
		kind = options[at];
		length = options[at + 1];
		if (kind == DSR_OPTION_MSS)
			return length == DSR_MSS_BYTES ? at + 2 : 0;
		if (kind == DSR_OPTION_END || (kind != DSR_OPTION_NOP && length < 2))
			return 0;
		at += kind == DSR_OPTION_NOP ? 1 : length;
	}
	return 0;
}

static __always_inline u16 dsr_swapped(u16 word)
{
	return word << 8 | word >> 8;
}

/* Makes the MSS of a SYN fit. What cannot be read is left as it is, as is a SYN without the option: it means 536 then. */
static __always_inline void dsr_clamp(struct __sk_buff *ctx, const struct dsr_frame *frame, u32 overhead)
{
	u32 around = overhead + sizeof(struct tcphdr) + (frame->ip6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	u32 first = dsr_transport_at(frame) + sizeof(struct tcphdr), mtu = 0, at;
	u8 options[DSR_OPTIONS_ROOM + DSR_MSS_BYTES] = {}, *words = dsr_at(ctx, false, first - sizeof(struct tcphdr), sizeof(struct tcphdr));
	__be16 old, new;
	u64 bytes;

	if (!words)
		return;
	bytes = (words[12] >> 4) * 4 - sizeof(struct tcphdr);
	asm volatile("" : "+r"(bytes));	/* the same number is compared and used, so that the verifier knows its bounds */
	if (!bytes || bytes > DSR_OPTIONS || bpf_skb_load_bytes(ctx, first, options, bytes))
		return;
	at = dsr_find_mss(options, bytes);
	bpf_check_mtu(ctx, 0, &mtu, 0, 0);
	if (!at || mtu <= around)
		return;
	if (bpf_skb_load_bytes(ctx, first + at, &old, sizeof(old)) || bpf_ntohs(old) <= mtu - around)
		return;
	new = bpf_htons(mtu - around);
	if (bpf_skb_store_bytes(ctx, first + at, &new, sizeof(new), 0))
		return;
	if (at & 1)	/* the checksum's words begin at even offsets */
		dsr_correct(ctx, frame, dsr_difference2(dsr_swapped(old), dsr_swapped(new)));
	else
		dsr_correct(ctx, frame, dsr_difference2(old, new));
}

#endif
