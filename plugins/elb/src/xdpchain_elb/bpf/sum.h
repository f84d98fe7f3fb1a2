/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * sum.h: one's complement sums, for checksums (RFC 1071).
 *
 * A sum is of 16-bit words as they lie in memory, not folded: any number of words may be added up in 64 bits, and the byte order cares for itself.
 */
#ifndef ELB_SUM_H
#define ELB_SUM_H

#define ELB_CHUNK 128
#define ELB_CHUNKS 128	/* at most: 16 KB */

/* The sum in 16 bits; not inverted. It is 0 only for 0: all other sums of zero come out as 0xffff. */
static __always_inline u16 elb_fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A checksum after a word that it covers has changed (RFC 1624). Words of 16 or 32 bits. */
static __always_inline u16 elb_sum_changed(u16 check, u32 old, u32 new)
{
	return ~elb_fold((u64)(u16)~check + (u32)~old + new);
}

/*
 * The sum of `length` bytes of the frame from `offset`, in whatever buffers they lie; an odd last byte counts as if a 0 came behind it.
 * Negative if they are not all there, or are more than `chunks` chunks.
 *
 * The rest comes first, and the loop has a counter of its own, so that all ways out of it look the same to the verifier.
 */
static __always_inline s64 elb_sum_chunks(struct xdp_md *ctx, u32 offset, u32 length, u32 chunks)
{
	u64 chunk[ELB_CHUNK / sizeof(u64)] = {};
	u32 rest = length % ELB_CHUNK, full = length / ELB_CHUNK;
	u64 sum = 0;

	if (length > chunks * ELB_CHUNK)
		return -1;
	if (rest) {
		if (bpf_xdp_load_bytes(ctx, offset + length - rest, chunk, rest))
			return -1;
		sum = (u32)bpf_csum_diff(NULL, 0, chunk, sizeof(chunk), 0);
	}
	for (u32 i = 0; i < chunks; i++) {
		asm volatile("" : "+r"(i));	/* else LLVM counts to the lesser of both, whose bound the verifier does not see */
		if (i >= full)
			break;
		if (bpf_xdp_load_bytes(ctx, offset, chunk, sizeof(chunk)))
			return -1;
		sum += (u32)bpf_csum_diff(NULL, 0, chunk, sizeof(chunk), 0);
		offset += sizeof(chunk);
	}
	return sum;
}

static __always_inline s64 elb_sum_bytes(struct xdp_md *ctx, u32 offset, u32 length)
{
	return elb_sum_chunks(ctx, offset, length, ELB_CHUNKS);
}

#endif
