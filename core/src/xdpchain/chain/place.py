# SPDX-License-Identifier: Apache-2.0
"""The chain at a place: an anchor and the generation that it leads to, and how one becomes the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from xdpchain.bpf.artifact import Artifact
from xdpchain.chain.anchor import Anchor, attach_anchor, change_dispatcher, current_head, flip, make_dispatcher, reattach
from xdpchain.chain.instance import Instance
from xdpchain.chain.model import Place, Wiring
from xdpchain.chain.pins import Pins
from xdpchain.chain.plan import needs_reattach
from xdpchain.chain.transaction import Transaction
from xdpchain.chain.wiring import Generation, build_generation


@attrs.frozen
class Chain:
    """What hangs at a place. An adopted chain has no generation yet: its programs run, but nobody here holds them."""

    anchor: Anchor
    generation: Generation | None

    @property
    def wiring(self) -> Wiring | None:
        return self.generation.wiring if self.generation else None

    @property
    def pins(self) -> tuple[Path, ...]:
        hops = self.generation.hops if self.generation else ()
        return (*self.anchor.pins, *(path for hop in hops for path in hop.pins))


def attach_chain(
    place: Place,
    wiring: Wiring,
    instances: Mapping[str, Instance],
    dispatcher: Artifact,
    names: Mapping[int, str],
    pins: Pins,
    transaction: Transaction,
) -> Chain:
    """Build the first generation of a place and attach it."""
    generation = build_generation(place, pins.next_generation(place), wiring, instances, pins, transaction)
    target = _target(place, generation, names)
    anchor = attach_anchor(place, target, generation, make_dispatcher(place, wiring, dispatcher), pins, transaction)
    return Chain(anchor, generation)


def rewire_chain(
    chain: Chain,
    wiring: Wiring,
    instances: Mapping[str, Instance],
    artifact: Artifact,
    names: Mapping[int, str],
    pins: Pins,
    transaction: Transaction,
) -> Callable[[], Chain]:
    """Build the next generation beside the one that runs. What is returned makes the switch, and gives the new chain."""
    place = chain.anchor.place
    generation = build_generation(place, pins.next_generation(place), wiring, instances, pins, transaction)
    dispatcher = make_dispatcher(place, wiring, artifact)

    def switch() -> Chain:
        anchor = chain.anchor
        if needs_reattach(chain.wiring, wiring, anchor.mode):
            anchor = reattach(anchor, _target(place, generation, names), generation, dispatcher, pins, transaction)
        elif anchor.dispatcher.tag == dispatcher.tag:
            flip(anchor, current_head(anchor), generation, transaction)
        else:
            anchor = change_dispatcher(anchor, generation, dispatcher, pins, transaction)
        return Chain(anchor, generation)

    return switch


def _target(place: Place, generation: Generation, names: Mapping[int, str]) -> str:
    """What to attach to, in words: the interface's name or the tracepoint's."""
    if place.interface:
        return names[place.interface]
    programs = generation.hops[0].instance.function.programs
    return next(program.event for program in programs if program.entry in generation.wiring.entries)
