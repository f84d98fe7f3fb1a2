# SPDX-License-Identifier: Apache-2.0
"""What a rule can say: destinations, protocols, bytes, bursts, sources, lists, bans, and what becomes of what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadedChain, Verdict
from xdpchain_ratelimit.window import cost_of

from plugins.ratelimit.tests.conftest import Limiter

SERVER, OTHER, SERVER6 = "192.0.2.2", "192.0.2.3", "2001:db8::2"


def syn(source: str = "198.51.100.1", destination: str = SERVER, port: int = 80) -> Packet:
    kind = IPv6 if ":" in destination else IP
    return kind(src=source, dst=destination) / TCP(sport=1024, dport=port, flags="S")


def reasons(chain: LoadedChain, *packets: Packet) -> list[str]:
    """What became of each: the reason of a refusal, or "in"."""
    results = [chain.send(packet) for packet in packets]
    return ["in" if result.verdict is Verdict.PASS else result.reason for result in results]


def test_a_rule_for_an_address_goes_before_one_for_its_prefix_and_that_before_one_for_all(limiter: Limiter, long_window: str) -> None:
    chain = limiter(
        {"ports": [80], "rate": 3},
        {"ports": [80], "rate": 2, "destination": ["192.0.2.0/24", "2001:db8::/32"]},
        {"ports": [80], "rate": 1, "destination": [SERVER, "2001:db8::9"]},
        window=long_window,
    )

    assert reasons(chain, *[syn()] * 2) == ["in", "rate_exceeded"]
    assert reasons(chain, syn(destination=OTHER), syn("2001:db8::1", SERVER6), syn(destination=OTHER)) == ["in", "in", "rate_exceeded"]
    assert reasons(chain, *[syn(destination="203.0.113.1")] * 4) == ["in"] * 3 + ["rate_exceeded"]
    assert reasons(chain, syn("2001:db8::1", "2001:db8::9"), syn("2001:db8::1", SERVER6)) == ["rate_exceeded"] * 2


def test_a_short_ipv6_prefix_does_not_cover_ipv4(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"rate": 1, "destination": ["::/0"]}, window=long_window)

    assert reasons(chain, *[syn()] * 2) == ["in", "in"]
    assert reasons(chain, *[syn("2001:db8::1", SERVER6)] * 2) == ["in", "rate_exceeded"]


def test_a_rule_without_ports_is_for_those_that_no_other_names(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"rate": 1}, {"ports": [443], "rate": 2}, window=long_window)

    assert reasons(chain, syn(port=1), syn(port=65535), syn(port=0)) == ["in", "rate_exceeded", "rate_exceeded"]
    assert reasons(chain, *[syn(port=443)] * 3) == ["in", "in", "rate_exceeded"]


def test_udp_and_icmp_count_by_packet_and_tcp_beside_them_does_not(limiter: Limiter, long_window: str) -> None:
    chain = limiter(
        {"protocol": "udp", "ports": [53], "rate": 2}, {"protocol": "icmp", "rate": 1, "destination": [SERVER, SERVER6]}, window=long_window
    )
    ask = IP(dst=SERVER) / UDP(dport=53)
    ping, ping6 = IP(dst=SERVER) / ICMP(), IPv6(dst=SERVER6) / ICMPv6EchoRequest()

    assert reasons(chain, ask, IPv6(dst=SERVER6) / UDP(dport=53), ask) == ["in", "in", "rate_exceeded"]
    assert reasons(chain, ping, ping6, IP(dst=OTHER) / ICMP()) == ["in", "rate_exceeded", "in"]
    assert reasons(chain, *[syn(port=53)] * 3, *[IP(dst=SERVER) / UDP(dport=54)] * 3) == ["in"] * 6


def test_neighbour_discovery_is_never_limited(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"protocol": "icmp", "rate": 1}, window=long_window)
    asks = IPv6(dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt=SERVER6)

    assert reasons(chain, *[IPv6(dst=SERVER6) / ICMPv6EchoRequest()] * 2, *[asks] * 3) == ["in", "rate_exceeded", "in", "in", "in"]


@pytest.mark.parametrize("family", [4, 6])
def test_later_fragments_belong_to_rules_for_all_ports(limiter: Limiter, long_window: str, family: int) -> None:
    chain = limiter({"protocol": "udp", "ports": [53], "rate": 1}, {"protocol": "udp", "rate": 2}, window=long_window)
    whole = IP(dst=SERVER) / UDP(dport=53) / Raw(bytes(100))
    later6 = IPv6(dst=SERVER6) / IPv6ExtHdrFragment(nh=17, offset=8, m=1, id=3) / Raw(bytes(40))
    later = fragment(whole, fragsize=48)[1] if family == 4 else later6

    assert reasons(chain, *[later] * 3, whole) == ["in", "in", "rate_exceeded", "in"]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_bytes_of_whole_frames_count(limiter: Limiter, protocol: str) -> None:
    chain = limiter({"protocol": protocol, "unit": "bytes", "ports": [80], "rate": 3000, "window": "24h"})
    transport = TCP(dport=80, flags="A") if protocol == "tcp" else UDP(dport=80)
    small, large = (IP(dst=SERVER) / transport / Raw(bytes(size)) for size in (100, 1400))
    sizes = [len(chain.send(packet).sent) for packet in (large, large)]
    left = 3000 - sum(sizes)
    assert left > 0

    assert reasons(chain, large) == ["rate_exceeded"]
    assert reasons(chain, IP(dst=SERVER) / transport / Raw(bytes(left - (sizes[0] - 1400)))) == ["in"]
    assert reasons(chain, small, IP(dst=SERVER) / transport) == ["rate_exceeded"] * 2


def test_a_burst_may_come_at_once_and_then_the_rate_flows(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "rate": 100, "window": "10s", "burst": 5})

    assert reasons(chain, *[syn()] * 6) == ["in"] * 5 + ["rate_exceeded"]
    time.sleep(0.25)
    again = reasons(chain, *[syn()] * 6)
    assert 2 <= again.count("in") <= 5


def test_a_burst_in_the_kernel_stays_within_its_envelope(limiter: Limiter) -> None:
    rate, burst, window_ns = 500, 50, 5_000_000
    chain = limiter({"ports": [80], "rate": rate, "burst": burst}, window="5ms")
    frame = chain.send(syn()).packet

    begin_ns = time.monotonic_ns()
    chain.repeat(frame, 300_000)
    end_ns = time.monotonic_ns()

    admitted = chain.counts("ratelimit")[Verdict.NEXT, "admitted"] - 1
    assert rate // 2 <= admitted <= burst + ((end_ns - begin_ns) << 14) / cost_of(rate, window_ns)


def test_each_source_has_its_own_limit_and_is_asked_first(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 5, "per_source": {"rate": 2}}, window=long_window)
    one, two, three = "198.51.100.1", "198.51.100.2", "2001:db8::1"

    assert reasons(chain, *[syn(one)] * 50) == ["in"] * 2 + ["source_exceeded"] * 48
    assert reasons(chain, *[syn(two)] * 3) == ["in", "in", "source_exceeded"]
    assert reasons(chain, *[syn(three, SERVER6)] * 2) == ["in", "rate_exceeded"]


def test_what_the_shared_limit_refuses_is_given_back_to_its_source(limiter: Limiter, long_window: str) -> None:
    rule: dict[str, Any] = {"ports": [80], "rate": 1, "per_source": {"rate": 2}}
    chain = limiter(rule, window=long_window)
    assert reasons(chain, syn("198.51.100.9"), *[syn()] * 9) == ["in"] + ["rate_exceeded"] * 9

    chain.configure("ratelimit", {"window": long_window, "rule": [{**rule, "rate": 100}]})

    assert reasons(chain, *[syn()] * 3) == ["in", "in", "source_exceeded"]


@pytest.mark.parametrize(
    ("keys", "same", "other"),
    [
        ({"ipv4": 24}, ("198.51.100.1", "198.51.100.254"), "198.51.101.1"),
        ({"ipv4": 8}, ("198.0.0.1", "198.255.0.1"), "199.0.0.1"),
        ({}, ("2001:db8::1", "2001:db8:0:0:ffff::1"), "2001:db8:0:1::1"),
        ({"ipv6": 128}, ("2001:db8::1", "2001:db8::1"), "2001:db8::2"),
        ({"ipv6": 32}, ("2001:db8::1", "2001:db8:ffff::1"), "2001:db9::1"),
    ],
)
def test_a_source_is_a_prefix(limiter: Limiter, long_window: str, keys: dict[str, int], same: tuple[str, str], other: str) -> None:
    chain = limiter({"ports": [80], "rate": 100, "per_source": {"rate": 1, **keys}}, window=long_window)
    destination = SERVER6 if ":" in other else SERVER

    assert reasons(chain, *(syn(one, destination) for one in (*same, other))) == ["in", "source_exceeded", "in"]


def test_a_source_with_a_burst_may_use_it_at_once(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "rate": 100, "per_source": {"rate": 1, "window": "12h", "burst": 3}})

    assert reasons(chain, *[syn()] * 4, *[syn("198.51.100.2")] * 4) == (["in"] * 3 + ["source_exceeded"]) * 2


def test_a_source_over_its_limit_is_banned_for_a_while_and_nobody_else(limiter: Limiter) -> None:
    chain = limiter({"ports": [80], "rate": 100, "per_source": {"rate": 1, "window": "10ms"}, "ban": "400ms"})
    first = [reasons(chain, syn())[0] for _ in range(2)]
    while first[-1] != "source_exceeded":
        first.append(reasons(chain, syn())[0])
    time.sleep(0.05)

    assert reasons(chain, syn(), syn("198.51.100.2")) == ["banned", "in"]
    assert "banned" in {row[3] for row in chain.status("ratelimit")[1].rows}
    time.sleep(0.5)
    assert reasons(chain, syn()) == ["in"]


def test_the_longest_prefix_of_both_lists_decides(limiter: Limiter, long_window: str, tmp_path: Path) -> None:
    (tmp_path / "deny.txt").write_text("".join(f"10.{n // 256}.{n % 256}.0/24\n" for n in range(3000)) + "2001:db8::/32\n")
    chain = limiter(
        {"ports": [80], "rate": 1, "allow": ["10.0.7.0/28", "2001:db8:5::/48"], "deny_file": str(tmp_path / "deny.txt")},
        {"ports": [81], "rate": 9},
        window=long_window,
    )

    assert reasons(chain, *[syn("10.0.7.1")] * 3) == ["in"] * 3
    assert reasons(chain, syn("10.0.7.77"), syn("10.11.3.1")) == ["denied"] * 2
    assert reasons(chain, syn("2001:db8:5::1", SERVER6), syn("2001:db8:6::1", SERVER6)) == ["in", "denied"]
    assert reasons(chain, syn(), syn()) == ["in", "rate_exceeded"]
    assert reasons(chain, syn("10.0.7.77", port=81)) == ["in"]


def test_the_action_count_lets_through_and_says_what_would_have_been(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80], "rate": 1, "action": "count"}, window=long_window)

    assert reasons(chain, *[syn()] * 3) == ["in"] * 3
    assert chain.counts("ratelimit") == {(Verdict.NEXT, "admitted"): 1, (Verdict.NEXT, "rate_exceeded"): 2}


@pytest.mark.parametrize(("enforce", "least", "most"), [(0, 0, 0), (100, 10_000, 10_000), (25, 2_000, 3_000)])
def test_the_action_is_taken_on_a_share_of_what_is_refused(limiter: Limiter, long_window: str, enforce: int, least: int, most: int) -> None:
    chain = limiter({"ports": [80], "rate": 1, "enforce": enforce}, window=long_window)
    chain.repeat(chain.send(syn()).packet, 10_000)

    assert least <= chain.counts("ratelimit")[Verdict.DROP, "rate_exceeded"] <= most


def test_where_all_counts_a_flood_keeps_its_limit_shut(limiter: Limiter) -> None:
    rules = [{"ports": [80 + all_], "rate": 50, "window": "100ms", "count": ("admitted", "all")[all_]} for all_ in (0, 1)]
    chain = limiter(*rules)
    before = 0
    admitted = []
    for port in (80, 81):
        chain.repeat(chain.send(syn(port=port)).sent, 4_000_000)
        total = chain.counts("ratelimit")[Verdict.NEXT, "admitted"]
        admitted.append(total - before)
        before = total

    assert admitted[0] > 150
    assert admitted[1] <= 100
