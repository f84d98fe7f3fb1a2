# SPDX-License-Identifier: Apache-2.0
"""The chain ratelimit -> maxconn -> elb: each lets through to the next what it should, and refuses what it should; bad files change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.cli import main
from xdpchain.errors import ExitCode
from xdpchain.packets.capture import Captured, CaptureWriter
from xdpchain.packets.notation import frame_of
from xdpchain.testing import LoadChain, LoadedChain, Verdict
from xdpchain_elb import Elb
from xdpchain_maxconn import Maxconn
from xdpchain_ratelimit import Ratelimit

from core.tests.chain.conftest import Wire
from tests.helpers.node import Node, until
from tests.helpers.standstill import counts, standing
from tests.helpers.traffic import Sender, syn_frame

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
RULE, LIMIT = "rate = 1\n", f"max = {MAX}\n"
BAD: Mapping[str, tuple[str, str, str]] = {
    "two rules for a port": (
        RULE,
        RULE + '[[function.ratelimit.rule]]\nports = ["70-90"]\nrate = 5\n',
        "rule[1].ports: port 80 is in rule[0]",
    ),
    "two rules for a destination": (
        "ports = [80]\nrate = 1\n",
        'destination = ["10.200.1.0/24"]\nrate = 1\n[[function.ratelimit.rule]]\ndestination = ["10.200.1.0/24"]\nrate = 5\n',
        "rule[1].destination: the whole of 10.200.1.0/24 is in rule[0]",
    ),
    "no rate": (RULE, "rate = 0\n", "rule[0].rate: "),
    "a rate below 0": (RULE, "rate = -1\n", "rule[0].rate: "),
    "no window": ('window = "8h"\n', 'window = "0s"\n', "rule[0].window: "),
    "a source of 7 bits": (RULE, f"{RULE}per_source = {{ rate = 1, ipv4 = 7 }}\n", "rule[0].per_source.ipv4: "),
    "a source of 33 bits": (RULE, f"{RULE}per_source = {{ rate = 1, ipv4 = 33 }}\n", "rule[0].per_source.ipv4: "),
    "a source of 31 bits of IPv6": (RULE, f"{RULE}per_source = {{ rate = 1, ipv6 = 31 }}\n", "rule[0].per_source.ipv6: "),
    "a source of 129 bits": (RULE, f"{RULE}per_source = {{ rate = 1, ipv6 = 129 }}\n", "rule[0].per_source.ipv6: "),
    "a prefix of 33 bits": (RULE, f'{RULE}destination = ["192.0.2.0/33"]\n', "rule[0].destination[0]: "),
    "a prefix of 129 bits": (RULE, f'{RULE}deny = ["2001:db8::/129"]\n', "rule[0].deny[0]: "),
    "an action that nobody knows": (RULE, f'{RULE}action = "refuse"\n', "rule[0].action: "),
    "a reset for UDP": (RULE, f'{RULE}protocol = "udp"\naction = "reset"\n', "rule[0].action: reset answers to new TCP connections"),
    "two limits for a port": (LIMIT, f'{LIMIT}[[function.maxconn.limit]]\nports = ["70-90"]\nmax = 5\n', "limit[1]"),
    "a limit of 0": (LIMIT, "max = 0\n", "limit[0].max: "),
    "a limit below 0": (LIMIT, "max = -1\n", "limit[0].max: "),
    "a limited source of 33 bits": (LIMIT, f"{LIMIT}source_max = 1\nsource_ipv4 = 33\n", "limit[0].source_ipv4: "),
    "a limited source of 129 bits": (LIMIT, f"{LIMIT}source_max = 1\nsource_ipv6 = 129\n", "limit[0].source_ipv6: "),
    "another action that nobody knows": (LIMIT, f'{LIMIT}action = "reject"\n', "limit[0].action: "),
}
"""What is wrong: some text of the file, what stands in its place, and how the refusal begins behind the instance."""

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


def settings(node: Node) -> dict[str, Any]:
    """All that the config handlers of ratelimit and maxconn have written; those of elb keep other things in the same tables."""
    maps = [one for instance in node.status()["instances"] for one in instance["maps"] if one["role"] == "config"]
    asked = {one["name"]: node.ask("show", instance=one["instance"], map=one["name"], limit=1 << 20, seconds=0) for one in maps}
    return {name: answer["elements"] for name, answer in asked.items()}


def test_bad_rules_and_limits_are_refused_in_plain_words_and_nothing_changes(here: Node, wire: Wire, tmp_path: Path) -> None:
    text = NODE.replace("interface.eth0", f"interface.{wire.near}")
    here.configure(text)
    here.start()

    def refused(name: str) -> str:
        old, new, says = BAD[name]
        file = tmp_path / f"{name}.toml"
        file.write_text(text.replace(old, new, 1))
        file.chmod(0o600)
        words = here.command("apply", "--config", str(file), code=ExitCode.CONFIG)
        instance = "ratelimit.rule" if says.startswith("rule") else "maxconn.limit"
        return "" if f": function.{instance}{says[says.index('[') :]}" in words and "    hint: " in words else words

    with Sender(wire.far, [syn_frame(80)]) as sender:
        before, written = standing(here), settings(here)
        with ThreadPoolExecutor(4) as pool:
            wrong = {name: words for name, words in zip(BAD, pool.map(refused, BAD), strict=True) if words}
        after, still = standing(here), settings(here)
        until(lambda: sender.rounds > RATE)
        rounds = sender.stop()

    assert {} == wrong
    assert "" == before.changes(after)
    assert {"rl_rules", "mc_rules"} <= {*written}
    assert written == still
    answers = {key[1:]: count for key, count in counts(here).items() if count and key[1] in {"ratelimit", "maxconn"} and key[3]}
    assert answers == {
        ("ratelimit", "NEXT", "admitted"): RATE,
        ("ratelimit", "DROP", "rate_exceeded"): rounds - RATE,
        ("maxconn", "NEXT", "admitted"): 1,
        ("maxconn", "NEXT", "sent_again"): RATE - 1,
    }
