# SPDX-License-Identifier: Apache-2.0
"""What single packets see of a change of backends: where old and new flows go and why, and what is counted for whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from xdpchain import MACAddress, NextHop
from xdpchain.testing import LoadChain, LoadedChain, Verdict

from plugins.elb.tests.balancer import PORT, balancer_of, lead, outcome, passed, server_of
from plugins.elb.tests.documents import backends, vip
from plugins.elb.tests.outer import Way
from plugins.elb.tests.packets import ETHER, NEXT_HOP, TO4, VIP4, VIP6

ONE, TWO, THREE, FOUR = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
SOME = 60
NO_BACKEND, NO_NEXT_HOP = (Verdict.DROP, "no_backend"), (Verdict.DROP, "no_next_hop")


@pytest.fixture(scope="module")
def loaded(load_for_all: LoadChain) -> LoadedChain:
    return balancer_of(load_for_all)


@pytest.fixture
def chain(loaded: LoadedChain) -> LoadedChain:
    """A balancer without VIPs and with an empty memory."""
    lead(loaded)
    flows = loaded.maps["elb"]["elb_flows"]
    for key, _ in list(flows.items()):
        flows.delete(key)
    return loaded


def serve(chain: LoadedChain, *servers: str, protocol: str = "tcp", **keys: Any) -> None:
    """VIPs of both families with these servers; `keys` are those of the VIPs."""
    lead(chain, *(vip(address, PORT, protocol, backend=backends(*servers), **keys) for address in (VIP4, VIP6)))


def clients(first: int = 0) -> Iterator[Packet]:
    """IP headers of clients of both families."""
    for number in range(first, first + SOME // 2):
        yield IP(src=f"198.51.100.{number}", dst=VIP4)
        yield IPv6(src=f"2001:db8:7::{number:x}", dst=VIP6)


def segment(to: Packet, flags: str = "A") -> Packet:
    return ETHER / to / TCP(sport=40000, dport=PORT, flags=flags)


def datagram(to: Packet) -> Packet:
    return ETHER / to / UDP(sport=40000, dport=PORT)


def homes(chain: LoadedChain, packets: Iterable[Packet]) -> list[tuple[str, str]]:
    """The backend of each packet, and the reason."""
    found = []
    for packet in packets:
        result = chain.send(packet)

        assert result.verdict is Verdict.TX

        found.append((server_of(chain, packet, chain.send(packet).reason), result.reason))
    return found


def test_flows_of_before_stay_and_are_remembered_new_ones_go_to_the_new_ring(chain: LoadedChain) -> None:
    serve(chain, ONE)
    serve(chain, ONE, TWO)
    old = homes(chain, (segment(to) for to in clients()))
    new = homes(chain, (segment(to, "S") for to in clients(100)))

    assert {server for server, _ in old} == {ONE}
    assert {reason for _, reason in old} == {"moving", "ring"}
    assert {server for server, _ in new} == {ONE, TWO}
    assert {reason for server, reason in new if server == TWO} == {"moving"}

    again = homes(chain, (segment(to) for to in clients()))

    assert [server for server, _ in old] == [server for server, _ in again]
    assert [{"moving": "tracked"}.get(reason, reason) for _, reason in old] == [reason for _, reason in again]
    assert [server for server, _ in new] == [server for server, _ in homes(chain, (segment(to) for to in clients(100)))]


def test_only_slots_whose_backend_changes_begin_to_move(chain: LoadedChain) -> None:
    serve(chain, ONE, TWO)
    before = homes(chain, (segment(to, "S") for to in clients()))
    serve(chain, ONE, TWO, THREE)
    after = homes(chain, (segment(to, "S") for to in clients()))

    for (old, _), (new, reason) in zip(before, after, strict=True):
        assert new in {old, THREE}
        if new == THREE:
            assert reason == "moving"


def test_no_packet_goes_to_a_backend_that_was_removed(chain: LoadedChain) -> None:
    for protocol, packet in (("tcp", segment), ("udp", datagram)):
        serve(chain, ONE, TWO, THREE, protocol=protocol)
        homes(chain, map(packet, clients()))
        serve(chain, ONE, TWO, protocol=protocol)

        assert {server for server, _ in homes(chain, map(packet, clients()))} == {ONE, TWO}

        serve(chain, ONE, TWO, FOUR, protocol=protocol)

        assert THREE not in {server for server, _ in homes(chain, map(packet, clients()))}


def test_flows_of_a_removed_backend_are_not_taken_for_those_of_who_gets_its_number(load_chain: LoadChain) -> None:
    chain = balancer_of(load_chain)
    for servers in ((ONE, TWO), (ONE, TWO, THREE)):
        lead(chain, vip(VIP4, PORT, backend=backends(*servers)))
    flows = [segment(to) for to in clients() if to.version == 4]
    for to in clients():  # in moving slots these are remembered
        chain.send(segment(to, "S"))
    before = homes(chain, flows)
    number = number_of(chain, THREE)
    states = chain.maps["elb"]["elb_states"]
    states.put_many((other, 9 << 2) for other in range(number + 1, states.schema.capacity))  # all other numbers were used more often
    for servers in ((ONE, TWO), (ONE, TWO, FOUR)):
        lead(chain, vip(VIP4, PORT, backend=backends(*servers)))

    assert number == number_of(chain, FOUR)
    assert (THREE, "tracked") in before

    for (was, _), (now, reason) in zip(before, homes(chain, flows), strict=True):
        if was == THREE:
            assert (now, reason) != (FOUR, "tracked")
        else:
            assert was == now


def number_of(chain: LoadedChain, server: str) -> int:
    """The number of a server in the IPv4 VIP, which comes first."""
    directory = chain.maps["elb"]["elb_directory"].items()
    return min(int(number) for key, number in directory if key["pool"] and key["address"] == IPv6Address(f"::ffff:{server}"))


def test_the_last_backend_that_leaves_takes_all_packets_with_it_at_once(chain: LoadedChain) -> None:
    for protocol, packet in (("tcp", segment), ("udp", datagram)):
        serve(chain, ONE, protocol=protocol)
        homes(chain, map(packet, clients()))
        serve(chain, protocol=protocol)
        before = chain.counts("elb").get(NO_BACKEND, 0)

        assert [NO_BACKEND] * SOME == [outcome(chain.send(packet(to))) for to in clients()]
        assert chain.counts("elb")[NO_BACKEND] == before + SOME

        serve(chain, TWO, protocol=protocol)

        assert {server for server, _ in homes(chain, map(packet, clients()))} == {TWO}


def test_a_vip_without_backends_takes_packets_and_drops_them(chain: LoadedChain) -> None:
    serve(chain)

    assert outcome(chain.send(segment(TO4))) == NO_BACKEND
    assert passed(chain.send(datagram(TO4)))


def test_a_draining_backend_keeps_its_flows_and_gets_no_others(chain: LoadedChain) -> None:
    serve(chain, ONE, TWO)
    before = homes(chain, (segment(to) for to in clients()))
    draining = [*backends(ONE), {"address": TWO, "drain": True}]
    lead(chain, *(vip(address, PORT, backend=draining) for address in (VIP4, VIP6)))

    assert [server for server, _ in before] == [server for server, _ in homes(chain, (segment(to) for to in clients()))]
    assert {server for server, _ in homes(chain, (segment(to, "S") for to in clients(100)))} == {ONE}


def test_if_all_drain_old_flows_stay_and_new_ones_are_dropped(chain: LoadedChain) -> None:
    serve(chain, ONE)
    lead(chain, *(vip(address, PORT, backend=backends(ONE, drain=True)) for address in (VIP4, VIP6)))

    assert {server for server, _ in homes(chain, (segment(to) for to in clients()))} == {ONE}
    assert {outcome(chain.send(segment(to, "S"))) for to in clients(100)} == {NO_BACKEND}


def test_flows_leave_a_backend_that_is_down_at_once_where_they_migrate(chain: LoadedChain) -> None:
    for options, expected in ((["udp-migration"], {TWO}), ([], {ONE, TWO})):
        lead(chain)
        serve(chain, ONE, TWO, protocol="udp", options=options)
        before = homes(chain, map(datagram, clients()))
        down = [{"address": ONE, "down": True}, {"address": TWO}]
        lead(chain, *(vip(address, PORT, "udp", backend=down, options=options) for address in (VIP4, VIP6)))
        after = homes(chain, map(datagram, clients()))

        assert expected == {server for server, _ in after}
        assert options or [server for server, _ in before] == [server for server, _ in after]


def test_without_tracking_every_packet_follows_the_ring(chain: LoadedChain) -> None:
    serve(chain, ONE, options=["no-tracking"])
    homes(chain, (segment(to) for to in clients()))
    serve(chain, ONE, TWO, options=["no-tracking"])
    now = homes(chain, (segment(to) for to in clients()))

    assert {server for server, _ in now} == {ONE, TWO}
    assert {reason for _, reason in now} == {"ring"}
    assert [] == list(chain.maps["elb"]["elb_flows"].items())


def test_an_icmp_error_follows_the_memory_of_the_flow_that_it_quotes_and_makes_none(chain: LoadedChain) -> None:
    serve(chain, ONE)
    serve(chain, TWO, THREE)  # everything moves, and nothing is left behind
    lead(chain)
    serve(chain, ONE)
    serve(chain, ONE, TWO)
    quoted = [to for to in clients() if to.version == 4]
    for to in quoted:
        error = ETHER / IP(src="203.0.113.1", dst=VIP4) / ICMP(type=11) / IP(src=VIP4, dst=to.src) / TCP(sport=PORT, dport=40000)

        assert server_of(chain, error, "icmp_error") == ONE, "flows of which nothing is known are old ones"
    assert [] == list(chain.maps["elb"]["elb_flows"].items())

    opened = dict(zip((to.src for to in quoted), homes(chain, (segment(to, "S") for to in quoted)), strict=True))
    for to in quoted:
        error = ETHER / IP(src="203.0.113.1", dst=VIP4) / ICMP(type=11) / IP(src=VIP4, dst=to.src) / TCP(sport=PORT, dport=40000)

        assert opened[to.src][0] == server_of(chain, error, "icmp_error")


def test_source_routes_are_tracked_like_others(chain: LoadedChain) -> None:
    def routed(*servers: str) -> list[dict[str, Any]]:
        four = [{"name": "eu", "prefixes": ["198.51.100.0/24"], "backend": backends(*servers)}]
        six = [{"name": "eu", "prefixes": ["2001:db8:7::/48"], "backend": backends(*servers)}]
        return [vip(address, PORT, backend=backends(ONE), source=source) for address, source in ((VIP4, four), (VIP6, six))]

    lead(chain, *routed(TWO))
    homes(chain, (segment(to) for to in clients()))
    lead(chain, *routed(TWO, THREE))

    assert {server for server, _ in homes(chain, (segment(to) for to in clients()))} == {TWO}
    assert {server for server, _ in homes(chain, (segment(to, "S") for to in clients(100)))} == {TWO, THREE}

    lead(chain, *routed(THREE))

    assert {server for server, _ in homes(chain, (segment(to) for to in clients()))} == {THREE}


def test_tracked_and_moving_packets_leave_as_settled_ones_do(chain: LoadedChain) -> None:
    serve(chain, ONE)
    serve(chain, ONE, TWO)
    for to in clients():
        packet = to / TCP(sport=40000, dport=PORT, flags="A") / Raw(b"data")
        for _ in range(2):
            assert Way("gue", ONE).frame(ETHER, packet, to.src, 40000) == chain.send(ETHER / packet).packet


# next hops


def test_packets_to_a_backend_without_a_next_hop_are_dropped_until_there_is_one(loaded: LoadedChain) -> None:
    lead(loaded)
    auto = {"next_hop": "auto", "mtu": None}
    lead(loaded, vip(VIP4, PORT, backend=backends("10.0.7.1")), **{key: value for key, value in auto.items() if value})
    before = loaded.counts("elb").get(NO_NEXT_HOP, 0)

    assert outcome(loaded.send(segment(TO4))) == NO_NEXT_HOP
    assert loaded.counts("elb")[NO_NEXT_HOP] == before + 1

    for mac in (NEXT_HOP, "02:00:00:00:00:77"):
        hop = NextHop(interface="eth0", here=True, mac=MACAddress(bytes.fromhex(mac.replace(":", ""))), mtu=1500)
        loaded.follow("elb", {ip_address("10.0.7.1"): hop})
        result = loaded.send(segment(TO4))

        assert mac == result.scapy.dst
        assert outcome(result) == (Verdict.TX, "ring")

    loaded.follow("elb", {ip_address("10.0.7.1"): NextHop(interface="eth0", here=True, mac=None, mtu=1500)})

    assert outcome(loaded.send(segment(TO4))) == NO_NEXT_HOP


# counters


def test_packets_bytes_and_new_flows_are_counted_for_the_backend_that_gets_them(chain: LoadedChain) -> None:
    serve(chain, ONE, TWO)
    lead(chain)
    serve(chain, ONE)
    sent = [segment(TO4, "S"), segment(TO4), segment(TO4, "SA"), segment(TO4) / Raw(bytes(100)), segment(TO4, "S")]
    for packet in sent:
        chain.send(bytes(packet) + bytes(7))  # padding is not counted

    assert (len(sent), sum(map(len, sent)), 2) == counted(chain, ONE)

    serve(chain)
    serve(chain, ONE)

    assert (0, 0, 0) == counted(chain, ONE), "who comes does not inherit"


def test_what_is_dropped_is_counted_for_nobody(chain: LoadedChain) -> None:
    serve(chain, ONE)
    chain.send(bytes(segment(TO4))[:-1])
    chain.send(segment(TO4) / Raw(bytes(1500)))

    assert (0, 0, 0) == counted(chain, ONE)


def counted(chain: LoadedChain, server: str) -> tuple[int, int, int]:
    """Packets, bytes and flows of a server of the IPv4 VIP."""
    each = chain.maps["elb"]["elb_stats"].get(number_of(chain, server)) or ()
    return sum(one["packets"] for one in each), sum(one["bytes"] for one in each), sum(one["flows"] for one in each)
