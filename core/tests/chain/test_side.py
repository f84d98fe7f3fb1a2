# SPDX-License-Identifier: Apache-2.0
"""Interfaces have a side: a function may bring other programs to a workload's interface than to a NIC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from xdpchain.chain.model import Interface
from xdpchain.chain.plan import want
from xdpchain.config import loads
from xdpchain.errors import PluginError
from xdpchain.function import Hook, KernelFunction, Program, Reason, Side, Verdict
from xdpchain.plugin_checks import check_function
from xdpchain.testing import LoadChain

C = """
#include "xdpchain.h"

static __always_inline verdict from_network(struct xdp_md *ctx, struct packet *packet)
{
	return next(ARRIVES);
}

static __always_inline verdict to_network(struct __sk_buff *ctx, struct packet *packet)
{
	return next(LEAVES);
}

static __always_inline verdict to_workload(struct __sk_buff *ctx, struct packet *packet)
{
	return next(ARRIVES);
}
"""


@attrs.frozen
class NoConfig:
    """No keys."""


class Sided(KernelFunction[NoConfig]):
    """Says whether a packet comes from the network or goes there."""

    api = 1
    name = "sided"
    summary = "tells directions apart"
    config = NoConfig
    programs = (
        Program(Hook.XDP, "from_network", side=Side.NETWORK),
        Program(Hook.TC_EGRESS, "to_network", side=Side.NETWORK),
        Program(Hook.TC_EGRESS, "to_workload", side=Side.WORKLOAD),
    )
    reasons = (Reason("arrives", "comes from the network"), Reason("leaves", "goes to the network"))


@pytest.fixture
def sided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sided:
    source = tmp_path / "sided.bpf.c"
    source.write_text(C)
    monkeypatch.setattr(Sided, "source", source, raising=False)
    return Sided()


@pytest.fixture
def counts(load_chain: LoadChain, sided: Sided) -> Callable[..., Any]:
    def send(side: str) -> Any:
        chain = load_chain({"interface": {"eth0": {"chain": ["sided"], "side": side}}}, functions=[sided])
        chain.send(bytes(60))
        chain.send(bytes(60), egress=True)
        return {reason: packets for (verdict, reason), packets in chain.counts("sided").items() if packets and verdict is Verdict.NEXT}

    return send


@pytest.mark.parametrize(
    ("side", "seen"), [("auto", {"arrives": 1, "leaves": 1}), ("network", {"arrives": 1, "leaves": 1}), ("workload", {"arrives": 1})]
)
def test_a_program_with_a_side_runs_on_interfaces_of_that_side_only(counts: Callable[..., Any], side: str, seen: dict[str, int]) -> None:
    assert counts(side) == seen


@pytest.mark.parametrize(("kind", "side"), [("", Side.NETWORK), ("bond", Side.NETWORK), ("tun", Side.WORKLOAD), ("veth", Side.WORKLOAD)])
def test_taps_and_veths_have_a_workload_at_the_other_end(sided: Sided, kind: str, side: Side) -> None:
    node = loads({"interface": {"*": {"chain": ["sided"]}}}, {"sided": sided})
    wirings = want(node, [Interface(7, "one", kind)], {"sided": "code"}).wirings
    entries = {place.hook: wiring.entries for place, wiring in wirings.items()}
    if side is Side.WORKLOAD:
        assert entries == {Hook.TC_EGRESS: ("to_workload",)}
    else:
        assert entries == {Hook.XDP: ("from_network",), Hook.TC_EGRESS: ("to_network",)}


def test_two_programs_on_one_hook_of_one_side_are_refused(sided: Sided, monkeypatch: pytest.MonkeyPatch) -> None:
    check_function("sided", sided)
    for side in (Side.NETWORK, None):
        monkeypatch.setattr(Sided, "programs", (*Sided.programs[:2], Program(Hook.TC_EGRESS, "to_workload", side=side)))
        with pytest.raises(PluginError, match="two programs for the hook tc_egress"):
            check_function("sided", sided)
