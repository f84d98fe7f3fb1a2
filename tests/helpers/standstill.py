# SPDX-License-Identifier: Apache-2.0
"""Proof that nothing changed: what runs, as the daemon, the pins and the kernel tell it, before and after; and counters that go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.helpers.kernel import held_by
from tests.helpers.node import Node

Counts = Mapping[tuple[str, str, str, str], int]


@attrs.frozen
class Standing:
    """What must be the same after something was refused."""

    generations: Mapping[str, int]
    programs: tuple[int, ...]
    order: tuple[tuple[str, ...], ...]
    instances: tuple[str, ...]
    pins: Mapping[str, int]
    held: Mapping[str, int]

    def changes(self, now: Standing) -> str:
        """What is different now, in words; empty where nothing is."""
        names = (field.name for field in attrs.fields(Standing) if getattr(self, field.name) != getattr(now, field.name))
        return "; ".join(f"{name} {getattr(self, name)} became {getattr(now, name)}" for name in names)


def standing(node: Node) -> Standing:
    """What runs now; pins by the inode of what they pin, so that one that is made anew is another."""
    status = node.status()
    places = status["places"]
    return Standing(
        {place["interface"] or place["program"]: place["generation"] for place in places},
        tuple(hop["program_id"] for place in places for hop in place["hops"]),
        tuple(tuple(place["in_kernel"]) for place in places),
        tuple(f"{one['name']} {one['artifact']}" for one in status["instances"]),
        {str(path): path.stat().st_ino for path in _files(node.root)},
        held_by(node.pid),
    )


def counts(node: Node) -> Counts:
    """Packets by interface, instance, verdict and reason."""
    return counts_of(node.status())


def counts_of(status: Mapping[str, Any]) -> Counts:
    """Packets by interface, instance, verdict and reason, in a status."""
    return {
        (place["interface"], hop["instance"], count["verdict"], count["reason"]): count["packets"]
        for place in status["places"]
        for hop in place["hops"]
        for count in hop["counts"]
    }


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())
