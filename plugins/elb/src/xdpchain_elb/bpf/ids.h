/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * ids.h: the server ids that packets bring along, in the forms that Katran knows. All give 0 where a packet has none.
 */
#ifndef ELB_IDS_H
#define ELB_IDS_H

#define ELB_QUIC_LONG 0x80
#define ELB_QUIC_TYPE 0x30
#define ELB_QUIC_HANDSHAKE 0x20		/* the types before it, Initial and 0-RTT, have an id that the client made up */
#define ELB_QUIC_LENGTH_AT 5		/* behind flags and version; the id follows */
#define ELB_CONNECTION_ID 8		/* bytes, at least */

#define ELB_TCP_OPTION 0xb7
#define ELB_TCP_OPTION_BYTES 6
#define ELB_TCP_OPTIONS 15		/* as far as we look */

#define ELB_STABLE 0x52			/* the first of 8 bytes */
#define ELB_STABLE_BYTES 8

/*
 * The two highest bits of a connection id say how the server's id is written in it: 1: in the 16 bits behind them; 2: in the 24 bits of bytes
 * 1 to 3; 3: in the 32 bits of bytes 1 to 4.
 */
static __always_inline u32 elb_quic_id(struct packet *packet)
{
	u8 *quic = (void *)(packet->udp + 1), *id = quic + 1;
	u32 word;

	if (!packet->udp || (void *)id + ELB_CONNECTION_ID > packet->end)
		return 0;
	if (*quic & ELB_QUIC_LONG) {
		if ((*quic & ELB_QUIC_TYPE) < ELB_QUIC_HANDSHAKE || quic[ELB_QUIC_LENGTH_AT] < ELB_CONNECTION_ID)
			return 0;
		id = quic + ELB_QUIC_LENGTH_AT + 1;
		if ((void *)id + ELB_CONNECTION_ID > packet->end)
			return 0;
	}
	word = bpf_ntohl(*(__be32 *)id);
	switch (word >> 30) {
	case 1:
		return word >> 14 & 0xffff;
	case 2:
		return word & 0xffffff;
	case 3:
		return word << 8 | id[4];
	default:
		return 0;
	}
}

/*
 * The id of the TCP option, least significant byte first. One path leads through the loop, whatever the options are: the verifier would follow
 * each branch through all options behind it.
 */
static __always_inline u32 elb_tcp_id(struct packet *packet)
{
	struct tcphdr *tcp = packet->tcp;
	u32 at = sizeof(*tcp), end;

	if (!tcp || (void *)(tcp + 1) > packet->end || tcp->syn)
		return 0;
	end = tcp->doff * 4;
	for (int i = 0; i < ELB_TCP_OPTIONS; i++) {
		u8 *option = (void *)tcp + at;
		u64 single, length;

		if (at + ELB_TCP_OPTION_BYTES > end || (void *)option + ELB_TCP_OPTION_BYTES > packet->end)
			return 0;
		if (*option == ELB_TCP_OPTION)
			return option[1] == ELB_TCP_OPTION_BYTES ? option[2] | option[3] << 8 | option[4] << 16 | (u32)option[5] << 24 : 0;
		if (!*option)	/* the end of the list */
			return 0;
		single = *option;
		asm volatile("%0 ^= 1\n%0 += -1\n%0 >>= 63" : "+r"(single));	/* 1 for the one option of one byte, a no-op, else 0 */
		length = (option[1] & (single - 1)) | single;
		if (length + single < 2)
			return 0;
		at += length;
	}
	return 0;
}

/* The header of UDP stable routing is as long as a short connection id; the server's id is in the 24 bits of bytes 1 to 3. */
static __always_inline u32 elb_stable_id(struct packet *packet)
{
	u8 *header = (void *)(packet->udp + 1);

	if (!packet->udp || (void *)header + ELB_STABLE_BYTES > packet->end || *header != ELB_STABLE)
		return 0;
	return bpf_ntohl(*(__be32 *)header) & 0xffffff;
}

#endif
