# SPDX-License-Identifier: Apache-2.0
"""What a config may say, and what it is told otherwise."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from xdpchain import MACAddress, NextHop, Problem, duration
from xdpchain.config import key_path
from xdpchain_elb.check import MOST_HOPS, MOST_PROBLEMS, next_hop_problems
from xdpchain_elb.config import Backend, ElbConfig

from plugins.elb.tests.documents import FILE, backends, lines, read, refused, vip

UDP: dict[str, Any] = {"protocol": "udp", "port": 443}
V6: dict[str, Any] = {"address": "2001:db8::1", "backend": backends("fc00::1")}


def place(problem: Problem) -> str:
    """Where a problem stands: its key in the instance's table, or its line in the file of VIPs."""
    if problem.file == FILE:
        return f"line {problem.line}"
    return key_path(problem.path).removeprefix("function.elb.")


def test_an_empty_table_is_a_balancer_of_nothing() -> None:
    config = read(source=[])

    assert config == ElbConfig()
    assert (config.encapsulation, config.gue_port, config.next_hop, config.ring) == ("gue", 6080, "auto", "maglev-v2")
    assert (config.max_vips, config.max_backends, config.max_members, config.flow_table) == (512, 4095, 65536, 1_000_000)
    assert (config.hold_tcp, config.hold_udp, config.mtu, config.all_vips) == (duration("15m"), duration("5m"), None, ())


def test_a_vip_is_an_address_a_port_and_a_protocol() -> None:
    one, two, three = read(vip=[vip(), vip("2001:db8::1", 0, "udp"), vip("10.200.0.0/24", 80)]).all_vips

    assert (one.address, one.port, one.protocol) == (ip_network("10.200.1.1/32"), 443, "tcp")
    assert [str(each) for each in (one, two, three)] == ["10.200.1.1:443 tcp", "[2001:db8::1]:0 udp", "10.200.0.0/24:80 tcp"]
    assert [each.is_prefix for each in (one, two, three)] == [False, False, True]


def test_a_vip_may_say_otherwise_than_the_instance() -> None:
    config = read(hold_tcp="1m", hold_udp="2m", vip=[vip(), vip(encapsulation="ipip", port=80), vip(**UDP)])

    assert [config.encapsulation_of(each) for each in config.all_vips] == ["gue", "ipip", "gue"]
    assert [config.hold_of(each) for each in config.all_vips] == [duration("1m"), duration("1m"), duration("2m")]


def test_a_backend_without_weight_that_drains_or_is_down_has_no_share_in_the_ring() -> None:
    address = ip_address("10.0.0.1")

    assert Backend(address=address, weight=7).share == 7
    assert Backend(address=address, weight=0).share == 0
    assert Backend(address=address, weight=7, drain=True).share == 0
    assert Backend(address=address, weight=7, down=True).share == 0


def test_the_pools_of_a_vip_are_its_own_and_those_of_its_source_routes() -> None:
    route = {"name": "eu", "prefixes": ["198.51.100.0/24"], "backend": backends("10.0.1.1")}
    (one,) = read(vip=[vip(source=[route])]).all_vips

    assert [(name, [str(backend.address) for backend in pool]) for name, pool in one.pools] == [("", ["10.0.0.1"]), ("eu", ["10.0.1.1"])]


def test_vips_of_the_file_follow_those_of_the_node_file() -> None:
    config = read(vip=[vip()], vips=lines("vip 10.200.1.2:443 tcp\n 10.0.0.1\n"))

    assert [str(each) for each in config.all_vips] == ["10.200.1.1:443 tcp", "10.200.1.2:443 tcp"]
    assert config.all_vips[0].backend == config.all_vips[1].backend


def test_another_file_of_vips_is_another_config() -> None:
    text = "vip 10.200.1.2:443 tcp\n 10.0.0.1\n"

    assert read(vips=lines(text)) == read(vips=lines(text))
    assert read(vips=lines(text)) != read(vips=lines(text + "# more\n"))


