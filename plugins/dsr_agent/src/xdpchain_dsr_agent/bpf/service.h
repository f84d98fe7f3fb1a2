/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * service.h: which service a packet is for, or from.
 */
#ifndef DSR_SERVICE_H
#define DSR_SERVICE_H

/* The place of the service that is reached by a VIP's port, through the endpoint of an encapsulated packet; 0: none. */
static __always_inline u32 dsr_target_of(const struct dsr_frame *frame, const __be32 *vip, __be16 port, u32 proto, const struct dsr_settings *settings)
{
	struct dsr_target target = { .port = port, .proto = proto };
	u32 *place;

	__builtin_memcpy(target.endpoint, frame->endpoint, sizeof(target.endpoint));
	__builtin_memcpy(target.vip, vip, sizeof(target.vip));
	place = dsr_targets.lookup(&target);
	if (!place && settings->all_ports) {
		target.port = 0;
		place = dsr_targets.lookup(&target);
	}
	return place ? *place : 0;
}

/* The place of the service that a workload's port is of; 0: none. */
static __always_inline u32 dsr_port_of(const __be32 *workload, __be16 port, u32 proto, const struct dsr_settings *settings)
{
	struct dsr_port key = { .port = port, .proto = proto };
	u32 *place;

	__builtin_memcpy(key.workload, workload, sizeof(key.workload));
	place = dsr_ports.lookup(&key);
	if (!place && settings->all_ports) {
		key.port = 0;
		place = dsr_ports.lookup(&key);
	}
	return place ? *place : 0;
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
