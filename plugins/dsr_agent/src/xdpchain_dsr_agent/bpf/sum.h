/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * sum.h: checksums after a change of what they cover (RFC 1624).
 *
 * A difference is a sum of words as they lie in memory, the new ones minus the old ones in one's complement, not folded: differences may be added up
 * in 64 bits, and the byte order cares for itself. All words begin at an even offset of what the checksum covers.
 */
#ifndef DSR_SUM_H
#define DSR_SUM_H

/* The sum in 16 bits, not inverted. */
static __always_inline u16 dsr_fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Of 16 bits. */
static __always_inline u64 dsr_difference2(__be16 old, __be16 new)
{
	return (u64)(u16)~old + new;
}

/* Of an address of 16 bytes; IPv4-mapped ones differ as IPv4 addresses do. */
static __always_inline u64 dsr_difference(const __be32 *old, const __be32 *new)
{
	u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (u64)(u32)~old[i] + new[i];
	return sum;
}

static __always_inline u16 dsr_changed(u16 check, u64 difference)
{
	return ~dsr_fold((u16)~check + difference);
}

/* Of UDP: 0 says that there is none, and may be so only over IPv4; a computed 0 is sent as minus zero. */
static __always_inline u16 dsr_changed_udp(u16 check, u64 difference)
{
	if (!check)
		return 0;
	check = dsr_changed(check, difference);
	return check ? check : 0xffff;
}

#endif
