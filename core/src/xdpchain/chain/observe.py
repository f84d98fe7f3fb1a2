# SPDX-License-Identifier: Apache-2.0
"""
What runs, read from the kernel alone: no daemon, no config.

The pins say which links and prog arrays there are, the prog arrays which programs follow each other, and each program which prog array is
its own. The counters' names need the functions, to be had from the installed plugins; without them reasons are numbers.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.loader import ProgArray
from xdpchain.bpf.maps import KernelMap
from xdpchain.bpf.unit import counts_schema
from xdpchain.chain.anchor import adopt_anchor
from xdpchain.chain.model import HopStatus, Place, PlaceStatus, Snapshot
from xdpchain.chain.pins import Pins, open_pin
from xdpchain.chain.snapshot import read_counts
from xdpchain.chain.wiring import reasons_fingerprint
from xdpchain.function import KernelFunction, Reason


def observe(root: Path, functions: Mapping[str, KernelFunction[Any]] | None = None) -> Snapshot:
    """What runs under a pin root. `functions` give the counters' reasons their names."""
    pins = Pins(root)
    known = {reasons_fingerprint(tuple(one.reasons)): one.reasons for one in (functions or {}).values()}
    return Snapshot(tuple(status for place in pins.places() if (status := _place(place, pins, known)) is not None))


def _place(place: Place, pins: Pins, known: Mapping[str, Sequence[Reason]]) -> PlaceStatus | None:
    anchor = adopt_anchor(place, pins)
    if anchor is None:
        return None
    jumps = _jumps(pins.place(place))
    hops: list[HopStatus] = []
    generation = 0
    number = anchor.dispatcher.root.target()
    while number is not None and len(hops) <= len(jumps):
        program = Handle(libbpf.prog_by_id(number))
        own = next((used for used in libbpf.prog_map_ids(program.fd) if used in jumps), None)
        if own is None:
            break
        path, jump = jumps[own]
        _, generation_text, _, instance = path.name.split("-", 3)
        generation = int(generation_text)
        hops.append(HopStatus(instance, number, ()))
        number = jump.target()
    with_counts = tuple(_with_counts(hop, pins.place(place), known) for hop in hops)
    broken = sum(count.packets for count in read_counts(anchor.dispatcher.counts, ()))
    order = tuple(hop.instance for hop in hops)
    return PlaceStatus(place, interface_name(place.interface), anchor.mode, generation, "", with_counts, order, broken)


def _jumps(folder: Path) -> dict[int, tuple[Path, ProgArray]]:
    """The pinned prog arrays of the hops, by the kernel's id of the array."""
    jumps = {}
    for path in folder.glob("next-*"):
        handle = open_pin(path)
        if handle is not None:
            jumps[int(libbpf.map_info(handle.fd).id)] = (path, ProgArray(handle))
    return jumps


def _with_counts(hop: HopStatus, folder: Path, known: Mapping[str, Sequence[Reason]]) -> HopStatus:
    path = next(folder.glob(f"counts-{hop.instance}-*"), None)
    handle = open_pin(path) if path else None
    if path is None or handle is None:
        return hop
    fallback = [Reason(f"reason_{number}", "") for number in range(1, libbpf.map_info(handle.fd).max_entries >> 3)]
    reasons = known.get(path.name.rsplit("-", 1)[1], fallback)
    return HopStatus(hop.instance, hop.program_id, read_counts(KernelMap(handle, counts_schema(len(reasons))), reasons))


def interface_name(index: int) -> str:
    """The name of an interface, or empty where it is gone."""
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return ""
