# SPDX-License-Identifier: Apache-2.0
"""The plugin `trail`: a function that leaves its number in frames, and one that counts frames by the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import xdpchain
from xdpchain import Hook, KernelFunction, Map, MapKind, Maps, Program, Put, Reason, Role, Write, option, u32, u64


@attrs.frozen
class TrailConfig:
    """Which number to write, and how large the state map is."""

    number: int = option(default=1, min=1, max=255, help="The number to write.")
    room: int = option(default=1, min=1, max=1_000_000, help="The capacity of trail_seen.")


class Trail(KernelFunction[TrailConfig]):
    """Writes its number into frames."""

    api = 1
    name = "trail"
    summary = "writes its number into the frame"
    source = Path(__file__).with_name("trail.bpf.c")
    config = TrailConfig
    programs = (Program(Hook.XDP, "trail"),)
    reasons = (Reason("marked", "the number was written"),)

    def maps(self, config: TrailConfig) -> Sequence[Map]:
        return (
            Map(name="trail_number", kind=MapKind.ARRAY, key=u32, value=u64, capacity=1, role=Role.CONFIG, help="the number"),
            Map(name="trail_seen", kind=MapKind.HASH, key=u32, value=u64, capacity=config.room, role=Role.STATE, help="frames so far"),
        )

    def configure(self, old: TrailConfig | None, new: TrailConfig, maps: Maps) -> Iterable[Write]:
        return [Put("trail_number", 0, new.number)]


@attrs.frozen
class JudgeConfig:
    """Nothing to set."""


class Judge(KernelFunction[JudgeConfig]):
    """Counts frames by what they passed."""

    api = 1
    name = "judge"
    summary = "counts frames by what they passed"
    source = Path(__file__).with_name("judge.bpf.c")
    config = JudgeConfig
    programs = (Program(Hook.XDP, "judge"),)
    reasons = (Reason("judged", "the end of a test frame"),)

    def maps(self, config: JudgeConfig) -> Sequence[Map]:
        return (Map(name="judge_paths", kind=MapKind.PERCPU_HASH, key=u64, value=u64, capacity=4096, role=Role.STATE, help="paths"),)


@xdpchain.hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """The two functions."""
    return (Trail(), Judge())