@pytest.mark.parametrize(
    "table",
    [
        {"vip": [vip(backend=[])]},
        {"vip": [vip(), vip(port=444), vip(protocol="udp"), vip("10.200.1.2"), vip("10.200.1.0/31"), vip(port=0)]},
        {"vip": [vip(**V6, encapsulation="ipip"), vip(backend=backends("fc00::1"), encapsulation="ipip")]},
        {"vip": [vip("2001:db8::1")], "source": ["10.0.13.37"]},
        {"vip": [vip(encapsulation="ipip")], "source": []},
        {"vip": [vip(**UDP, options=["quic", "udp-migration"]), vip(options=["server-id", "no-tracking"])]},
        {"vip": [vip(port=0, options=["hash-source-and-destination-port"]), vip(options=["hash-destination-port-only"])]},
        {"vip": [vip(backend=[{"address": "10.0.0.1", "server_id": 1}, {"address": "10.0.0.2", "server_id": 2}])] * 1},
        {"vip": [vip(port=port, backend=backends("10.0.0.1", server_id=1)) for port in (1, 2)]},
        {"vip": [vip("0.0.0.0/0", 0), vip("2000::/3", 0)]},
        {"next_hop": "02:00:00:00:00:01"},
        {"vip": [vip()], "max_vips": 1, "max_backends": 1, "max_members": 1},
        {"vip": [vip(backend=backends("10.0.0.1", weight=2**31 - 1))]},
    ],
    ids=str,
)
def test_a_good_config_has_no_problems(table: dict[str, Any]) -> None:
    read(**table)


def test_a_server_id_in_two_pools_of_a_vip_may_mean_the_same_backend() -> None:
    route = {"name": "eu", "prefixes": ["198.51.100.0/24"], "backend": backends("10.0.0.1", server_id=1)}

    read(vip=[vip(backend=backends("10.0.0.1", server_id=1), source=[route])])


def test_the_next_hop_may_be_a_mac_address() -> None:
    assert read(next_hop="02:00:00:00:00:01").next_hop == MACAddress(bytes.fromhex("020000000001"))


def source(*routes: tuple[str, list[str]]) -> list[dict[str, Any]]:
    return [{"name": name, "prefixes": prefixes, "backend": backends("10.0.1.1")} for name, prefixes in routes]


