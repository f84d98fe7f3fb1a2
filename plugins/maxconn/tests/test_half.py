# SPDX-License-Identifier: Apache-2.0
"""The table of reservations: who is found in it, who is forgotten, and that each reservation is given back once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from xdpchain import Hook, KernelFunction, Program, Sockets
from xdpchain.testing import LoadChain, LoadedChain, Verdict
from xdpchain_maxconn import Maxconn
from xdpchain_maxconn.tables import SECRETS, SET

from plugins.maxconn.tests.conftest import Limiter
from plugins.maxconn.tests.helpers import NoConfig

LATER_NS = 10**10
FLOWS, PACKETS = 64, 1_000_000
FEW_C = """
#include "xdpchain.h"

/* Makes each packet the SYN of one of a few connections by chance, so that CPUs often have the same one at the same moment. */
static __always_inline verdict few(struct xdp_md *ctx, struct packet *packet)
{
	if (packet->tcp)
		packet->tcp->source = bpf_htons(1000 + bpf_get_prandom_u32() % 64);
	return next(NO_REASON);
}
"""


class Few(KernelFunction[NoConfig]):
    """Stands in front of maxconn."""

    api = 1
    name = "few"
    summary = "few"
    config = NoConfig
    programs = (Program(Hook.XDP, "few"),)

    def __init__(self, folder: Path) -> None:
        type(self).source = folder / "few.bpf.c"
        self.source.write_text(FEW_C)


def syn(port: int, below: Packet | None = None, to: int = 80) -> Packet:
    return (below or IP(src="192.0.2.1", dst="192.0.2.2")) / TCP(sport=port, dport=to, flags="S")


def reason(chain: LoadedChain, packet: Packet) -> str:
    """The reason that a packet is counted with."""
    before = chain.counts("maxconn")
    chain.send(packet)
    (one,) = (name for (verdict, name), count in chain.counts("maxconn").items() if count != before.get((verdict, name), 0))
    return one


def row(chain: LoadedChain, index: int = 0) -> dict[str, Any]:
    (table,) = chain.status("maxconn")
    return dict(zip(table.columns, table.rows[index], strict=True))


def sweep(chain: LoadedChain) -> None:
    """A sweep that sees no socket, so late that no handshake is waited for."""
    chain.sweep("maxconn", Sockets(time.monotonic_ns() + LATER_NS, []))


def meet(chain: LoadedChain) -> None:
    """Without a secret all connections have the same hash."""
    chain.maps["maxconn"]["mc_secret"].put(0, {"word": [0] * SECRETS})


def secret(chain: LoadedChain) -> list[int]:
    ((_, value),) = chain.maps["maxconn"]["mc_secret"].items()
    words: list[int] = value["word"]
    return words


def test_each_chain_has_a_secret_of_its_own_and_a_change_of_config_keeps_it(limiter: Limiter) -> None:
    chains = [limiter({"max": 1}) for _ in range(2)]
    secrets = [secret(chain) for chain in chains]
    chains[0].configure("maxconn", {"limit": [{"max": 2}]})

    assert len({word for words in secrets for word in words}) == 2 * SECRETS
    assert secret(chains[0]) == secrets[0]


@pytest.mark.parametrize("member", ["local", "remote", "local_port", "remote_port"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_connections_whose_hashes_are_the_same_are_told_apart_by_all_that_they_are(limiter: Limiter, family: str, member: str) -> None:
    chain = limiter({"max": 10})
    meet(chain)
    kind, one, two = (IP, "192.0.2.1", "192.0.2.2") if family == "IPv4" else (IPv6, "2001:db8::1", "2001:db8::2")
    first = syn(1000, kind(src=one, dst=one))
    other = syn(
        1001 if member == "remote_port" else 1000,
        kind(src=two if member == "remote" else one, dst=two if member == "local" else one),
        81 if member == "local_port" else 80,
    )

    assert ["admitted", "admitted", "sent_again", "sent_again"] == [reason(chain, packet) for packet in (first, other, first, other)]
    assert row(chain)["half-open"] == 2


def test_a_full_set_forgets_one_connection_whose_reservation_counts_on(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": SET + 2})
    meet(chain)
    for port in range(SET):
        assert reason(chain, syn(port)) == "admitted"
    assert all(reason(chain, syn(port)) == "sent_again" for port in range(SET))

    assert reason(chain, syn(SET)) == "admitted"
    assert reason(chain, syn(SET)) == "sent_again"
    assert row(chain)["half-open"] == SET + 1
    reasons = [reason(chain, syn(port)) for port in range(SET)]
    # the one that is forgotten has made another reservation, for which another one is forgotten, until the limit is reached
    assert (reasons.count("admitted"), row(chain)["half-open"]) == (1, SET + 2)
    assert reason(chain, syn(SET + 1)) == "limit_reached"


def test_the_oldest_connection_is_the_one_that_is_forgotten(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "max": 100})
    meet(chain)
    order = [3, 1, 0, 2]
    for port in order:
        chain.send(syn(port))
        time.sleep(0.1)  # a tag's time is in units of 34 ms
    for port in range(100, 100 + SET):
        chain.send(syn(port))

    held = {entry["flow"] for entry in _held(chain)}
    assert {int.from_bytes(flow[-2:], "little") for flow in held} == set(range(100, 100 + SET))
    assert len(held) == SET


def _held(chain: LoadedChain) -> list[Any]:
    maps = chain.maps["maxconn"]
    tags = memoryview(maps["mc_ways"].blob()).cast("Q")
    return [maps["mc_half"].get(at) for at, tag in enumerate(tags) if tag & 3 == 2]


def test_the_same_syn_on_all_cpus_at_once_leaves_no_reservation_that_nobody_gives_back(load_chain: LoadChain, tmp_path: Path) -> None:
    document = {"interface": {"eth0": {"chain": ["few", "maxconn"]}}, "function": {"maxconn": {"limit": [{"ports": [80], "max": 10_000}]}}}
    chain = load_chain(document, functions=[Maxconn(), Few(tmp_path)])
    frame = bytes(Ether() / syn(1))
    for _ in range(20):
        chain.repeat_on_all_cpus([frame], PACKETS // 20)
        held = _held(chain)
        assert len({entry["flow"] for entry in held}) == FLOWS
        assert row(chain)["half-open"] == len(held)
        for _ in held:
            sweep(chain)
            if not _held(chain):
                break
        assert (row(chain)["half-open"], _held(chain)) == (0, [])


def test_a_source_for_which_there_was_no_room_gets_back_nothing_that_it_did_not_give(limiter: Limiter) -> None:
    room = 1024
    chain = limiter({"ports": [80], "max": 100_000, "source_max": 5}, sources=room)
    for host in range(room):
        assert chain.send(syn(1, IP(src=f"198.18.{host >> 8}.{host & 255}"))).verdict is Verdict.PASS
    late = IP(src="192.0.2.77")
    assert reason(chain, syn(1, late)) == "admitted"
    sources = chain.maps["maxconn"]["mc_sources"]
    first, _ = next(iter(sources.items()))
    sources.delete(first)
    assert reason(chain, syn(2, late)) == "admitted"
    sweep(chain)

    assert (row(chain)["half-open"], _held(chain)) == (0, [])
    assert all(word & 0xFFFFFFFF == 0 for _, count in sources.items() for word in count["reserved"])
    for port in range(3, 8):
        assert reason(chain, syn(port, late)) == "admitted"
    assert reason(chain, syn(8, late)) == "source_limit_reached"
