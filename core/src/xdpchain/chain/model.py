# SPDX-License-Identifier: Apache-2.0
"""The chain room's values: interfaces, places, what runs, what a plan does, and what was counted. No I/O here."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from xdpchain.function import Hook, Verdict


@attrs.frozen
class Interface:
    """
    A network interface as the kernel has it now.

    `xdp_programs` maps each XDP mode in use ("native", "generic", "offload") to the id of the program attached there.
    """

    index: int
    name: str
    kind: str = ""
    mtu: int = 1500
    up: bool = True
    xdp_programs: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(order=True)
class Place:
    """
    Where a chain hangs: an interface's hook, or a tracepoint program of an instance.

    `interface` is the index (0 for tracepoints); `program` is "instance-entry" for tracepoints, else empty.
    """

    hook: Hook = attrs.field(order=lambda hook: list(Hook).index(hook))
    interface: int = 0
    program: str = ""

    def __str__(self) -> str:
        return self.program or f"{self.interface}/{self.hook.value}"


@attrs.frozen
class Wiring:
    """
    What hangs at a place: the instances in order and what else makes a generation differ from another.

    `entries` are the C functions of the programs that the instances bring. `code` has one fingerprint for each instance: a new one (an
    upgrade, another map schema) needs a new generation.
    """

    instances: tuple[str, ...]
    entries: tuple[str, ...]
    code: tuple[str, ...]
    on_error: str = "pass"
    mode: str = "auto"
    frags: bool = False


class Kind(enum.Enum):
    """What an action does."""

    MAKE = "make"
    """an instance: compile, create its maps, write its config"""
    REPLACE = "replace"
    """an instance whose code or schema changed: state maps are kept where their schema fits"""
    CONFIGURE = "configure"
    """an instance: write the difference between two configs into its maps"""
    ATTACH = "attach"
    """a place that had no chain"""
    REWIRE = "rewire"
    """a place: a new generation beside the old, then the flip"""
    DETACH = "detach"
    """a place that shall have no chain"""
    REMOVE = "remove"
    """an instance that nothing uses"""


@attrs.frozen
class Action:
    """One step of a plan. `subject` is the instance, or the place in words; `why` says what changed."""

    kind: Kind
    subject: str
    why: str = ""
    instance: str = ""
    place: Place | None = None
    wiring: Wiring | None = None


@attrs.frozen
class Plan:
    """
    What an apply would do, in order. `waiting` names configured interfaces that are not there; `blocked` those with a foreign program,
    with who is there.
    """

    actions: tuple[Action, ...]
    waiting: tuple[str, ...] = ()
    blocked: Mapping[str, str] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.actions)

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "actions": [{"action": a.kind.value, "subject": a.subject, "why": a.why} for a in self.actions],
            "waiting": list(self.waiting),
            "blocked": dict(self.blocked),
        }


@attrs.frozen
class Count:
    """Packets and bytes that one hop answered with one verdict for one reason. An empty reason means that none was given."""

    verdict: Verdict
    reason: str
    packets: int
    bytes: int


@attrs.frozen
class HopStatus:
    """One hop of a running chain."""

    instance: str
    program_id: int
    counts: tuple[Count, ...]


@attrs.frozen
class PlaceStatus:
    """
    What runs at a place. `mode` is the real one (native, generic, offload; tcx for the TC hooks; empty for tracepoints).

    `in_kernel` are the instances in the order in which the kernel's own prog arrays chain them, read back.
    """

    place: Place
    interface: str
    mode: str
    generation: int
    on_error: str
    hops: tuple[HopStatus, ...]
    in_kernel: tuple[str, ...]
    broken: int = 0
    """packets for which the dispatcher could not jump"""


@attrs.frozen
class MapStatus:
    """Fill level of one map; `entries` is None where counting them would be meaningless (arrays)."""

    instance: str
    name: str
    kind: str
    role: str
    entries: int | None
    capacity: int


@attrs.frozen
class InstanceStatus:
    """One running instance."""

    name: str
    function: str
    artifact: str
    maps: tuple[MapStatus, ...]


@attrs.frozen
class Snapshot:
    """Everything that runs and what it counted, at one moment."""

    places: tuple[PlaceStatus, ...] = ()
    instances: tuple[InstanceStatus, ...] = ()
    waiting: tuple[str, ...] = ()
    blocked: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Frame:
    """
    What a chain did with one frame, as `xdpchain trace` tells it.

    `verdict` is what became of the frame in the end; `function` the instance that decided, empty at the end of the chain.
    """

    index: int
    verdict: Verdict
    function: str
    reason: str
    path: Sequence[str]
    packet: bytes
    error: str = ""
