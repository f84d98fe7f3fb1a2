# SPDX-License-Identifier: Apache-2.0
"""Reading what runs: counters, fill levels, and the order of the hops as the kernel itself has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdpchain.bpf.libbpf import prog_info
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.instance import Instance
from xdpchain.chain.model import Count, HopStatus, InstanceStatus, MapStatus, Place, PlaceStatus, Snapshot
from xdpchain.chain.place import Chain
from xdpchain.chain.wiring import Generation
from xdpchain.function import Reason, Verdict
from xdpchain.schema import Role

_ACTION_BITS, _ACTION_MASK = 3, 7


def take_snapshot(
    chains: Mapping[Place, Chain],
    instances: Mapping[str, Instance],
    names: Mapping[int, str],
    waiting: tuple[str, ...],
    blocked: Mapping[str, str],
) -> Snapshot:
    """Read everything once."""
    return Snapshot(
        tuple(_place(chain, names) for place, chain in sorted(chains.items(), key=lambda item: item[0])),
        tuple(_instance(instance) for instance in instances.values()),
        waiting,
        blocked,
    )


def read_counts(counts: KernelMap, reasons: Sequence[Reason]) -> tuple[Count, ...]:
    """The counters of a hop that are not zero, summed over CPUs."""
    found = []
    for index, value in counts.items():
        values = value if isinstance(value, list) else [value]
        packets = sum(one["packets"] for one in values)
        if packets:
            found.append(Count(*verdict_at(index, reasons), packets, sum(one["bytes"] for one in values)))
    return tuple(found)


def verdict_at(index: int, reasons: Sequence[Reason]) -> tuple[Verdict, str]:
    """The verdict and the name of the reason that a counter stands for."""
    action, reason = index & _ACTION_MASK, index >> _ACTION_BITS
    verdict = Verdict(action) if action in set(Verdict) else Verdict.ABORT
    return verdict, reasons[reason - 1].name if reason else ""


def order_in_kernel(first: int | None, generation: Generation) -> tuple[str, ...]:
    """The instances in the order in which the prog arrays chain their programs, from the program with the id `first` on."""
    by_program = {prog_info(hop.program.fd).id: hop for hop in generation.hops}
    order: list[str] = []
    while first is not None and first in by_program and len(order) <= len(by_program):
        hop = by_program[first]
        order.append(hop.instance.name)
        first = hop.jump.target()
    return tuple(order)


def _place(chain: Chain, names: Mapping[int, str]) -> PlaceStatus:
    anchor, generation = chain.anchor, chain.generation
    interface = names.get(anchor.place.interface, "")
    broken = sum(count.packets for count in read_counts(anchor.dispatcher.counts, ()))
    if generation is None:
        return PlaceStatus(anchor.place, interface, anchor.mode, 0, "", (), (), broken)
    hops = tuple(
        HopStatus(hop.instance.name, prog_info(hop.program.fd).id, read_counts(hop.counts, hop.instance.function.reasons))
        for hop in generation.hops
    )
    order = order_in_kernel(anchor.dispatcher.root.target(), generation)
    return PlaceStatus(anchor.place, interface, anchor.mode, generation.number, generation.wiring.on_error, hops, order, broken)


def _instance(instance: Instance) -> InstanceStatus:
    maps = tuple(
        MapStatus(
            instance.name,
            name,
            one.schema.kind.name.lower(),
            one.schema.role.value,
            None if one.schema.kind.is_array or one.schema.role is Role.STATS else len(one),
            one.schema.capacity,
        )
        for name, one in instance.maps.items()
    )
    return InstanceStatus(instance.name, instance.function.name, instance.code, maps)
