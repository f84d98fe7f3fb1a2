# SPDX-License-Identifier: Apache-2.0
"""Packets that load balancers encapsulate reach the workload as if clients had sent them to it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw
from xdpchain import Side
from xdpchain.testing import LoadedChain, Verdict

from plugins.dsr_agent.tests.arriving import SIDES, Arrival, arrive, at_workload, flows, stats
from plugins.dsr_agent.tests.conftest import LoadAgent
from plugins.dsr_agent.tests.packets import (
    BALANCER4,
    CLIENT4,
    CLIENT_PORT,
    ETHER,
    GUE_PORT,
    HOPS,
    LINKS,
    OUTERS,
    PORT,
    SERVICES,
    TO_VIP,
    VIP4,
    WORKLOAD4,
    Outer,
    assert_valid,
)

DATA = Raw(b"GET / HTTP/1.1\r\n\r\n")
SYN = TCP(sport=CLIENT_PORT, dport=PORT, flags="S", seq=1, options=[("MSS", 1460)])
REQUEST = TCP(sport=CLIENT_PORT, dport=PORT, flags="PA", seq=2, ack=9) / DATA
QUESTION = UDP(sport=CLIENT_PORT, dport=PORT) / DATA
NOT_ECT, ECT1, ECT0, CE = range(4)
DELIVERED = (Verdict.NEXT, "delivered")


def without_first_tag(chain: LoadedChain, link: Packet) -> Packet:
    """The link headers as they are in the frame: at TC, the first tag is beside it from then on."""
    if Dot1Q not in link or chain.config.interfaces[0].side_of("") is Side.NETWORK:
        return link
    inner = link.payload.payload.copy()
    return ETHER / inner if inner else ETHER


def assert_delivered(result: Arrival, expected: Packet) -> None:
    assert (result.verdict, result.reason) == DELIVERED
    assert_valid(result.frame)
    assert bytes(expected) == result.frame


@pytest.mark.parametrize("link", LINKS, ids=["untagged", "802.1Q", "802.1ad"])
@pytest.mark.parametrize("transport", [SYN, REQUEST, QUESTION], ids=["syn", "tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_is_taken_out_and_addressed_to_the_workload(chain: LoadedChain, family: int, transport: Packet, link: Packet) -> None:
    inner = TO_VIP[family] / transport
    for outer in OUTERS:
        result = arrive(chain, link / outer.around(inner))

        assert_delivered(result, without_first_tag(chain, link) / at_workload(inner))


@pytest.mark.parametrize("family", [4, 6])
def test_the_outer_checksum_of_udp_may_be_absent(chain: LoadedChain, family: int) -> None:
    inner = TO_VIP[family] / REQUEST

    for outer in (Outer("gue", 4, check=False), Outer("gue", 6, check=False), Outer("gue0", 6, check=False)):
        assert_delivered(arrive(chain, ETHER / outer.around(inner)), ETHER / at_workload(inner))


@pytest.mark.parametrize(
    "inner",
    [
        IP(src=CLIENT4, dst=VIP4, options=[IPOption_RR(routers=["0.0.0.0", "0.0.0.0"])]) / REQUEST,
        TO_VIP[6] / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / IPv6ExtHdrDestOpt() / QUESTION,
    ],
    ids=["IPv4 options", "IPv6 extension headers"],
)
def test_options_and_extension_headers_stay(chain: LoadedChain, inner: Packet) -> None:
    for outer in OUTERS:
        assert_delivered(arrive(chain, ETHER / outer.around(inner)), ETHER / at_workload(inner))


@pytest.mark.parametrize("form", ["gue", "gue0", "ipip"])
def test_outer_options_and_extension_headers_are_taken_off(chain: LoadedChain, form: str) -> None:
    inner = TO_VIP[4] / REQUEST
    options = Outer(form, 4).around(inner)
    options.options = [IPOption_RR(routers=["0.0.0.0", "0.0.0.0"])]
    extended = Outer(form, 6).around(inner)
    last = extended.nh
    extended.nh = 60
    extended.payload = IPv6ExtHdrDestOpt(nh=last) / extended.payload

    for packet in (options, extended):
        assert_delivered(arrive(chain, ETHER / packet), ETHER / at_workload(inner))


def test_padding_behind_the_packet_stays_behind_it(chain: LoadedChain) -> None:
    inner = TO_VIP[4] / TCP(sport=CLIENT_PORT, dport=PORT, flags="A")
    for outer in OUTERS:
        result = arrive(chain, bytes(ETHER / outer.around(inner)) + b"\xee" * 7)

        assert (result.verdict, result.reason) == DELIVERED
        assert bytes(ETHER / at_workload(inner)) + b"\xee" * 7 == result.frame


def test_udp_over_ipv4_without_a_checksum_gets_none(chain: LoadedChain) -> None:
    inner = TO_VIP[4] / UDP(sport=CLIENT_PORT, dport=PORT, chksum=0) / DATA

    assert_delivered(arrive(chain, ETHER / Outer().around(inner)), ETHER / at_workload(inner))


@pytest.mark.parametrize("family", [4, 6])
def test_a_checksum_of_udp_that_becomes_zero_is_sent_as_minus_zero(chain: LoadedChain, family: int) -> None:
    """The payload makes up for the sum of everything else."""
    wanted = at_workload(TO_VIP[family] / UDP(sport=CLIENT_PORT, dport=PORT) / Raw(b"\0\0"))
    rest = int.from_bytes(bytes(wanted)[-4:-2], "big")
    inner = TO_VIP[family] / UDP(sport=CLIENT_PORT, dport=PORT) / Raw(rest.to_bytes(2, "big"))

    result = arrive(chain, ETHER / Outer().around(inner))

    assert_delivered(result, ETHER / at_workload(inner))
    assert result.frame[-4:-2] == b"\xff\xff"


@pytest.mark.parametrize("transport", [REQUEST, QUESTION], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_what_was_damaged_on_its_way_stays_damaged(chain: LoadedChain, family: int, transport: Packet) -> None:
    data = bytearray(bytes(TO_VIP[family] / transport))
    data[-1] ^= 0x10
    expected = bytearray(bytes(ETHER / at_workload(TO_VIP[family] / transport)))
    expected[-1] ^= 0x10

    result = arrive(chain, ETHER / Outer().around(bytes(data)))

    assert (result.verdict, result.reason) == DELIVERED
    assert bytes(expected) == result.frame


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        *((outer, ecn, ecn) for outer in (NOT_ECT, ECT0) for ecn in (NOT_ECT, ECT1, ECT0, CE)),
        (ECT1, NOT_ECT, NOT_ECT),
        (ECT1, ECT1, ECT1),
        (ECT1, ECT0, ECT1),
        (ECT1, CE, CE),
        (CE, ECT1, CE),
        (CE, ECT0, CE),
        (CE, CE, CE),
    ],
)
def test_congestion_that_was_marked_on_the_way_is_passed_on(chain: LoadedChain, outer: int, inner: int, expected: int) -> None:
    """RFC 6040, figure 4."""
    dscp = 0xB8
    for family in (4, 6):
        packet = TO_VIP[family] / REQUEST
        field = "tos" if family == 4 else "tc"
        setattr(packet, field, dscp | inner)
        for outer_family in (4, 6):
            result = arrive(chain, ETHER / Outer(family=outer_family, tos=0x40 | outer).around(packet))

            assert_delivered(result, ETHER / at_workload(packet, **{field: dscp | expected}))


@pytest.mark.parametrize("family", [4, 6])
def test_congestion_that_cannot_be_passed_on_drops_the_packet(chain: LoadedChain, family: int) -> None:
    result = arrive(chain, ETHER / Outer(tos=CE).around(TO_VIP[family] / REQUEST))

    assert (result.verdict, result.reason) == (Verdict.DROP, "congested")
    assert flows(chain) == []


@pytest.mark.parametrize(
    "packet",
    [
        Outer(destination="10.1.0.99").around(TO_VIP[4] / REQUEST),
        Outer("ipip", destination="10.1.0.99").around(TO_VIP[4] / REQUEST),
        Outer(port=GUE_PORT + 1).around(TO_VIP[4] / REQUEST),
        TO_VIP[4] / REQUEST,
        TO_VIP[6] / QUESTION,
        IP(src=BALANCER4, dst=WORKLOAD4, proto=47) / Raw(bytes(40)),
        Raw(bytes(46)),
    ],
    ids=["GUE to another host", "IPIP to another host", "another port", "to the VIP itself, IPv4", "and IPv6", "another protocol", "no IP"],
)
def test_what_is_not_encapsulated_for_us_is_let_alone(chain: LoadedChain, packet: Packet) -> None:
    frame = bytes(ETHER / packet)

    assert arrive(chain, frame) == Arrival(Verdict.NEXT, "", frame)
    assert flows(chain) == []


@pytest.mark.parametrize(("form", "other"), [("gue", "ipip"), ("ipip", "gue")])
def test_an_encapsulation_that_is_not_configured_is_let_alone(agent: LoadAgent, form: str, other: str) -> None:
    chain = agent("network", *SERVICES, encapsulation=[other])
    frame = bytes(ETHER / Outer(form).around(TO_VIP[4] / REQUEST))

    assert arrive(chain, frame) == Arrival(Verdict.NEXT, "", frame)


@pytest.mark.parametrize("side", SIDES)
def test_a_service_of_all_ports_has_those_that_no_other_has(agent: LoadAgent, side: str) -> None:
    everything = {"vip": VIP4, "port": 0, "workload": WORKLOAD4}
    chain = agent(side, everything, {**everything, "port": PORT})
    for port in (PORT, 22, 65535):
        inner = TO_VIP[4] / TCP(sport=CLIENT_PORT, dport=port, flags="S")

        assert_delivered(arrive(chain, ETHER / Outer().around(inner)), ETHER / at_workload(inner, port))

    places = {flow["port"]: flow["place"] for flow in flows(chain)}
    services = {place: service["port"] for place, service in chain.maps["dsr_agent"]["dsr_services"].items() if service["id"]}
    assert {port: services[place] for port, place in places.items()} == {PORT: PORT, 22: 0, 65535: 0}


@pytest.mark.parametrize("family", [4, 6])
def test_jumbo_frames_are_taken_out(agent: LoadAgent, family: int) -> None:
    """They lie in several buffers at XDP."""
    chain = agent("network", *SERVICES)
    inner = TO_VIP[family] / TCP(sport=CLIENT_PORT, dport=PORT, flags="A") / Raw(bytes(range(250)) * 32)
    for outer in (Outer(), Outer("ipip", 6)):
        assert_delivered(arrive(chain, ETHER / outer.around(inner)), ETHER / at_workload(inner))


def test_a_service_is_reached_through_its_own_endpoints_only(agent: LoadAgent) -> None:
    here, there = ({"vip": vip, "port": PORT, "workload": WORKLOAD4, "backend_port": port} for vip, port in ((VIP4, 1), ("10.200.1.2", 2)))
    chain = agent("network", {**here, "endpoint": ["10.1.0.1"]}, {**there, "endpoint": ["10.1.0.2"]})
    inner = TO_VIP[4] / REQUEST

    assert arrive(chain, ETHER / Outer(destination="10.1.0.1").around(inner)).reason == "delivered"
    assert arrive(chain, ETHER / Outer(destination="10.1.0.2").around(inner)).reason == "no_service"
    assert arrive(chain, ETHER / Outer(destination=WORKLOAD4).around(inner)).reason == ""


def test_numbers_count_what_clients_sent(chain: LoadedChain) -> None:
    inner = TO_VIP[4] / REQUEST
    for outer in OUTERS:
        arrive(chain, ETHER / outer.around(inner))

    assert stats(chain) == {
        "in_packets": len(OUTERS),
        "in_bytes": len(OUTERS) * len(inner),
        "out_packets": 0,
        "out_bytes": 0,
        "flows": 1,
        "guessed": 0,
        "conflicts": 0,
    }


@pytest.mark.parametrize("family", [4, 6])
def test_a_workload_that_calls_itself_sees_another_address(chain: LoadedChain, family: int) -> None:
    mirror = {4: "169.254.64.1", 6: "fd64:7372::1"}[family]
    inner = TO_VIP[family].copy() / SYN
    inner.src = at_workload(inner).dst
    result = arrive(chain, ETHER / Outer().around(inner))

    assert_delivered(result, ETHER / at_workload(inner, src=mirror))
    (flow,) = flows(chain)
    assert flow["marks"] == 16
    assert str(flow["client"].ipv4_mapped or flow["client"]) == mirror


def test_a_workload_that_calls_itself_sees_itself_where_no_other_address_is_configured(agent: LoadAgent) -> None:
    chain = agent("workload", *SERVICES, hairpin=[])
    inner = IP(src=WORKLOAD4, dst=VIP4) / SYN

    assert_delivered(arrive(chain, ETHER / Outer().around(inner)), ETHER / at_workload(inner))


def test_a_list_of_hops_is_taken_off_where_the_flow_is_known_or_begins(chain: LoadedChain) -> None:
    for family, hops in HOPS.items():
        outer = Outer("gue0", family, hops=hops)
        for inner in (TO_VIP[4] / SYN, TO_VIP[4] / REQUEST, TO_VIP[6] / QUESTION):
            assert_delivered(arrive(chain, ETHER / outer.around(inner)), ETHER / at_workload(inner))


def test_source_addresses_that_look_mapped_are_no_inner_packets(chain: LoadedChain) -> None:
    inner = IPv6(src=f"::ffff:{CLIENT4}", dst=f"::ffff:{VIP4}") / REQUEST

    assert arrive(chain, ETHER / Outer(family=6).around(inner)).reason == "bad_inner"
