/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * service.h: from an address, port and protocol to the VIP.
 *
 * A search costs a third of all that is done for a packet, so each CPU remembers what it found, or that there was nothing, in a small table that
 * is asked first. What it remembers counts under the same number of the gates only, which changes with the services.
 */
#ifndef ELB_SERVICE_H
#define ELB_SERVICE_H

#define ELB_FOUND_BITS 8

/* Where a packet was for, and the VIP there; 0: none. */
struct elb_found {
	u64 address[2];
	u32 port_proto;
	u32 gates;
	u32 vip;
	u32 zero;
};
_Static_assert(sizeof(struct elb_found) == 32, "as in the schema");

BPF_TABLE("percpu_array", u32, struct elb_found, elb_found, BY_SCHEMA);	/* the datapath writes */

static __always_inline u32 elb_port_proto(const struct elb_flow *flow)
{
	return (u32)flow->destination_port << 8 | flow->proto;
}

static __always_inline u32 elb_place(const struct elb_flow *flow)
{
	return (flow->destination[3] ^ flow->destination[1] ^ elb_port_proto(flow)) * 0x9e3779b1 >> (32 - ELB_FOUND_BITS);
}

static __always_inline bool elb_is_found(const struct elb_found *found, const struct elb_flow *flow)
{
	const u64 *address = (const u64 *)flow->destination;

	return !((found->address[0] ^ address[0]) | (found->address[1] ^ address[1]) | (found->port_proto ^ elb_port_proto(flow)));
}

/* The number of the VIP with an address and port, or NULL. Port 0 asks for any port, port 0 and proto 0 for the address alone. */
static __always_inline u32 *elb_service(const __be32 *address, __be16 port, u8 proto)
{
	struct elb_service key = { .port = port, .proto = proto };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return elb_services.lookup(&key);
}

static __always_inline u32 *elb_prefix(const __be32 *address, __be16 port, u8 proto)
{
	struct elb_prefix key = { .length = 160, .port = port, .proto = proto };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return elb_prefixes.lookup(&key);
}

static __always_inline u32 elb_open_gates(void)
{
	u32 zero = 0, *gates;

	gates = elb_gates.lookup(&zero);
	return gates ? *gates : 0;
}

/* The number of the VIP of a flow; 0: none. */
static __always_inline u32 elb_search(const struct elb_flow *flow, u32 gates)
{
	u32 *number;

	number = elb_service(flow->destination, flow->destination_port, flow->proto);
	if (!number && gates & ELB_PREFIXES)
		number = elb_prefix(flow->destination, flow->destination_port, flow->proto);
	if (!number && gates & ELB_ANY_PORTS) {
		number = elb_service(flow->destination, 0, flow->proto);
		if (!number && gates & ELB_PREFIXES)
			number = elb_prefix(flow->destination, 0, flow->proto);
	}
	return number ? *number : 0;
}

/* The same, from what this CPU remembers where it can. */
static __always_inline u32 elb_find(const struct elb_flow *flow)
{
	u32 gates = elb_open_gates(), place = elb_place(flow), number;
	struct elb_found *found = elb_found.lookup(&place);

	if (!found)
		return 0;
	if (found->gates == gates && elb_is_found(found, flow))
		return found->vip;
	number = elb_search(flow, gates);
	if (gates & ELB_CHANGING || elb_open_gates() != gates)
		return number;	/* found in the midst of a change, which may be taken back */
	__builtin_memcpy(found->address, flow->destination, sizeof(found->address));
	found->port_proto = elb_port_proto(flow);
	found->gates = gates;
	found->vip = number;
	return number;
}

/* Whether some VIP has this address. */
static __always_inline bool elb_has(const __be32 *address)
{
	return elb_service(address, 0, 0) || (elb_open_gates() & ELB_PREFIXES && elb_prefix(address, 0, 0));
}

#endif
