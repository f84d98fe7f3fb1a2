# SPDX-License-Identifier: Apache-2.0
"""
The text that is compiled for a function: its reasons, its source, and a generated program around each of its entries.

What the function wants to know of the running kernel's own structs is written in front of its source (`facts`).

The generated program parses the packet, calls the author's function, counts, and goes on to the next hop. It refers to two maps that each
hop has for itself, `xc_next` and `xc_counts`, and to facts that only the loader knows: `xdpchain.bpf.loader.Constant`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xdpchain.bpf.compiler.compile import Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.facts import facts
from xdpchain.function import Hook, KernelFunction
from xdpchain.schema import Map, MapKind, Role, Struct, u32, u64

INCLUDE = Path(__file__).parent / "include"
PREFIX = "xc_"
DISPATCHER = "dispatch"
"""The entry of the dispatcher's units."""

COUNT = Struct("xc_count", {"packets": u64, "bytes": u64})


def counts_schema(reasons: int, *, per_cpu: bool = True) -> Map:
    """The counters of a hop: one for each verdict and reason, `reason << 3 | action` being the key. Offloaded programs share one copy."""
    kind = MapKind.PERCPU_ARRAY if per_cpu else MapKind.ARRAY
    capacity = (reasons + 1) << 3
    return Map(name="xc_counts", kind=kind, key=u32, value=COUNT, capacity=capacity, role=Role.STATS, help="packets and bytes by verdict")


_MAPS = """#line 1 "the core's maps"
struct xc_count {
	u64 packets;
	u64 bytes;
};

BPF_TABLE("prog", u32, u32, xc_next, 1);
BPF_TABLE("percpu_array", u32, struct xc_count, xc_counts, BY_SCHEMA);

#define xc_constant(magic) ({ u64 xc_value; asm volatile("%0 = " magic " ll" : "=r"(xc_value)); xc_value; })
#define xc_last() xc_constant("0x7863000000000001")
#define xc_on_error() xc_constant("0x7863000000000002")
#define xc_frags() xc_constant("0x7863000000000003")
#define own_netns() xc_constant("0x7863000000000004")	/* the cookie (net_cookie of struct net) of the network namespace of the daemon */

static __always_inline int xc_count(u32 index, u64 bytes)
{
	struct xc_count *count = xc_counts.lookup(&index);

	if (!count)
		return 0;
	count->packets++;
	count->bytes += bytes;
	return 1;
}
"""

_XDP_BYTES = """
/*
 * The length of a frame. To ask the kernel for it costs as much as all the rest of an entry, so it is asked only where the IP header does not
 * say that the frame ends in its first buffer.
 */
static __always_inline u64 xc_bytes(struct xdp_md *ctx, const struct packet *packet)
{
	return xc_frags() && packet->spare < 0 ? bpf_xdp_get_buff_len(ctx) : packet->end - packet->data;
}
"""

_ENTRY = {
    Hook.XDP: """
int xc_{entry}(struct xdp_md *ctx)
{{
	struct packet packet;
	u64 bytes;
	verdict v;

	packet_parse(&packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	bytes = xc_bytes(ctx, &packet);
	v = {entry}(ctx, &packet);
	if (verdict_action(v) > NEXT || !xc_count(v, bytes)) {{
		xc_count(ABORT, bytes);
		return XDP_ABORTED;
	}}
	if (verdict_action(v) < NEXT)
		return verdict_action(v);
	if (xc_last())
		return XDP_PASS;
	xc_next.call(ctx, 0);
	xc_count(BROKEN, bytes);
	return xc_on_error();
}}
""",
    Hook.TC_INGRESS: """
int xc_{entry}(struct __sk_buff *ctx)
{{
	u64 bytes = ctx->len, linear;
	struct packet packet;
	verdict v;

	linear = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	if (linear < XC_HEADERS && linear < ctx->len)
		bpf_skb_pull_data(ctx, ctx->len < XC_HEADERS ? ctx->len : XC_HEADERS);
	packet_parse(&packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	v = {entry}(ctx, &packet);
	if (verdict_action(v) > NEXT || !xc_count(v, bytes)) {{
		xc_count(ABORT, bytes);
		return TC_ACT_SHOT;
	}}
	if (verdict_action(v) == PASS)
		return TC_ACT_UNSPEC;
	if (verdict_action(v) == REDIRECT)
		return TC_ACT_REDIRECT;
	if (verdict_action(v) == TX)
		return bpf_redirect(ctx->ifindex, 0);
	if (verdict_action(v) < NEXT)
		return TC_ACT_SHOT;
	if (xc_last())
		return TC_ACT_UNSPEC;
	xc_next.call(ctx, 0);
	xc_count(BROKEN, bytes);
	return xc_on_error();
}}
""",
    Hook.TRACEPOINT: """
int xc_{entry}(void *ctx)
{{
	return {entry}(ctx);
}}
""",
    Hook.ROUTINE: """
int xc_{entry}(struct __sk_buff *ctx)
{{
	return {entry}((void *)ctx);
}}
""",
}
_ENTRY[Hook.TC_EGRESS] = _ENTRY[Hook.TC_INGRESS]

_DISPATCH = """#line 1 "the core's dispatcher"
int xc_dispatch({context} *ctx)
{{
	xc_next.call(ctx, 0);
	xc_count(BROKEN, {bytes});
	return xc_on_error();
}}
"""
_CONTEXT = {
    Hook.XDP: ("struct xdp_md", "xc_frags() ? bpf_xdp_get_buff_len(ctx) : (void *)(long)ctx->data_end - (void *)(long)ctx->data"),
    Hook.TC_INGRESS: ("struct __sk_buff", "ctx->len"),
    Hook.TC_EGRESS: ("struct __sk_buff", "ctx->len"),
    Hook.TRACEPOINT: ("void", "0"),
}

_TC = """#line 1 "the core's TC definitions"
#include <linux/pkt_cls.h>
#define XC_HEADERS 192	/* what a function may read of a packet whose data lies in pages */
"""


def function_unit(owner: str, function: KernelFunction[Any]) -> Unit:
    """The unit of a function. `owner` is the plugin to name in errors."""
    parts = [splice(INCLUDE / "xdpchain.h", ()), _MAPS, _XDP_BYTES, _TC, _reasons(function), facts(owner, function)]
    parts.append(splice(function.source, (INCLUDE,), owner))
    for program in function.programs:
        parts.append(f'#line 1 "the core\'s entry around {program.entry}()"\n')
        parts.append(_ENTRY[program.hook].format(entry=program.entry))
    return Unit(owner, "\n".join(parts), {PREFIX + program.entry: program.hook for program in function.programs})


def dispatcher_unit(hook: Hook) -> Unit:
    """The unit of the program that is attached to a hook and jumps to the head of the current generation."""
    context, size = _CONTEXT[hook]
    text = "\n".join((splice(INCLUDE / "xdpchain.h", ()), _MAPS, _DISPATCH.format(context=context, bytes=size)))
    return Unit("xdpchain", text, {PREFIX + DISPATCHER: hook})


def _reasons(function: KernelFunction[Any]) -> str:
    lines = "".join(f"\t{reason.name.upper()} = {number},\n" for number, reason in enumerate(function.reasons, 1))
    return f'#line 1 "the declared reasons"\nenum xc_reason {{\n{lines}}};\n' if lines else ""
