# SPDX-License-Identifier: Apache-2.0
"""The table of sources: exact on several CPUs at once, what happens when it is full, and what is shown of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
from collections import Counter
from collections.abc import Sequence

from scapy.layers.inet import IP, TCP
from xdpchain.testing import LoadedChain, Verdict
from xdpchain_ratelimit import Ratelimit

from plugins.ratelimit.tests.conftest import Limiter

SYN = bytes(IP(src="198.51.100.1", dst="192.0.2.2") / TCP(dport=80, flags="S"))
ETHER = bytes.fromhex("020000000002 020000000001 0800")


def syn(number: int) -> bytes:
    """A SYN of the source with that number."""
    return ETHER + SYN[:12] + struct.pack(">I", 0x0A000000 + number) + SYN[16:]


def test_several_cpus_at_once_admit_exactly_the_rate_of_each_source(limiter: Limiter, long_window: str) -> None:
    sources, rate = 2000, 7
    chain = limiter({"ports": [80], "rate": 4_000_000 // 24, "per_source": {"rate": rate}}, window=long_window)

    chain.repeat_on_all_cpus([syn(n) for n in range(sources)], 2 * rate)

    counts = chain.counts("ratelimit")
    assert counts[Verdict.NEXT, "admitted"] == sources * rate
    known = Counter(sender["address"] for _, sender in chain.maps["ratelimit"]["rl_senders"].items() if sender["id"])
    assert len(known) == sources
    assert set(known.values()) == {1}, "a source has one place"


def test_a_source_that_comes_to_two_cpus_at_once_gets_one_place(limiter: Limiter, long_window: str) -> None:
    sources = 6000
    chain = limiter({"ports": [80], "rate": 100_000, "per_source": {"rate": 1}}, window=long_window)
    frames = [syn(number) for number in range(sources)]

    in_step(chain, frames)

    known = Counter(sender["address"] for _, sender in chain.maps["ratelimit"]["rl_senders"].items() if sender["id"])
    counts = chain.counts("ratelimit")
    assert [address for address, places in known.items() if places > 1] == []
    # who waits for a set for too long is turned away, and has no place if both of its SYNs were
    assert 2 * (sources - len(known)) <= counts.get((Verdict.DROP, "contended"), 0)
    assert counts[Verdict.NEXT, "admitted"] == len(known)


def in_step(chain: LoadedChain, frames: Sequence[bytes]) -> None:
    """Send each frame from two CPUs, each time as close to one moment as two processes can."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) == 2, "one CPU proves nothing"
    with mmap.mmap(-1, 8 * len(cpus)) as memory:
        at = memoryview(memory).cast("Q")
        child = os.fork()
        if child == 0:
            failed = 1
            with contextlib.suppress(BaseException):
                walk(chain, frames, cpus, at, 1)
                failed = 0
            at[1] = GONE
            os._exit(failed)
        before = os.sched_getaffinity(0)
        try:
            walk(chain, frames, cpus, at, 0)
        finally:
            os.sched_setaffinity(0, before)
            at[0] = GONE
            status = os.waitpid(child, 0)[1]
            at.release()
    assert status == 0


GONE = 2**32
"""how far a process is that waits for nobody any more"""


def walk(chain: LoadedChain, frames: Sequence[bytes], cpus: Sequence[int], at: memoryview, own: int) -> None:
    """One of the two: at each frame it waits until the other is there, too."""
    os.sched_setaffinity(0, {cpus[own]})
    other = 1 - own
    for number, frame in enumerate(frames, 1):
        at[own] = number
        while at[other] < number:
            os.sched_yield()
        chain.repeat(frame)
    at[own] = GONE


def test_a_full_table_forgets_sources_says_so_and_the_shared_limit_holds(limiter: Limiter, long_window: str) -> None:
    rate = 5000
    chain = limiter({"ports": [80], "rate": rate, "per_source": {"rate": 1}}, window=long_window, sources=1024)
    chain.upkeep("ratelimit")
    assert chain.warnings("ratelimit") == []

    for number in range(8000):
        chain.repeat(syn(number))
    chain.upkeep("ratelimit")

    assert chain.counts("ratelimit")[Verdict.NEXT, "admitted"] == rate
    (warning,) = chain.warnings("ratelimit")
    assert warning.startswith("the table of sources is full: ")
    evicted = {row[3]: row[4] for row in chain.status("ratelimit")[1].rows}["evicted"]
    places = sum(1 for _, sender in chain.maps["ratelimit"]["rl_senders"].items() if sender["id"])
    assert evicted == 8000 - places


def test_a_table_of_the_size_that_was_asked_for_holds_nearly_all(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 100_000, "per_source": {"rate": 1}}, window=long_window, sources=4096)
    for number in range(4096):
        chain.repeat(syn(number))

    assert sum(1 for _, sender in chain.maps["ratelimit"]["rl_senders"].items() if sender["id"]) > 0.97 * 4096


def test_the_sources_that_use_most_are_shown_first(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 100, "per_source": {"rate": 4}, "ban": "1m"}, window=long_window)
    for number, count in {1: 1, 2: 3, 3: 6}.items():
        for _ in range(count):
            chain.send(syn(number))

    top = chain.status("ratelimit")[-1]

    assert top.title == "top sources of 3"
    assert [(row[0], row[4], row[5], row[7]) for row in top.rows] == [
        ("10.0.0.3", 4.0, 4, 2),
        ("10.0.0.2", 3.0, 4, 0),
        ("10.0.0.1", 1.0, 4, 0),
    ]
    assert [row[6] is not None for row in top.rows] == [True, False, False]
    assert socket.inet_aton("10.0.0.3") in {sender["address"].packed[12:] for _, sender in chain.maps["ratelimit"]["rl_senders"].items()}


def test_sources_keep_their_state_when_rates_and_other_rules_change(limiter: Limiter, long_window: str) -> None:
    rule = {"ports": [80], "rate": 100, "per_source": {"rate": 2}}
    chain = limiter(rule, window=long_window)
    assert [chain.send(syn(1)).verdict for _ in range(3)] == [Verdict.PASS, Verdict.PASS, Verdict.DROP]

    chain.configure("ratelimit", {"window": long_window, "rule": [{"ports": [25], "rate": 1}, {**rule, "per_source": {"rate": 3}}]})

    assert [chain.send(syn(1)).verdict for _ in range(2)] == [Verdict.PASS, Verdict.DROP]
    assert Ratelimit().name == "ratelimit"
