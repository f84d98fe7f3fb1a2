# SPDX-License-Identifier: Apache-2.0
"""The chain ratelimit -> maxconn -> elb: each lets through to the next what it should, and refuses what it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.cli import main
from xdpchain.packets.capture import Captured, CaptureWriter
from xdpchain.packets.notation import frame_of
from xdpchain.testing import LoadChain, LoadedChain, Verdict
from xdpchain_elb import Elb
from xdpchain_maxconn import Maxconn
from xdpchain_ratelimit import Ratelimit

RATE, MAX = 4, 2
NODE = f"""\
[interface.eth0]
chain = ["ratelimit", "maxconn", "elb"]

[[function.ratelimit.rule]]
ports = [80]
rate = 1
burst = {RATE}                   # by GCRA: no window ends while a test looks at it
window = "8h"

[[function.maxconn.limit]]
ports = [80]
max = {MAX}

[function.elb]
source = ["10.0.13.37", "fc00:2307::1337"]
next_hop = "02:00:00:00:00:99"
mtu = 1500

[[function.elb.vip]]
address = "10.200.1.1"
port = 80
protocol = "tcp"
backend = [{{ address = "10.0.0.1" }}]

[[function.elb.vip]]
address = "fc00:1::1"
port = 80
protocol = "tcp"
backend = [{{ address = "10.0.0.1" }}]

[[function.elb.vip]]
address = "10.200.1.1"
port = 443
protocol = "tcp"
"""
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FORMS: Mapping[str, Packet] = {
    "IPv4": IP(src="192.0.2.7", dst="10.200.1.1"),
    "IPv6": IPv6(src="2001:db8:c::7", dst="fc00:1::1"),
    "a VLAN": Dot1Q(vlan=5) / IP(src="192.0.2.7", dst="10.200.1.1"),
}
TO4 = FORMS["IPv4"]


def syn(sport: int, dport: int = 80) -> Packet:
    return TCP(sport=sport, dport=dport, flags="S")


FRAMES = [
    *(ETHER / TO4 / syn(1000 + number) for number in range(RATE + 1)),
    ETHER / TO4 / TCP(sport=1000, dport=80, flags="A") / Raw(b"GET /"),
    ETHER / TO4 / TCP(sport=1000, dport=443, flags="A"),
    ETHER / IP(src="192.0.2.7", dst="10.200.1.2") / UDP(sport=1000, dport=53),
]
TOLD = [
    "192.0.2.7:1000 > 10.200.1.1:80 TCP S, 54 bytes | ratelimit → maxconn → elb → TX (by elb, ring)",
    "192.0.2.7:1001 > 10.200.1.1:80 TCP S, 54 bytes | ratelimit → maxconn → elb → TX (by elb, ring)",
    "192.0.2.7:1002 > 10.200.1.1:80 TCP S, 54 bytes | ratelimit → maxconn → DROP (by maxconn, limit_reached)",
    "192.0.2.7:1003 > 10.200.1.1:80 TCP S, 54 bytes | ratelimit → maxconn → DROP (by maxconn, limit_reached)",
    "192.0.2.7:1004 > 10.200.1.1:80 TCP S, 54 bytes | ratelimit → DROP (by ratelimit, rate_exceeded)",
    "192.0.2.7:1000 > 10.200.1.1:80 TCP A, 59 bytes | ratelimit → maxconn → elb → TX (by elb, ring)",
    "192.0.2.7:1000 > 10.200.1.1:443 TCP A, 54 bytes | ratelimit → maxconn → elb → DROP (by elb, no_backend)",
    "192.0.2.7:1000 > 10.200.1.2:53 UDP, 42 bytes | ratelimit → maxconn → elb → PASS (end_of_chain)",
]


def test_one_trace_shows_in_order_what_each_of_the_three_refuses_and_lets_through(tmp_path: Path, cache: Path) -> None:
    node, capture = tmp_path / "node.toml", tmp_path / "in.pcap"
    node.write_text(NODE)
    with capture.open("wb") as file:
        writer = CaptureWriter(file)
        for index, frame in enumerate(FRAMES):
            writer.write(Captured(index * 1_000, frame_of(frame)))

    arguments = ["trace", "--config", node, "--cache", cache, "--interface", "eth0", "--pcap", capture]
    done = CliRunner().invoke(main, [str(one) for one in arguments])

    assert done.exit_code == 0, done.output
    assert TOLD == [_without_layout(line) for line in done.stdout.splitlines()]


def _without_layout(line: str) -> str:
    """A line of trace without its number, its spaces, and what the frame is afterwards."""
    sent, way = line.split("ratelimit →", 1)
    return f"{sent.split(maxsplit=1)[1].strip()} | ratelimit →{way.split('  now ')[0]}"


def counted(chain: LoadedChain) -> dict[str, dict[Any, int]]:
    """What each of the three has answered so far."""
    return {name: {answer: count for answer, count in chain.counts(name).items() if count} for name in ("ratelimit", "maxconn", "elb")}


@pytest.mark.parametrize("network", FORMS.values(), ids=FORMS.keys())
def test_what_one_refuses_the_next_ones_do_not_see_and_what_is_open_goes_on(load_chain: LoadChain, network: Packet) -> None:
    chain = load_chain(NODE, functions=[Ratelimit(), Maxconn(), Elb()])
    admitted = Verdict.NEXT, "admitted"

    sent = [chain.send(ETHER / network / syn(1000 + number)) for number in range(MAX)]
    assert {(one.verdict, one.reason, one.function) for one in sent} == {(Verdict.TX, "ring", "elb")}
    assert counted(chain) == {"ratelimit": {admitted: MAX}, "maxconn": {admitted: MAX}, "elb": {(Verdict.TX, "ring"): MAX}}
    before = counted(chain)

    over = [chain.send(ETHER / network / syn(2000 + number)) for number in range(RATE - MAX)]
    assert {(one.verdict, one.reason, one.path) for one in over} == {(Verdict.DROP, "limit_reached", ("ratelimit", "maxconn"))}
    assert counted(chain)["maxconn"] == {**before["maxconn"], (Verdict.DROP, "limit_reached"): RATE - MAX}
    assert counted(chain)["elb"] == before["elb"]
    before = counted(chain)

    flood = [chain.send(ETHER / network / syn(3000 + number)) for number in range(5)]
    assert {(one.verdict, one.reason, one.path) for one in flood} == {(Verdict.DROP, "rate_exceeded", ("ratelimit",))}
    assert counted(chain) == {**before, "ratelimit": {**before["ratelimit"], (Verdict.DROP, "rate_exceeded"): 5}}

    known = chain.send(ETHER / network / TCP(sport=1000, dport=80, flags="A") / Raw(b"GET /"))
    assert (known.verdict, known.function, known.path) == (Verdict.TX, "elb", ("ratelimit", "maxconn", "elb"))
