# SPDX-License-Identifier: Apache-2.0
"""Small functions around single headers of elb, to ask one of its C functions at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import xdpchain_elb
from xdpchain import Hook, KernelFunction, Map, MapKind, Program, Reason, Role, u32
from xdpchain.schema import Type
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb.tables import tables

HEADERS = Path(xdpchain_elb.__file__).parent / "bpf"
REASONS = ("icmp_error", "echo_reply", "echo_refused", "too_big", "too_big_limited", "malformed", "no_room")

TEXT = """
#include "xdpchain.h"
#include "tables.h"
#include "sum.h"
#include "ids.h"
#include "icmp.h"

BPF_TABLE("array", u32, {ctype}, probe_answer, BY_SCHEMA);

static __always_inline verdict probe(struct xdp_md *ctx, struct packet *packet)
{{
	u32 zero = 0;
	{ctype} *answer = probe_answer.lookup(&zero);

	if (!answer)
		return drop(NO_REASON);
	{body}
}}
"""


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Probe(KernelFunction[NoConfig]):
    """Runs a piece of C that may write to `*answer`."""

    api = 1
    name = "probe"
    summary = "asks one C function"
    config = NoConfig
    programs = (Program(Hook.XDP, "probe"),)
    reasons = tuple(Reason(name, "") for name in REASONS)

    def __init__(self, folder: Path, body: str, ctype: str, answer: Type) -> None:
        shutil.copytree(HEADERS, folder, dirs_exist_ok=True)
        self.source = folder / "probe.bpf.c"  # type: ignore[misc]  # each probe has its own
        self.source.write_text(TEXT.format(body=body, ctype=ctype))
        self._answer = answer

    def maps(self, config: NoConfig) -> Sequence[Map]:
        answer = Map(name="probe_answer", kind=MapKind.ARRAY, key=u32, value=self._answer, capacity=1, role=Role.STATE, help="what it was")
        return (*tables(vips=1, backends=1, members=1, flows=1), answer)


def load(load_chain: LoadChain, folder: Path, body: str, ctype: str = "u32", answer: Type = u32) -> LoadedChain:
    """A chain that consists of a probe with this body."""
    return load_chain({"interface": {"eth0": {"chain": ["probe"]}}}, functions=[Probe(folder, body, ctype, answer)])


def answer_of(chain: LoadedChain) -> Any:
    """What the probe has written last."""
    return chain.maps["probe"]["probe_answer"].get(0)