@pytest.mark.parametrize(
    ("table", "where", "says", "hint"),
    [
        # values
        ({"vip": [vip(port=65536)]}, "vip[0].port", "must be a port, not 65536", "ports go from 0 to 65535"),
        ({"vip": [vip(port=-1)]}, "vip[0].port", "must be a port, not -1", "ports go from 0 to 65535"),
        ({"vip": [vip(protocol="sctp")]}, "vip[0].protocol", 'must be "tcp" or "udp", not "sctp"', ""),
        ({"vip": [vip("10.200.1.1/24")]}, "vip[0].address", '"10.200.1.1/24" has bits set beyond its length', '"10.200.1.0/24"'),
        ({"vip": [vip(options=["quick"])]}, "vip[0].options[0]", 'not "quick"', 'did you mean "quic"?'),
        ({"vip": [vip(encapsulation="vxlan")]}, "vip[0].encapsulation", 'must be "gue" or "ipip", not "vxlan"', ""),
        ({"vip": [vip(backend=backends("10.0.0.1", weight=-1))]}, "vip[0].backend[0].weight", "at least 0, not -1", "from 0 to"),
        ({"vip": [vip(backend=backends("10.0.0.1", weight=2**31))]}, "vip[0].backend[0].weight", "at most 2147483647", "from 0 to"),
        ({"vip": [vip(backend=backends("10.0.0.1", server_id=0))]}, "vip[0].backend[0].server_id", "at least 1, not 0", "from 1 to"),
        ({"vip": [vip(backend=backends("10.0.0.0/24"))]}, "vip[0].backend[0].address", "is a prefix, not an address", '"10.0.0.0"'),
        ({"encapsulation": "vxlan"}, "encapsulation", 'must be "gue" or "ipip", not "vxlan"', ""),
        ({"gue_port": 0}, "gue_port", "must be at least 1, not 0", ""),
        ({"ring": "maglev-v3"}, "ring", 'not "maglev-v3"', 'did you mean "maglev'),
        ({"mtu": 500}, "mtu", "must be at least 576, not 500", "from 576 to 9216"),
        ({"flow_table": 1}, "flow_table", "must be at least 1024, not 1", ""),
        ({"hold_tcp": "500ms"}, "hold_tcp", "must be at least 1s, not 500ms", ""),
        ({"hold_udp": "25h"}, "hold_udp", "must be at most 24h, not 25h", ""),
        ({"max_vips": 4097}, "max_vips", "must be at most 4096, not 4097", ""),
        ({"next_hop": "automatic"}, "next_hop", 'must be a MAC address or "auto", not "automatic"', 'did you mean "auto"?'),
        ({"vip": [vip(source=source(("e u", ["198.51.100.0/24"])))]}, "vip[0].source[0].name", '"e u" is not a name', "letters, digits"),
        ({"vip": [vip(source=source(("eu", [])))]}, "vip[0].source[0].prefixes", "must have at least 1 item", ""),
        # the instance
        ({"next_hop": "00:00:00:00:00:00"}, "next_hop", "00:00:00:00:00:00 is the address of no machine", "one router"),
        ({"next_hop": "ff:ff:ff:ff:ff:ff"}, "next_hop", "ff:ff:ff:ff:ff:ff is the address of a group of machines", "one router"),
        ({"source": ["224.0.0.1"]}, "source[0]", "224.0.0.1 is not a unicast address", "one machine"),
        ({"source": ["0.0.0.0"]}, "source[0]", "0.0.0.0 is not a unicast address", "one machine"),
        ({"source": ["::1"]}, "source[0]", "::1 is not a unicast address", "one machine"),
        ({"source": ["::ffff:10.0.0.1"]}, "source[0]", "in the clothes of IPv6", "write 10.0.0.1"),
        ({"source": ["10.0.0.1", "10.0.0.2"]}, "source[1]", "10.0.0.2 is the second IPv4 address", "one of each family"),
        (
            {"source": ["fc00::1"], "vip": [vip()]},
            "source",
            "has no IPv4 address, which GUE to backends of 10.200.1.1:443 tcp (vip[0]) needs",
            "add an IPv4 address of this node",
        ),
        ({"source": ["10.0.0.9"], "vip": [vip(), vip(**V6)]}, "source", "has no IPv6 address, which GUE to backends of", "add an IPv6"),
        # one VIP
        ({"vip": [vip("224.0.0.1")]}, "vip[0].address", "224.0.0.1/32 is not unicast", "clients connect to"),
        ({"vip": [vip("ff00::/8", 0)]}, "vip[0].address", "ff00::/8 is not unicast", "clients connect to"),
        ({"vip": [vip("::ffff:10.0.0.9")]}, "vip[0].address", "has IPv4 addresses in it", "write 10.0.0.9"),
        ({"vip": [vip("::/0")]}, "vip[0].address", "::/0 has IPv4 addresses in it", "2000::/3"),
        ({"vip": [vip(options=["quic"])]}, "vip[0].options", '"quic" is for UDP', 'protocol "udp"'),
        ({"vip": [vip(options=["udp-stable"])]}, "vip[0].options", '"udp-stable" is for UDP', 'protocol "udp"'),
        ({"vip": [vip(options=["udp-migration"])]}, "vip[0].options", '"udp-migration" is for UDP', 'protocol "udp"'),
        ({"vip": [vip(**UDP, options=["server-id"])]}, "vip[0].options", '"server-id" is an option of TCP', '"quic"'),
        ({"vip": [vip(**UDP, options=["quic", "udp-stable"])]}, "vip[0].options", "read the same bytes in two ways", "keep the one"),
        (
            {"vip": [vip(options=["hash-source-and-destination-port"])]},
            "vip[0].options",
            '"hash-source-and-destination-port" is for VIPs with port 0',
            "leave it out",
        ),
        (
            {"vip": [vip(options=["hash-destination-port-only", "no-source-port"])]},
            "vip[0].options",
            '"no-source-port" and "hash-destination-port-only" contradict each other',
            "keep one",
        ),
        (
            {"vip": [vip(port=0, options=["hash-destination-port-only", "hash-source-and-destination-port"])]},
            "vip[0].options",
            '"hash-destination-port-only" and "hash-source-and-destination-port" contradict each other',
            "keep one",
        ),
        (
            {"vip": [vip(backend=backends("10.0.0.1", "10.0.0.2", "10.0.0.1"))]},
            "vip[0].backend[2]",
            "10.0.0.1 is in this pool already",
            "its weight says its share",
        ),
        ({"vip": [vip(backend=backends("10.0.0.1", "127.0.0.1"))]}, "vip[0].backend[1].address", "not a unicast address", "one machine"),
        ({"vip": [vip(backend=backends("255.255.255.255"))]}, "vip[0].backend[0].address", "not a unicast address", "one machine"),
        ({"vip": [vip(backend=backends("::ffff:10.0.0.1"))]}, "vip[0].backend[0].address", "in the clothes of IPv6", "write 10.0.0.1"),
        (
            {"vip": [vip(backend=[*backends("10.0.0.1", server_id=7), *backends("10.0.0.2", server_id=7)])]},
            "vip[0].backend[1].server_id",
            "server id 7 stands twice in 10.200.1.1:443 tcp",
            "10.0.0.1 has it already",
        ),
        (
            {"vip": [vip("2001:db8::1", encapsulation="ipip", backend=backends("fc00::1", "10.0.0.1", "10.0.0.2"))]},
            "vip[0].backend[1].address",
            "IP in IP cannot carry packets of [2001:db8::1]:443 tcp to 10.0.0.1, and 1 more of this pool",
            '"gue"',
        ),
        ({"vip": [vip(source=source(("eu", ["2001:db8::/32"])))]}, "vip[0].source[0].prefixes", "of another family than the VIP", "IPv4"),
        (
            {"vip": [vip(source=source(("eu", ["198.51.100.0/24"]), ("us", ["203.0.113.0/24", "198.51.100.0/24"])))]},
            "vip[0].source[1].prefixes",
            "198.51.100.0/24 stands twice in the source routes of 10.200.1.1:443 tcp",
            "eu has it already",
        ),
        (
            {"vip": [vip(source=source(("eu", ["198.51.100.0/24"]), ("eu", ["203.0.113.0/24"])))]},
            "vip[0].source[1].name",
            "eu is the name of an earlier source route",
            "a name of its own",
        ),
        (
            {"vip": [vip(backend=backends(*(f"10.1.{high}.{low}" for high in range(17) for low in range(241))))], "max_backends": 65535},
            "vip[0].backend[4096]",
            "4097 backends are too many",
            "at most 4096",
        ),
        # all of them
        ({"vip": [vip(), vip(port=80), vip()]}, "vip[2]", "10.200.1.1:443 tcp is in vip[0] already", "keep one of the two"),
        (
            {"vip": [vip()], "vips": lines("\nvip 10.200.1.1:443 tcp\n")},
            "line 2",
            "10.200.1.1:443 tcp is in vip[0] already",
            "keep one of the two",
        ),
        (
            {"vips": lines("vip 10.200.1.1:443 tcp\n 10.0.0.1\n\nvip 10.200.1.1/32:443 tcp\n")},
            "line 4",
            f"10.200.1.1:443 tcp is in {FILE}, line 1 already",
            "keep one of the two",
        ),
        (
            {"vip": [vip(), vip("10.200.1.2", backend=backends("10.200.1.1"))]},
            "vip[1].backend[0].address",
            "10.200.1.1 is a VIP itself",
            "the server behind it",
        ),
        ({"vip": [vip(), vip(port=80)], "max_vips": 1}, "max_vips", "2 VIPs are too many for max_vips = 1", "set max_vips to 2"),
        (
            {"vip": [vip(), vip(port=80, backend=backends("10.0.0.2"))], "max_backends": 1},
            "max_backends",
            "2 addresses of backends are too many for max_backends = 1",
            "set max_backends to 2",
        ),
        (
            {"vip": [vip(), vip(port=80)], "max_members": 1},
            "max_members",
            "2 backends of all VIPs together are too many for max_members = 1",
            "set max_members to 2",
        ),
        (
            {"vip": [vip(source=source(("eu", [f"198.51.{number}.0/24" for number in range(17)])))], "max_vips": 1},
            "max_vips",
            "17 prefixes of source routes are too many",
            "set it higher",
        ),
    ],
)
def test_a_bad_config_is_told_what_is_wrong_where_and_what_to_do(table: dict[str, Any], where: str, says: str, hint: str) -> None:
    (problem,) = refused(**table)

    assert where == place(problem)
    assert says in problem.message
    assert hint in problem.hint
    assert problem.hint


