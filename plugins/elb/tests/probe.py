# SPDX-License-Identifier: Apache-2.0
"""A small function around the headers of elb that need no tables, to ask one of their C functions at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs
from scapy.packet import Packet
from xdpchain import Hook, KernelFunction, Map, MapKind, Program, Role, Struct, u32, u64
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb import Elb

TALK = Struct("probe_talk", {"first": u64, "second": u64, "result": u64})
CHAIN = {"interface": {"eth0": {"chain": ["probe"]}}}

TEXT = """
#include "xdpchain.h"
#include "sum.h"
#include "ids.h"

struct probe_talk {
	u64 first;
	u64 second;
	u64 result;
};

BPF_TABLE("array", u32, struct probe_talk, probe_talk, BY_SCHEMA);

static __always_inline verdict probe(struct xdp_md *ctx, struct packet *packet)
{
	u32 zero = 0;
	struct probe_talk *talk = probe_talk.lookup(&zero);

	if (!talk)
		return drop(NO_REASON);
	BODY
	return next(NO_REASON);
}
"""


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Probe(KernelFunction[NoConfig]):
    """Runs a piece of C, which reads and writes `talk`."""

    api = 1
    name = "probe"
    summary = "asks one C function"
    config = NoConfig
    programs = (Program(Hook.XDP, "probe"),)

    def __init__(self, folder: Path, body: str) -> None:
        shutil.copytree(Elb.source.parent, folder, dirs_exist_ok=True)
        self.source = folder / "probe.bpf.c"  # type: ignore[misc]  # each probe has its own
        self.source.write_text(TEXT.replace("BODY", body))

    def maps(self, config: NoConfig) -> Sequence[Map]:
        help_text = "a question and its answer"
        return (Map(name="probe_talk", kind=MapKind.ARRAY, key=u32, value=TALK, capacity=1, role=Role.STATE, help=help_text),)


def load(load_chain: LoadChain, folder: Path, body: str) -> LoadedChain:
    """A chain that consists of a probe with this body."""
    return load_chain(CHAIN, functions=[Probe(folder, body)])


def ask(chain: LoadedChain, packet: Packet | bytes, first: int = 0, second: int = 0) -> int:
    """Send a packet; what the probe has written to `result`."""
    table = chain.maps["probe"]["probe_talk"]
    table.put(0, {"first": first, "second": second, "result": 0})
    chain.send(packet)
    _, talk = next(table.items())
    result: int = talk["result"]
    return result
