# SPDX-License-Identifier: Apache-2.0
"""
Generations: complete wirings of a chain, built beside the one that runs.

A generation is loaded and linked from its head to its end before anything can reach it. Then one element of the dispatcher's prog array
is pointed at its head.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path

import attrs

from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create
from xdpchain.bpf.loader import Constant, ProgArray, load_program
from xdpchain.bpf.maps import KernelMap
from xdpchain.bpf.unit import PREFIX, counts_schema
from xdpchain.chain.instance import Instance
from xdpchain.chain.model import Place, Wiring
from xdpchain.chain.pins import Pins, open_pin, pin_undoably
from xdpchain.chain.transaction import Transaction
from xdpchain.errors import InterfaceError, KernelError, VerifierError
from xdpchain.function import Hook, Reason
from xdpchain.sockets import netns_cookie

_ON_ERROR = {
    Hook.XDP: {"pass": 2, "drop": 1},
    Hook.TC_INGRESS: {"pass": -1, "drop": 2},
    Hook.TC_EGRESS: {"pass": -1, "drop": 2},
    Hook.TRACEPOINT: {"pass": 0, "drop": 0},
}
"""What the hook returns when a hop cannot be taken: enum xdp_action, TC_ACT_UNSPEC and TC_ACT_SHOT."""


@attrs.frozen
class Hop:
    """One function's program at its place in a generation."""

    instance: Instance
    program: Handle
    jump: ProgArray
    counts: KernelMap
    pins: tuple[Path, ...] = ()


@attrs.frozen
class Generation:
    """One complete wiring, ready to be jumped to."""

    number: int
    wiring: Wiring
    hops: tuple[Hop, ...]

    @property
    def head(self) -> Handle:
        return self.hops[0].program


def build_generation(
    place: Place,
    number: int,
    wiring: Wiring,
    instances: Mapping[str, Instance],
    pins: Pins | None,
    transaction: Transaction,
) -> Generation:
    """Load and link all hops of a wiring. Without `pins` nothing is pinned, and counters start at zero."""
    hops: list[Hop] = []
    for position, (name, entry) in enumerate(zip(wiring.instances, wiring.entries, strict=True)):
        instance = instances[name]
        jump = ProgArray.create()
        pinned: list[Path] = []
        if pins:
            pinned.append(pins.place(place) / f"next-{number}-{position}-{name}")
            pin_undoably(jump.handle, pinned[-1], transaction)
        counts = _counts(place, instance, pins, transaction, pinned, _offload_to(place, wiring))
        constants = {
            Constant.LAST: int(position == len(wiring.instances) - 1),
            Constant.ON_ERROR: on_error_code(place.hook, wiring.on_error),
            Constant.FRAGS: int(wiring.frags),
            Constant.NETNS: netns_cookie(),
        }
        maps = {map_name: one.fd for map_name, one in instance.maps.items()} | {"xc_next": jump.fd, "xc_counts": counts.fd}
        loaded = _load(instance, entry, place, maps, constants, wiring)
        hops.append(Hop(instance, loaded, jump, counts, tuple(pinned)))
    for hop, following in itertools.pairwise(hops):
        hop.jump.point(following.program)
    return Generation(number, wiring, tuple(hops))


def _load(
    instance: Instance, entry: str, place: Place, maps: Mapping[str, int], constants: Mapping[Constant, int], wiring: Wiring
) -> Handle:
    name, hook, device = PREFIX + entry, place.hook, _offload_to(place, wiring)
    try:
        return load_program(instance.artifact, name, hook, maps, constants, name=instance.name, frags=wiring.frags, offload_to=device)
    except VerifierError as error:
        raise VerifierError(instance.function.name, error.message, details=error.details, hint=error.hint) from error
    except KernelError as error:
        if device:
            hint = "its driver does not offload XDP programs, or not this one"
            raise InterfaceError(f"offload to interface {device} refused: {error.message}", hint=hint) from error
        raise


def _offload_to(place: Place, wiring: Wiring) -> int:
    return place.interface if wiring.mode == "offload" else 0


def on_error_code(hook: Hook, on_error: str) -> int:
    """The return code of a hook for a chain's declared `on_error`, as the 64 bits of an immediate."""
    return _ON_ERROR[hook][on_error] & 0xFFFFFFFFFFFFFFFF


def reasons_fingerprint(reasons: tuple[Reason, ...]) -> str:
    """8 hex digits that change when a counter would change its meaning."""
    return hashlib.sha256("\n".join(reason.name for reason in reasons).encode()).hexdigest()[:8]


def counts_pin(pins: Pins, place: Place, instance: Instance) -> Path:
    """Where the counters of a hop are pinned: they live as long as the instance keeps its place on this hook."""
    return pins.place(place) / f"counts-{instance.name}-{reasons_fingerprint(tuple(instance.function.reasons))}"


def _counts(
    place: Place, instance: Instance, pins: Pins | None, transaction: Transaction, pinned: list[Path], offload_to: int
) -> KernelMap:
    schema = counts_schema(len(instance.function.reasons), per_cpu=not offload_to)
    path = counts_pin(pins, place, instance) if pins else None
    handle = open_pin(path) if path else None
    if handle is None:
        value = schema.value.size
        handle = Handle(map_create(schema.kind.value, schema.name, 4, value, schema.capacity, ifindex=offload_to))
        if path:
            pin_undoably(handle, path, transaction)
    if path:
        pinned.append(path)
    return KernelMap(handle, schema)