def test_more_vips_than_there_can_be_are_refused_with_another_hint() -> None:
    text = "".join(f"vip 10.{number // 250}.{number % 250 + 1}.1:443 tcp\n" for number in range(4097))

    (problem,) = refused(vips=lines(text), max_vips=4096)

    assert "4097 VIPs are too many for max_vips = 4096" == problem.message
    assert "use several nodes" in problem.hint


def test_all_problems_come_at_once_up_to_a_number_that_can_be_read() -> None:
    text = "".join(f"vip 10.200.1.1:{number} sctp\n" for number in range(200))

    problems = refused(vips=lines(text))

    assert MOST_PROBLEMS + 1 == len(problems)
    assert "and 100 more problems" in [problem.message for problem in problems]


def test_problems_of_lines_keys_and_all_together_come_at_once() -> None:
    problems = refused(
        vip=[vip(options=["quic"])], vips=lines("vip 10.200.1.2:443 tcp\nnonsense\n"), next_hop="01:00:00:00:00:00", max_vips=1
    )

    assert {"vip[0].options", "line 2", "next_hop"} == {place(problem) for problem in problems}


ROUTED: dict[str, Any] = {
    "vip": [vip(backend=backends("10.0.0.1", "10.0.0.2"))],
    "vips": lines("vip 10.200.1.2:443 tcp\n  10.0.0.2\n source eu 198.51.100.0/24\n  10.0.0.3\n"),
}


