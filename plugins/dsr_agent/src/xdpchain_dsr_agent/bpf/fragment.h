/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * fragment.h: datagrams in fragments. Only the first fragment has ports; what became of its addresses becomes of those behind it, too.
 */
#ifndef DSR_FRAGMENT_H
#define DSR_FRAGMENT_H

#define DSR_REST_TICKS 28	/* 30 s: as long as hosts wait for the rest of a datagram */

/*
 * What the fragments of a datagram have in common. In IPv6 each fragment may name another protocol, and the id alone decides (RFC 8200); false where
 * it is behind so many headers that it was not read.
 */
static __always_inline bool dsr_datagram_of(const struct dsr_frame *frame, struct dsr_datagram *datagram)
{
	*datagram = (struct dsr_datagram){ .id = frame->id, .proto = frame->ip6 ? 0 : frame->proto };
	__builtin_memcpy(datagram->source, frame->source, sizeof(datagram->source));
	__builtin_memcpy(datagram->destination, frame->destination, sizeof(datagram->destination));
	return frame->id || !frame->ip6;
}

/* A datagram begins: what is remembered of an earlier one with this id says nothing of it. */
static __always_inline void dsr_forget_rest(const struct dsr_frame *frame)
{
	struct dsr_datagram datagram;

	if (dsr_datagram_of(frame, &datagram) && dsr_rests.lookup(&datagram))
		dsr_rests.delete(&datagram);
}

/* The first fragment gets these addresses: so will the rest. */
static __always_inline void dsr_remember_rest(const struct dsr_frame *frame, const __be32 *source, const __be32 *destination, u32 place, u32 now)
{
	struct dsr_rest rest = { .seen = now, .place = place };
	struct dsr_datagram datagram;

	if (!dsr_datagram_of(frame, &datagram))
		return;
	__builtin_memcpy(rest.source, source, sizeof(rest.source));
	__builtin_memcpy(rest.destination, destination, sizeof(rest.destination));
	dsr_rests.update(&datagram, &rest);
}

/* What the first fragment of this one's datagram has become, or NULL. */
static __always_inline struct dsr_rest *dsr_rest_of(const struct dsr_frame *frame, u32 now)
{
	struct dsr_datagram datagram;
	struct dsr_rest *rest;

	if (!dsr_datagram_of(frame, &datagram))
		return NULL;
	rest = dsr_rests.lookup(&datagram);
	return rest && (s32)(now - rest->seen) <= DSR_REST_TICKS ? rest : NULL;	/* another CPU's clock may be ahead */
}

#endif
