# SPDX-License-Identifier: Apache-2.0
"""Packets in several buffers: a chain takes them when all of its functions can."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from xdpchain import Hook, Program
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine
from xdpchain.chain.private import PrivateChain
from xdpchain.errors import InterfaceError
from xdpchain.function import Verdict

from core.tests.chain.conftest import HEADER, Configure, Wire
from core.tests.chain.functions import Mark

JUMBO = HEADER + bytes(8000)
TWO = {"a": {"number": 1}, "b": {"number": 2}}


@pytest.fixture
def jumbo(wire: Wire) -> Wire:
    for end in ("near", "far"):
        subprocess.run(["ip", "link", "set", end, "mtu", "9000"], check=True)
    return wire


@pytest.fixture
def single(tmp_path: Path, shelf: dict[str, Mark]) -> None:
    """A function that takes whole packets only."""
    shelf["single"] = Mark(tmp_path, "single")
    shelf["single"].programs = (Program(Hook.XDP, "mark", frags=False),)  # type: ignore[misc]


def send(wire: Wire) -> list[int] | None:
    wire.sender.send(JUMBO)
    try:
        frame = wire.receiver.recv(16384)
    except TimeoutError:
        return None

    assert len(frame) == len(JUMBO)

    return list(frame[15 : 15 + frame[14]])


def test_jumbo_frames_pass_a_chain_and_are_counted_whole(engine: Engine, config: Configure, jumbo: Wire) -> None:
    engine.apply(config({"near": {"chain": ["a", "b"], "xdp_mode": "native"}}, TWO), jumbo.present)

    assert [1, 2] == send(jumbo)
    assert [len(JUMBO)] * 2 == [hop.counts[0].bytes for hop in engine.snapshot().places[0].hops]


@pytest.mark.usefixtures("single")
def test_one_function_without_frags_makes_the_whole_chain_so(engine: Engine, config: Configure, wire: Wire) -> None:
    instances = {**TWO, "c": {"plugin": "single", "number": 3}}
    engine.apply(config({"near": ["a", "c", "b"]}, instances), wire.present)

    assert [1, 3, 2] == wire.path()

    plan = engine.apply(config({"near": ["a", "b"]}, instances), wire.present)

    assert "packets in several buffers are accepted now" in plan.actions[0].why
    assert [1, 2] == wire.path()

    engine.apply(config({"near": ["c", "a"]}, instances), wire.present)

    assert [3, 1] == wire.path()


@pytest.mark.usefixtures("single")
def test_a_chain_without_frags_is_refused_on_a_jumbo_interface(engine: Engine, config: Configure, jumbo: Wire) -> None:
    instances = {**TWO, "c": {"plugin": "single", "number": 3}}

    with pytest.raises(InterfaceError, match="near: native XDP refused"):
        engine.apply(config({"near": {"chain": ["a", "c"], "xdp_mode": "native"}}, instances), jumbo.present)


def test_a_private_chain_takes_jumbo_frames(config: Configure, compiler: Compiler) -> None:
    frame = PrivateChain(config({"near": ["a", "b"]}, TWO), "near", compiler).send(JUMBO)

    assert (Verdict.PASS, ["a", "b"], len(JUMBO)) == (frame.verdict, frame.path, len(frame.packet))
