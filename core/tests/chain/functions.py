# SPDX-License-Identifier: Apache-2.0
"""Small functions for the chain's tests, their sources written to a directory of the test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from xdpchain import Hook, KernelFunction, Map, MapKind, Maps, Program, Put, Reason, Role, Write, option, u32, u64
from xdpchain.schema import Type

MARK_C = """
#include "xdpchain.h"

BPF_TABLE("array", u32, u64, mark_number, BY_SCHEMA);
BPF_TABLE("hash", u32, u64, mark_seen, BY_SCHEMA);

/* Writes its number behind those of the functions before it: byte 0 of the payload counts them. */
static __always_inline verdict mark(struct xdp_md *ctx, struct packet *packet)
{
	u8 *count = packet->data + sizeof(struct ethhdr), *at;
	u32 zero = 0;
	u64 *number = mark_number.lookup(&zero), one = 1, *seen;

	if (!number || !packet->eth || packet->ethertype != bpf_htons(0x88b5) || (void *)count + 40 > packet->end)
		return next(NO_REASON);
	if (*number == 255)
		return drop(IS_255);
	seen = mark_seen.lookup(&zero);
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		mark_seen.update(&zero, &one);
	if (*count < 32) {
		at = count + 1 + *count;
		if ((void *)at + 1 <= packet->end)
			*at = *number;
	}
	*count += 1;
	return next(MARKED);
}
"""

HOOKS_C = """
#include "xdpchain.h"

BPF_TABLE("percpu_array", u32, u64, hooks_events, BY_SCHEMA);

static __always_inline verdict hooks_xdp(struct xdp_md *ctx, struct packet *packet)
{
	return packet->udp && packet->udp->dest == bpf_htons(1) ? drop(PORT_1) : next(NO_REASON);
}

static __always_inline verdict hooks_in(struct __sk_buff *ctx, struct packet *packet)
{
	return packet->udp && packet->udp->dest == bpf_htons(2) ? drop(PORT_2) : next(NO_REASON);
}

static __always_inline verdict hooks_out(struct __sk_buff *ctx, struct packet *packet)
{
	return packet->udp && packet->udp->dest == bpf_htons(3) ? drop(PORT_3) : next(NO_REASON);
}

static __always_inline int hooks_event(void *ctx)
{
	u32 zero = 0;
	u64 *events = hooks_events.lookup(&zero);

	if (events)
		*events += 1;
	return 0;
}
"""


@attrs.frozen
class MarkConfig:
    """Which number to write, and how many keys the state map has."""

    number: int = option(default=1, min=0, max=255, help="The number to write.")
    capacity: int = option(default=16, min=1, max=64, help="The capacity of mark_seen.")
    explode: bool = option(default=False, help="Make the config handler raise.")


class Mark(KernelFunction[MarkConfig]):
    """Writes its number into packets of ethertype 0x88b5: what they passed can be read off them."""

    api = 1
    name = "mark"
    summary = "writes its number into the packet"
    config = MarkConfig
    programs = (Program(Hook.XDP, "mark"),)
    reasons = (Reason("marked", "the number was written"), Reason("is_255", "the number 255 drops"))

    def __init__(self, folder: Path, name: str = "mark", text: str = MARK_C, value: Type = u64) -> None:
        self.name = name  # type: ignore[misc]
        self.source = folder / f"{name}.bpf.c"  # type: ignore[misc]
        self.value = value
        self.source.write_text(text)

    def maps(self, config: MarkConfig) -> Sequence[Map]:
        return (
            Map(name="mark_number", kind=MapKind.ARRAY, key=u32, value=u64, capacity=1, role=Role.CONFIG, help="the number"),
            Map(name="mark_seen", kind=MapKind.HASH, key=u32, value=self.value, capacity=config.capacity, role=Role.STATE, help="packets"),
        )

    def configure(self, old: MarkConfig | None, new: MarkConfig, maps: Maps) -> Iterable[Write]:
        yield Put("mark_number", 0, new.number)
        if new.explode:
            raise RuntimeError("told to")


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Hooks(KernelFunction[NoConfig]):
    """A program on every hook; each drops one UDP port of its own."""

    api = 1
    name = "hooks"
    summary = "a program on every hook"
    config = NoConfig
    programs = (
        Program(Hook.XDP, "hooks_xdp"),
        Program(Hook.TC_INGRESS, "hooks_in"),
        Program(Hook.TC_EGRESS, "hooks_out"),
        Program(Hook.TRACEPOINT, "hooks_event", event="sock:inet_sock_set_state"),
    )
    reasons = tuple(Reason(f"port_{number}", "") for number in (1, 2, 3))

    def __init__(self, folder: Path) -> None:
        self.source = folder / "hooks.bpf.c"  # type: ignore[misc]
        self.source.write_text(HOOKS_C)

    def maps(self, config: NoConfig) -> Sequence[Map]:
        return (Map(name="hooks_events", kind=MapKind.PERCPU_ARRAY, key=u32, value=u64, capacity=1, role=Role.STATS, help="events"),)


def functions(folder: Path) -> dict[str, KernelFunction[Any]]:
    """All of the above."""
    return {"mark": Mark(folder), "hooks": Hooks(folder)}
