# SPDX-License-Identifier: Apache-2.0
"""Which functions are swept, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import structlog
from xdpchain import Hook, KernelFunction, Maps, Program, Put, Sockets, Write
from xdpchain.chain.engine import Engine
from xdpchain.config import InstanceConfig, NodeConfig, NodeSettings
from xdpchain.daemon.failures import Failures
from xdpchain.daemon.sweeping import has_sweep, sweep

SEEN = Sockets(7, ())


@attrs.frozen
class NoConfig:
    fails: bool = False


class Plain(KernelFunction[NoConfig]):
    api = 1
    name = "plain"
    summary = "does nothing"
    source = Path("plain.bpf.c")
    config = NoConfig
    programs = (Program(Hook.XDP, "plain"),)


class Counting(Plain):
    def sweep(self, config: NoConfig, sockets: Sockets, maps: Maps) -> Iterable[Write]:
        if config.fails:
            raise ValueError("no")
        return [Put("counts", 0, sockets.at_ns)]


class RecordingEngine:
    def __init__(self, *running: str) -> None:
        self.running = running
        self.written: list[tuple[str, list[Write]]] = []

    def maps(self, instance: str) -> Mapping[str, Any]:
        if instance not in self.running:
            raise KeyError(instance)
        return {}

    def carry_out(self, instance: str, writes: Iterable[Write], *, method: str) -> int:
        assert method == "sweep"
        self.written.append((instance, list(writes)))
        return 1


def node(**functions: tuple[KernelFunction[NoConfig], bool]) -> NodeConfig:
    instances = {name: InstanceConfig(name, function, NoConfig(fails)) for name, (function, fails) in functions.items()}
    return NodeConfig(NodeSettings(), (), instances)


def test_only_functions_with_a_sweep_are_swept() -> None:
    assert not has_sweep(None)
    assert not has_sweep(node(a=(Plain(), False)))
    assert has_sweep(node(a=(Plain(), False), b=(Counting(), False)))


def test_what_one_raises_is_told_and_the_others_go_on_and_who_does_not_run_is_left_out() -> None:
    config = node(bad=(Counting(), True), plain=(Plain(), False), good=(Counting(), False), gone=(Counting(), False))
    engine, looks = RecordingEngine("bad", "plain", "good"), []

    def look() -> Sockets:
        looks.append(1)
        return SEEN

    with structlog.testing.capture_logs() as logged:
        sweep(cast("Engine", engine), config, Failures(), look)

    assert [("good", [Put("counts", 0, 7)])] == engine.written
    assert len(looks) == 2
    assert [("bad", "its sweep: plugin 'plain': sweep() raised ValueError: no")] == [(one["instance"], one["error"]) for one in logged]
