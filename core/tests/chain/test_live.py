# SPDX-License-Identifier: Apache-2.0
"""Structural changes under some million packets a second: none is lost, none sees a chain that nobody configured."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from xdpchain import Hook, KernelFunction, Map, MapKind, Program, Reason, Role, u64
from xdpchain.bpf import libbpf
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine

from core.tests.chain.conftest import Configure, Wire
from core.tests.chain.functions import NoConfig

JUDGE_C = """
#include "xdpchain.h"

BPF_TABLE("percpu_hash", u64, u64, judge_paths, BY_SCHEMA);

/* Ends every chain: counts the packet under what it has passed, and drops it. */
static __always_inline verdict judge(struct xdp_md *ctx, struct packet *packet)
{
	u8 *at = packet->data + sizeof(struct ethhdr);
	u64 path = 0, one = 1, *count;

	if (!packet->eth || packet->ethertype != bpf_htons(0x88b5) || (void *)at + 9 > packet->end)
		return drop(NOT_OURS);
	__builtin_memcpy(&path, at + 1, 7);
	path = path << 8 | *at;
	count = judge_paths.lookup(&path);
	if (count)
		*count += 1;
	else
		judge_paths.update(&path, &one);
	return drop(JUDGED);
}
"""
CHANGES = 200
NAMES = "abcdefg"
INSTANCES = {name: {"number": number} for number, name in enumerate(NAMES, 1)} | {"judge": {"plugin": "judge"}}


class Judge(KernelFunction[NoConfig]):
    """Counts packets by the functions that they passed."""

    api = 1
    name = "judge"
    summary = "counts paths"
    config = NoConfig
    programs = (Program(Hook.XDP, "judge"),)
    reasons = (Reason("not_ours", ""), Reason("judged", ""))

    def __init__(self, folder: Path) -> None:
        self.source = folder / "judge.bpf.c"  # type: ignore[misc]
        self.source.write_text(JUDGE_C)

    def maps(self, config: NoConfig) -> Sequence[Map]:
        return (Map(name="judge_paths", kind=MapKind.PERCPU_HASH, key=u64, value=u64, capacity=4096, role=Role.STATE, help="paths"),)


@pytest.fixture
def shelf(tmp_path: Path, shelf: dict[str, KernelFunction[Any]]) -> dict[str, KernelFunction[Any]]:
    return {**shelf, "judge": Judge(tmp_path)}


@pytest.fixture
def native_peer(wire: Wire) -> Iterator[None]:
    """An XDP program on the sending end: frames are handed over natively only then."""
    accept = libbpf.prog_load(6, "accept", bytes.fromhex("b7000000020000009500000000000000"), attach_type=37)
    link = libbpf.link_create(accept, libbpf_index(wire.far), 37, flags=1 << 2)

    assert link > 0

    yield
    libbpf.link_detach(link)


def libbpf_index(name: str) -> int:
    return int(Path(f"/sys/class/net/{name}/ifindex").read_text())


def received(name: str) -> tuple[int, int]:
    """What a device got, and what it dropped by itself."""
    base = Path(f"/sys/class/net/{name}/statistics")
    return int((base / "rx_packets").read_text()), int((base / "rx_dropped").read_text())


def signature(chain: Sequence[str]) -> int:
    numbers = bytes(int(INSTANCES[name]["number"]) for name in chain)
    return int.from_bytes(bytes([len(numbers)]) + numbers, "little")


@pytest.mark.usefixtures("native_peer")
def test_no_packet_is_lost_or_sees_a_mixed_chain(engine: Engine, config: Configure, wire: Wire, compiler: Compiler, tmp_path: Path) -> None:
    choose = random.Random(20)
    configured: set[int] = set()
    chain = ["a", "b", "c"]
    engine.apply(config({"near": [*chain, "judge"]}, INSTANCES), wire.present)
    configured.add(signature(chain))
    before = received("near")
    command = [sys.executable, "-m", "core.tests.chain.generator", wire.far, "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdin
        assert generator.stdout
        assert generator.stdout.readline() == "ready\n"
        for number in range(CHANGES):
            chain = choose.sample(NAMES, choose.randint(1, 6))
            configured.add(signature(chain))
            if number % 10 == 9:
                engine = Engine(engine.pins.root, compiler)
            engine.apply(config({"near": [*chain, "judge"]}, INSTANCES), wire.present)
        sent, _ = generator.communicate("stop\n", timeout=60)
    after = received("near")
    counted = {path: sum(counts) for path, counts in engine.maps("judge")["judge_paths"].items()}
    mixed = {path: count for path, count in counted.items() if path not in configured}
    print(f"\n{CHANGES} changes, {sent.strip()} packets sent, {sum(counted.values())} judged, {sum(mixed.values())} mixed")

    assert after[1] == before[1]
    assert {} == mixed
    assert int(sent) == sum(counted.values())
    assert int(sent) == after[0] - before[0]
