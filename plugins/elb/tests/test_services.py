# SPDX-License-Identifier: Apache-2.0
"""Each CPU remembers which services it found: a change of them is there for the very next packet all the same, and so is one that failed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pytest
from scapy.layers.inet import TCP
from xdpchain import Write, XdpchainError
from xdpchain.bpf.maps import KernelMap
from xdpchain.testing import LoadChain, LoadedChain, Result

from plugins.elb.tests.balancer import balancer_of, config_of, lead, passed, server_of
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.packets import ETHER, TO4, VIP4, VIP6

pytestmark = pytest.mark.usefixtures("one_cpu")

PACKET = ETHER / TO4 / TCP(sport=40000, dport=80, flags="A")
PLAIN = vip(VIP4, 80, backend=backends("10.0.0.1"))
ANY_PORT = vip(VIP4, 0, backend=backends("10.0.0.2"))
PREFIX = vip("10.200.1.0/24", 80, backend=backends("10.0.0.3"))
OTHER_OPTIONS = vip(VIP4, 80, backend=backends("10.0.0.1"), options=["no-source-port"])
STAGES: Mapping[str, tuple[list[dict[str, Any]], str | None]] = {
    "none": ([], None),
    "a VIP": ([PLAIN], "10.0.0.1"),
    "any port": ([ANY_PORT], "10.0.0.2"),
    "a prefix": ([PREFIX], "10.0.0.3"),
    "a prefix and any port": ([PREFIX, ANY_PORT], "10.0.0.3"),
    "another": ([vip(VIP6, 80)], None),
    "other options": ([OTHER_OPTIONS], "10.0.0.1"),
}
"""VIPs, and where they send the packet"""
PAIRS = list(itertools.permutations(STAGES, 2))
SOME_PAIRS = [pair for one in zip(STAGES, [*list(STAGES)[1:], "none"], strict=True) for pair in (one, one[::-1])]
SERVICES = {"elb_services", "elb_prefixes", "elb_gates"}
WRITES = ("put_raw", "put_many_raw", "delete_raw")


@pytest.fixture(scope="module")
def chain(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all)


def goes_to(chain: LoadedChain) -> str | None:
    """The backend of the packet, None where it is for no VIP."""
    if passed(chain.send(PACKET)):
        return None
    return server_of(chain, PACKET, "ring")


def test_a_change_of_vips_is_there_for_the_very_next_packet(chain: LoadedChain) -> None:
    lead(chain)
    for stages in PAIRS:
        for vips, server in map(STAGES.__getitem__, stages):
            lead(chain, *vips)

            assert server == goes_to(chain), "the first packet after the change"
            assert server == goes_to(chain), "and the next"


def writes_to(chain: LoadedChain, vips: list[dict[str, Any]]) -> Iterable[Write]:
    """What leads the balancer to these VIPs."""
    one = chain.config.instances["elb"]
    return one.function.configure(one.config, config_of(*vips), chain.maps["elb"])


def restart(chain: LoadedChain, vips: list[dict[str, Any]]) -> None:
    """A daemon that knows nothing but what the tables hold, and its config."""
    chain.carry_out("elb", chain.config.instances["elb"].function.configure(None, config_of(*vips), chain.maps["elb"]))


class Trouble:
    """Sends the packet after each write to some maps, and lets one of these writes be the last."""

    def __init__(self, chain: LoadedChain, monkeypatch: pytest.MonkeyPatch, maps: Collection[str] = SERVICES) -> None:
        self._chain, self._maps = chain, maps
        self._left: int | None = None
        self.seen: list[Result] = []
        """what became of the packet, each time"""
        for name in WRITES:
            monkeypatch.setattr(KernelMap, name, self._around(getattr(KernelMap, name)))

    def after(self, writes: int) -> None:
        """Fail after so many of these writes, once."""
        self._left = writes

    @property
    def is_over(self) -> bool:
        return self._left is None

    def _around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def write(target: KernelMap, *arguments: Any, **keys: Any) -> Any:
            result = method(target, *arguments, **keys)
            if target.schema.name in self._maps:
                self.seen.append(self._chain.send(PACKET))
                if self._left is not None:
                    self._left -= 1
                    if not self._left:
                        self._left = None
                        raise OSError("no more")
            return result

        return write


@pytest.mark.parametrize(("before", "after"), SOME_PAIRS)
def test_a_change_that_fails_leaves_no_trace_and_may_be_made_again(
    chain: LoadedChain, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    trouble = Trouble(chain, monkeypatch)
    (old, old_server), (new, new_server) = STAGES[before], STAGES[after]
    for writes in itertools.count(1):
        lead(chain)
        lead(chain, *old)
        trouble.after(writes)
        try:
            lead(chain, *new)
        except (XdpchainError, OSError):
            assert old_server == goes_to(chain), f"after {writes} writes and their undoing"

            lead(chain, *new)

            assert new_server == goes_to(chain)
        if not trouble.is_over:
            break


def test_what_is_found_in_a_change_that_fails_is_not_found_in_the_next_one(chain: LoadedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = Trouble(chain, monkeypatch, {"elb_services"})
    same_address = vip(VIP4, 80, "udp")
    lead(chain, same_address)
    trouble.after(1)
    trouble.seen.clear()
    with pytest.raises(XdpchainError):
        lead(chain, same_address, PLAIN)

    assert not passed(trouble.seen[0]), "the VIP was there for a moment"

    trouble.seen.clear()
    lead(chain, same_address, vip(VIP6, 80, backend=backends("10.0.0.9")))

    assert [True] * len(trouble.seen) == list(map(passed, trouble.seen)), "its number is another's now"


@pytest.mark.parametrize(("before", "after"), SOME_PAIRS)
def test_who_comes_after_a_daemon_that_was_killed_is_not_misled_by_what_packets_remember(
    chain: LoadedChain, before: str, after: str
) -> None:
    (old, old_server), (new, new_server) = STAGES[before], STAGES[after]
    for stop in itertools.count(1):
        killed = False
        for vips, server in ((new, new_server), (old, old_server)):
            lead(chain)
            lead(chain, *old)
            writes = list(writes_to(chain, new))
            places = [number for number, write in enumerate(writes, 1) if getattr(write, "map", "") in SERVICES]
            killed = stop <= len(places)
            for write in writes[: places[stop - 1]] if killed else writes:
                chain.carry_out("elb", [write])
                chain.send(PACKET)
            restart(chain, vips)

            assert server == goes_to(chain)

            restart(chain, old)  # which is what the chain takes its config to be
        if not killed:
            break