def hop_problems(**hops: NextHop) -> list[Problem]:
    """What is wrong with `ROUTED` where backends have these next hops, by the last number of their address."""
    here = NextHop("eth0", here=True)
    known = {ip_address(f"10.0.0.{number}"): hops.get(f"hop{number}", here) for number in (1, 2, 3)}
    return list(next_hop_problems(read(**ROUTED), known))


def test_backends_that_can_be_reached_are_no_problem_even_if_nobody_answered_yet() -> None:
    assert [] == hop_problems(hop1=NextHop("eth0", mac=None, here=True), hop2=NextHop("eth0", mac=bytes(6), here=True))


def test_a_backend_without_a_route_is_told_once_where_it_stands_first() -> None:
    (problem,) = hop_problems(hop2=NextHop())

    assert "vip[0].backend[1].address" == place(Problem(("function", "elb", *problem.path), ""))
    assert "10.0.0.2: there is no route to it" == problem.message
    assert "add a route" in problem.hint


def test_a_reason_that_the_kernel_gives_is_told() -> None:
    (problem,) = hop_problems(hop1=NextHop(problem="the route is a blackhole"))

    assert "10.0.0.1: the route is a blackhole" == problem.message


def test_a_way_by_an_interface_without_the_balancer_is_told() -> None:
    (problem,) = hop_problems(hop3=NextHop("eth7", mac=bytes(6)))

    assert (FILE, 4) == (problem.file, problem.line)
    assert "10.0.0.3: the way to it leaves by eth7, where no chain has this instance" == problem.message
    assert "the interface that they came in on" in problem.hint


def test_with_a_mac_address_the_routes_do_not_matter() -> None:
    config = read(**ROUTED, next_hop="02:00:00:00:00:01")

    assert [] == list(next_hop_problems(config, {ip_address("10.0.0.1"): NextHop()}))


def test_many_are_told_up_to_a_number_that_can_be_read() -> None:
    addresses = [f"10.0.0.{number}" for number in range(1, 101)]
    config = read(vip=[vip(backend=backends(*addresses))])

    problems = list(next_hop_problems(config, {ip_address(address): NextHop() for address in addresses}))

    assert MOST_HOPS + 1 == len(problems)
    assert "and 80 more problems" == problems[-1].message
