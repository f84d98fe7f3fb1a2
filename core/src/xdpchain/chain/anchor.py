# SPDX-License-Identifier: Apache-2.0
"""The anchor of a chain: the dispatcher on its hook, and the one prog array element that says which generation runs."""

from __future__ import annotations

from pathlib import Path

import attrs

from xdpchain.bpf import libbpf
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.attach import Filter, Hold, Link, attach_tc, attach_tracepoint, attach_xdp
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create
from xdpchain.bpf.loader import Constant, ProgArray, load_program
from xdpchain.bpf.maps import KernelMap
from xdpchain.bpf.unit import DISPATCHER, PREFIX, counts_schema
from xdpchain.chain.model import Place, Wiring
from xdpchain.chain.pins import Pins, open_pin, pin, pin_undoably, unpin
from xdpchain.chain.transaction import Transaction
from xdpchain.chain.wiring import Generation, on_error_code
from xdpchain.function import Hook


@attrs.frozen
class Dispatcher:
    """
    The program that is attached to a hook. It jumps to the head of the current generation, and counts when it cannot.

    `tag` is the kernel's digest of its instructions: two dispatchers with one tag do the same.
    """

    program: Handle
    root: ProgArray
    counts: KernelMap
    tag: bytes


@attrs.frozen
class Anchor:
    """A dispatcher held on its hook. `mode` is the mode that it really got: native, generic, offload, tcx, clsact, perf."""

    place: Place
    hold: Hold
    dispatcher: Dispatcher
    mode: str
    pins: tuple[Path, ...]


def make_dispatcher(place: Place, wiring: Wiring, artifact: Artifact) -> Dispatcher:
    """Load a dispatcher with a prog array of its own, not attached to anything."""
    root = ProgArray.create()
    schema = counts_schema(0)
    counts = KernelMap(Handle(map_create(schema.kind.value, "xc_dispatch", 4, schema.value.size, schema.capacity)), schema)
    constants = {
        Constant.ON_ERROR: on_error_code(place.hook, wiring.on_error),
        Constant.FRAGS: int(wiring.frags),
        Constant.LAST: 0,
    }
    maps = {"xc_next": root.fd, "xc_counts": counts.fd}
    program = load_program(artifact, PREFIX + DISPATCHER, place.hook, maps, constants, name="xc_dispatch", frags=wiring.frags)
    return Dispatcher(program, root, counts, _tag(program))


def adopt_anchor(place: Place, pins: Pins) -> Anchor | None:
    """
    The anchor that is pinned for a place, found again by what the kernel says of it.

    None where there is no pin, the interface is gone, or the pins do not belong together (then they are of no use to anybody).
    """
    folder = pins.place(place)
    link_pin = next(folder.glob("link-*"), None)
    pinned = open_pin(link_pin) if link_pin else None
    if pinned is None or link_pin is None:
        return None
    mode = link_pin.name.removeprefix("link-")
    hold = Filter(pinned, place.interface, place.hook) if mode == "clsact" else Link(pinned)
    if hold.interface != place.interface:
        return None
    program = Handle(libbpf.prog_by_id(hold.program))
    used = set(libbpf.prog_map_ids(program.fd))
    roots = {path: open_pin(path) for path in sorted(folder.glob("root-*"))}
    root = next(((path, handle) for path, handle in roots.items() if handle and libbpf.map_info(handle.fd).id in used), None)
    if root is None or root[1] is None:
        return None
    counts = next(number for number in used if number != libbpf.map_info(root[1].fd).id)
    schema = counts_schema(0)
    dispatcher = Dispatcher(program, ProgArray(root[1]), KernelMap(Handle(libbpf.map_by_id(counts)), schema), _tag(program))
    return Anchor(place, hold, dispatcher, mode, (link_pin, root[0]))


def attach_anchor(
    place: Place, target: str, generation: Generation, dispatcher: Dispatcher, pins: Pins, transaction: Transaction
) -> Anchor:
    """Attach a dispatcher that jumps to `generation`. `target` is the name of the interface or of the tracepoint."""
    dispatcher.root.point(generation.head)
    root_pin = pins.place(place) / f"root-{generation.number}"
    pin_undoably(dispatcher.root.handle, root_pin, transaction)
    program = generation.head if generation.wiring.mode == "offload" else dispatcher.program
    hold, mode = _attach(place, target, program, generation.wiring.mode)
    transaction.undo(f"attach {place}", hold.detach)
    link_pin = pins.place(place) / f"link-{mode}"
    unpin(link_pin)  # one that is here holds nothing any more: its interface went, or somebody detached it
    pin_undoably(hold.handle, link_pin, transaction)
    return Anchor(place, hold, dispatcher, mode, (link_pin, root_pin))


def reattach(anchor: Anchor, target: str, generation: Generation, dispatcher: Dispatcher, pins: Pins, transaction: Transaction) -> Anchor:
    """Detach, and attach in another mode: between the two, packets pass without the chain. The kernel knows no other way."""
    anchor.hold.detach()
    unpin(anchor.pins[0])

    def attach_again() -> None:
        hold, _ = _attach(anchor.place, target, anchor.dispatcher.program, anchor.mode)
        anchor.hold.handle.replace(hold.handle)
        pin(anchor.hold.handle, anchor.pins[0])

    transaction.undo(f"detach {anchor.place}", attach_again)
    return attach_anchor(anchor.place, target, generation, dispatcher, pins, transaction)


def _attach(place: Place, target: str, program: Handle, mode: str) -> tuple[Hold, str]:
    if place.hook is Hook.XDP:
        return attach_xdp(program, place.interface, target, mode)
    if place.hook is Hook.TRACEPOINT:
        return attach_tracepoint(program, target), "perf"
    return attach_tc(program, place.interface, target, place.hook)


def holds(anchor: Anchor) -> bool:
    """Whether the dispatcher is still on its interface: that may have been deleted, or somebody has detached it."""
    return anchor.hold.interface == anchor.place.interface


def flip(anchor: Anchor, old_head: Handle | None, generation: Generation, transaction: Transaction) -> None:
    """Let the next packet find `generation`: one element of one prog array changes."""
    if old_head is not None:
        transaction.undo(f"flip of {anchor.place}", lambda: anchor.dispatcher.root.point(old_head))
    anchor.dispatcher.root.point(generation.head)


def change_dispatcher(anchor: Anchor, generation: Generation, dispatcher: Dispatcher, pins: Pins, transaction: Transaction) -> Anchor:
    """Let the next packet find another dispatcher, which jumps to `generation`: the program on the hook is replaced atomically."""
    dispatcher.root.point(generation.head)
    root_pin = pins.place(anchor.place) / f"root-{generation.number}"
    pin_undoably(dispatcher.root.handle, root_pin, transaction)

    def put(program: Handle) -> None:
        anchor.hold.put(program)
        if anchor.mode == "clsact":
            unpin(anchor.pins[0])
            pin(anchor.hold.handle, anchor.pins[0])

    transaction.undo(f"dispatcher of {anchor.place}", lambda: put(anchor.dispatcher.program))
    put(dispatcher.program)
    return attrs.evolve(anchor, dispatcher=dispatcher, pins=(anchor.pins[0], root_pin))


def current_head(anchor: Anchor) -> Handle | None:
    """The program that an adopted dispatcher jumps to now."""
    number = anchor.dispatcher.root.target()
    return Handle(libbpf.prog_by_id(number)) if number else None


def _tag(program: Handle) -> bytes:
    return bytes(libbpf.prog_info(program.fd).raw_tag)
