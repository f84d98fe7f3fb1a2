# SPDX-License-Identifier: Apache-2.0
"""The file of services: what its lines mean, and what is wrong with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as some
from xdpchain_dsr_agent.config import Service
from xdpchain_dsr_agent.listing import Listing

from plugins.dsr_agent.tests.documents import FILE, lines, place, refused

EXAMPLE = """\
# the shop
vip 10.200.1.1:443 tcp 10.1.0.5:8443    # by hand

  vip [2001:db8::1]:0   udp 2001:db8:1::5 unknown=direct
vip [2001:db8::1]:53 tcp [2001:db8:1::5]:5353 endpoint=10.1.0.5,fd00::7 unknown=learn
vip 10.200.1.2:80 tcp 10.1.0.6
"""


def services(text: str) -> tuple[Service, ...]:
    return Listing.of(lines(text)).services


def test_a_line_says_a_service() -> None:
    shop, others, dns, web = services(EXAMPLE)

    assert shop == Service(vip=ip_address("10.200.1.1"), port=443, workload=ip_address("10.1.0.5"), backend_port=8443)
    assert others == Service(vip=ip_address("2001:db8::1"), port=0, protocol="udp", workload=ip_address("2001:db8:1::5"), unknown="direct")
    assert dns == Service(
        vip=ip_address("2001:db8::1"),
        port=53,
        workload=ip_address("2001:db8:1::5"),
        backend_port=5353,
        endpoint=(ip_address("10.1.0.5"), ip_address("fd00::7")),
        unknown="learn",
    )
    assert web == Service(vip=ip_address("10.200.1.2"), port=80, workload=ip_address("10.1.0.6"))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "  # vip 10.200.1.1:443 tcp 10.1.0.5"])
def test_a_file_without_services_is_empty(text: str) -> None:
    assert services(text) == ()
    assert list(Listing.of(lines(text)).faults()) == []


def test_lines_may_end_as_on_other_systems() -> None:
    assert services(EXAMPLE.replace("\n", "\r\n")) == services(EXAMPLE)


def test_a_service_that_did_not_change_is_the_same_object() -> None:
    before = services(EXAMPLE)
    after = services("\n# an inserted line\n" + EXAMPLE.replace("10.1.0.6", "10.1.0.7"))

    assert [True, True, True, False] == [old is new for old, new in zip(before, after, strict=True)]


@some.composite
def a_service(draw: some.DrawFn) -> Service:
    addresses = some.ip_addresses(v=4) | some.integers(0, 2**128 - 1).map(IPv6Address)
    return Service(
        vip=draw(addresses),
        port=draw(some.integers(0, 65535)),
        protocol=draw(some.sampled_from(["tcp", "udp"])),
        workload=draw(addresses),
        backend_port=draw(some.none() | some.integers(1, 65535)),
        endpoint=tuple(draw(some.lists(addresses, max_size=3))),
        unknown=draw(some.sampled_from(["snat", "direct", "learn"])),
    )


def written(service: Service) -> str:
    """The line of a service."""

    def bare(address: IPv4Address | IPv6Address) -> str:
        return str(address) if address.version == 4 else f"[{address}]"

    workload = str(service.workload) if service.backend_port is None else f"{bare(service.workload)}:{service.backend_port}"
    words = [f"vip {bare(service.vip)}:{service.port} {service.protocol} {workload}"]
    words += [f"endpoint={','.join(map(str, service.endpoint))}"] if service.endpoint else []
    words += [f"unknown={service.unknown}"] if service.unknown != "snat" else []
    return " ".join(words)


@given(some.lists(a_service(), max_size=5))
def test_whatever_is_written_is_read_again(wanted: list[Service]) -> None:
    assert services("\n".join(map(written, wanted))) == tuple(wanted)


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("10.200.1.1:443 tcp 10.1.0.5", '"10.200.1.1:443" begins no line', "vip ADDRESS:PORT"),
        ("vip", "a service is cut short", "vip ADDRESS:PORT"),
        ("vip 10.200.1.1:443 10.1.0.5", "a service is cut short", "for example"),
        ("vip 10.200.1.1 tcp 10.1.0.5", '"10.200.1.1" has no port', "10.200.1.1:0 for all ports"),
        ("vip 2001:db8::1 tcp fd01::5", '"2001:db8::1" has no port', "[2001:db8::1]:443"),
        ("vip [2001:db8::1] tcp fd01::5", '"[2001:db8::1]" has no port', "[2001:db8::1]:443"),
        ("vip [2001:db8::1:443 tcp fd01::5", "is not an address with a port", "[2001:db8::1]:443"),
        ("vip [2001:db8::1]443 tcp fd01::5", "is not an address with a port", "[2001:db8::1]:443"),
        ("vip 10.200.1.1:65536 tcp 10.1.0.5", '"65536" is not a port', "from 0 to 65535"),
        ("vip 10.200.1.1:http tcp 10.1.0.5", '"http" is not a port', "from 0 to 65535"),
        ("vip 10.200.1.1:-1 tcp 10.1.0.5", '"-1" is not a port', "from 0 to 65535"),
        ("vip 10.200.1:443 tcp 10.1.0.5", '"10.200.1" is not an IP address', "10.0.0.1"),
        ("vip 10.200.1.0/24:443 tcp 10.1.0.5", "is a prefix, not an address", '"10.200.1.0"'),
        ("vip 10.200.1.1:443 sctp 10.1.0.5", '"sctp" is no known protocol', "known: tcp, udp"),
        ("vip 10.200.1.1:443 tcp web-5", '"web-5" is not an IP address', "10.0.0.1"),
        ("vip 10.200.1.1:443 tcp 10.1.0.5:0", "port of the workload must be at least 1", "leave it out"),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 endpont=10.0.7.1", '"endpont=10.0.7.1" is no known word', 'did you mean "endpoint="?'),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 learn", '"learn" is no known word', "known here: endpoint=, unknown="),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 unknown=guess", '"guess" is no known policy', "known: snat, direct, learn"),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 endpoint=", '"" is not an IP address', "10.0.0.1"),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 unknown=snat unknown=snat", "unknown stands here twice", "keep one"),
        ("vip 10.200.1.1:443 tcp 10.1.0.5 endpoint=" + ",".join(["10.0.7.1"] * 17), "17 endpoints are too many", "at most 16"),
        # what a line says as a whole
        ("vip 10.200.1.1:443 tcp fd01::5", "is of another family", "each family"),
        ("vip 10.200.1.1:0 tcp 10.1.0.5:80", "one port, 80, cannot stand for all", "leave it out"),
    ],
)
def test_a_line_that_says_nothing_is_told_with_its_number(line: str, says: str, hint: str) -> None:
    (problem,) = refused(services=lines(f"# services\nvip 10.200.1.9:1 tcp 10.1.0.9\n\n{line}\n"))

    assert (FILE, "line 4") == (problem.file, place(problem))
    assert says in problem.message
    assert hint in problem.hint


def test_all_wrong_lines_are_told_at_once() -> None:
    problems = refused(services=lines("vap\nvip 10.200.1.1:443 tcp 10.1.0.5\nvip\n"))

    assert ["line 1", "line 3"] == [place(problem) for problem in problems]
