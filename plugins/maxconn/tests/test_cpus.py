# SPDX-License-Identifier: Apache-2.0
"""SYNs of always new connections on all CPUs at once."""

from __future__ import annotations

from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from xdpchain import Hook, KernelFunction, Program
from xdpchain.testing import LoadChain
from xdpchain_maxconn import Maxconn

from plugins.maxconn.tests.helpers import NoConfig

FIRST, LIMITS, MOST, PACKETS = 8000, 500, 5, 2_000_000
SCATTER_C = """
#include "xdpchain.h"

/* Makes each packet the SYN of another connection; all CPUs go from port to port at the same time, so each limit is reached by them together. */
static __always_inline verdict scatter(struct xdp_md *ctx, struct packet *packet)
{
	if (packet->ip4 && packet->tcp) {
		packet->ip4->saddr = bpf_get_prandom_u32();
		packet->tcp->source = bpf_get_prandom_u32();
		packet->tcp->dest = bpf_htons(8000 + (bpf_ktime_get_ns() >> 18) % 500);
	}
	return next(NO_REASON);
}
"""


class Scatter(KernelFunction[NoConfig]):
    """Stands in front of maxconn."""

    api = 1
    name = "scatter"
    summary = "scatters"
    config = NoConfig
    programs = (Program(Hook.XDP, "scatter"),)

    def __init__(self, folder: Path) -> None:
        type(self).source = folder / "scatter.bpf.c"
        self.source.write_text(SCATTER_C)


def test_many_limits_that_are_reached_by_all_cpus_at_once_are_never_passed(load_chain: LoadChain, tmp_path: Path) -> None:
    limits = [{"ports": [FIRST + number], "max": MOST} for number in range(LIMITS)]
    document = {"interface": {"eth0": {"chain": ["scatter", "maxconn"]}}, "function": {"maxconn": {"limit": limits}}}
    chain = load_chain(document, functions=[Maxconn(), Scatter(tmp_path)])
    frame = bytes(Ether() / IP(dst="192.0.2.2") / TCP(flags="S"))

    chain.repeat_on_all_cpus([frame], PACKETS)

    (table,) = chain.status("maxconn")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert max(row["admitted"] for row in rows) == MOST
    assert all(row["admitted"] == row["half-open"] == MOST for row in rows)
