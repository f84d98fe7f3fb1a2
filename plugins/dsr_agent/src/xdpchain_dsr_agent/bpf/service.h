/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * service.h: whose packet it is: which service it is for, or from.
 */
#ifndef DSR_SERVICE_H
#define DSR_SERVICE_H

#include "found.h"

enum dsr_outer {
	DSR_ELSEWHERE,	/* the destination is no endpoint */
	DSR_STRANGER,	/* the source is nobody whose packets are taken */
	DSR_OURS,
};

static __always_inline enum dsr_outer dsr_search_outer(const __be32 *destination, const __be32 *source)
{
	struct dsr_prefix prefix = { .bits = 128 };

	if (!dsr_endpoints.lookup((struct dsr_address *)destination))
		return DSR_ELSEWHERE;
	__builtin_memcpy(prefix.address, source, sizeof(prefix.address));
	return dsr_accept.lookup(&prefix) ? DSR_OURS : DSR_STRANGER;
}

static __always_inline u32 dsr_search_target(const __be32 *endpoint, const __be32 *vip, __be16 port, u32 proto, u32 all_ports)
{
	struct dsr_target target = { .port = port, .proto = proto };
	u32 *place;

	__builtin_memcpy(target.endpoint, endpoint, sizeof(target.endpoint));
	__builtin_memcpy(target.vip, vip, sizeof(target.vip));
	place = dsr_targets.lookup(&target);
	if (!place && all_ports) {
		target.port = 0;
		place = dsr_targets.lookup(&target);
	}
	return place ? *place : 0;
}

static __always_inline u32 dsr_search_port(const __be32 *workload, __be16 port, u32 proto, u32 all_ports)
{
	struct dsr_port key = { .port = port, .proto = proto };
	u32 *place;

	__builtin_memcpy(key.workload, workload, sizeof(key.workload));
	place = dsr_ports.lookup(&key);
	if (!place && all_ports) {
		key.port = 0;
		place = dsr_ports.lookup(&key);
	}
	return place ? *place : 0;
}

/* Asks what was found lately, and else the tables. */
static __always_inline u32 dsr_look_up(enum dsr_question question, const __be32 *first, const __be32 *second, __be16 port, u32 proto,
				       const struct dsr_settings *settings)
{
	u32 what = dsr_what(question, port, proto), generation = *(volatile const u32 *)&settings->generation, answer;
	struct dsr_found *found = dsr_found_at(first, second, what);

	if (!found)
		return 0;
	if (dsr_is_found(found, first, second, what, generation))
		return found->answer;
	if (question == DSR_OUTER)
		answer = dsr_search_outer(first, second);
	else if (question == DSR_TARGET)
		answer = dsr_search_target(first, second, port, proto, settings->all_ports);
	else
		answer = dsr_search_port(first, port, proto, settings->all_ports);
	dsr_find_again(found, first, second, what, generation, answer, settings);
	return answer;
}

/* Whether the outer addresses of an encapsulated packet say that it is for us. */
static __always_inline enum dsr_outer dsr_outer_of(const struct dsr_frame *frame, const struct dsr_settings *settings)
{
	return dsr_look_up(DSR_OUTER, frame->destination, frame->source, 0, 0, settings);
}

/* The place of the service that is reached by a VIP's port, through the endpoint of an encapsulated packet; 0: none. */
static __always_inline u32 dsr_target_of(const struct dsr_frame *frame, const __be32 *vip, __be16 port, u32 proto, const struct dsr_settings *settings)
{
	return dsr_look_up(DSR_TARGET, frame->endpoint, vip, port, proto, settings);
}

/* The place of the service that a workload's port is of; 0: none. */
static __always_inline u32 dsr_port_of(const __be32 *workload, __be16 port, u32 proto, const struct dsr_settings *settings)
{
	return dsr_look_up(DSR_PORT, workload, workload, port, proto, settings);
}

/* Whether a workload's port may be one of a service: the quick question. */
static __always_inline bool dsr_is_listed(u32 proto, __be16 port, const struct dsr_settings *settings)
{
	u32 number = bpf_ntohs(port), *bits;

	if (settings->all_ports)
		return true;
	bits = dsr_listed.lookup(&number);
	return bits && *bits & (proto == IPPROTO_TCP ? 1 : 2);
}

#endif
