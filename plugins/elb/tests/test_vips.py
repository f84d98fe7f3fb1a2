# SPDX-License-Identifier: Apache-2.0
"""The file of VIPs: what its lines mean, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as some
from xdpchain import Port
from xdpchain_elb.config import Backend, SourceRoute, Vip
from xdpchain_elb.vip import ENCAPSULATIONS, MAX_SERVER_ID, MAX_WEIGHT, OPTIONS
from xdpchain_elb.vips import Listing

from plugins.elb.tests.documents import FILE, lines, read, refused

EXAMPLE = """\
# the shop
vip 10.200.1.1:443 tcp options=server-id,no-source-port encapsulation=ipip   # by hand
    10.0.0.1 weight=100

    10.0.0.2 weight=50 drain server-id=17
  source eu 198.51.100.0/24,203.0.113.0/24
    10.0.1.1 down
    10.0.0.1
vip [2001:db8::1]:0 udp
vip 10.200.0.0/24:53 udp
fc00::1
    vip [2001:db8:1::/64]:80 tcp
"""


def vips(text: str) -> tuple[Vip, ...]:
    return Listing.of(lines(text)).vips


def test_lines_say_vips_backends_and_source_routes() -> None:
    first, second, third, fourth = vips(EXAMPLE)

    assert first == Vip(
        address=ip_network("10.200.1.1/32"),
        port=Port(443),
        protocol="tcp",
        options=("server-id", "no-source-port"),
        encapsulation="ipip",
        backend=(
            Backend(address=ip_address("10.0.0.1"), weight=100),
            Backend(address=ip_address("10.0.0.2"), weight=50, drain=True, server_id=17),
        ),
        source=(
            SourceRoute(
                name="eu",
                prefixes=(ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24")),
                backend=(Backend(address=ip_address("10.0.1.1"), down=True), Backend(address=ip_address("10.0.0.1"))),
            ),
        ),
    )
    assert second == Vip(address=ip_network("2001:db8::1/128"), port=Port(0), protocol="udp")
    assert third == Vip(
        address=ip_network("10.200.0.0/24"), port=Port(53), protocol="udp", backend=(Backend(address=ip_address("fc00::1")),)
    )
    assert fourth == Vip(address=ip_network("2001:db8:1::/64"), port=Port(80), protocol="tcp")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "  # vip 10.200.1.1:443 tcp"])
def test_a_file_without_vips_is_empty(text: str) -> None:
    assert vips(text) == ()
    assert list(Listing.of(lines(text)).faults()) == []


def test_lines_may_end_as_on_other_systems() -> None:
    assert vips(EXAMPLE.replace("\n", "\r\n")) == vips(EXAMPLE)


def test_a_vip_that_did_not_change_is_the_same_object() -> None:
    before = vips(EXAMPLE)
    after = vips(
        "\n# an inserted line\n" + EXAMPLE.replace("vip 10.200.0.0/24:53 udp", "vip 10.200.0.0/25:53 udp") + "\nvip 10.9.9.9:1 tcp\n"
    )

    assert [old is new for old, new in zip(before, after[:4], strict=True)] == [True, True, False, False]
    assert before[3] == after[3]


def addresses() -> some.SearchStrategy[IPv4Address | IPv6Address]:
    return some.ip_addresses(v=4) | some.integers(0, 2**128 - 1).map(IPv6Address)


@some.composite
def networks(draw: some.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(addresses())
    length = draw(some.integers(0, address.max_prefixlen))
    return ip_network(f"{address}/{length}", strict=False)


BACKENDS = some.builds(
    Backend,
    address=addresses(),
    weight=some.integers(0, MAX_WEIGHT),
    drain=some.booleans(),
    down=some.booleans(),
    server_id=some.none() | some.integers(1, MAX_SERVER_ID),
)
POOLS = some.lists(BACKENDS, max_size=4).map(tuple)
ROUTES = some.builds(
    SourceRoute,
    name=some.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True),
    prefixes=some.lists(networks(), min_size=1, max_size=3).map(tuple),
    backend=POOLS,
)
VIPS = some.builds(
    Vip,
    address=networks(),
    port=some.integers(0, 65535),
    protocol=some.sampled_from(["tcp", "udp"]),
    options=some.lists(some.sampled_from(OPTIONS), unique=True).map(tuple),
    encapsulation=some.none() | some.sampled_from(ENCAPSULATIONS),
    backend=POOLS,
    source=some.lists(ROUTES, max_size=2).map(tuple),
)


def written(vip: Vip) -> Iterator[str]:
    """A VIP as lines."""
    options = [f"options={','.join(vip.options)}"] if vip.options else []
    encapsulation = [f"encapsulation={vip.encapsulation}"] if vip.encapsulation else []
    yield " ".join(["vip", str(vip), *options, *encapsulation])
    yield from map(backend_line, vip.backend)
    for route in vip.source:
        yield f"source {route.name} {','.join(map(str, route.prefixes))}"
        yield from map(backend_line, route.backend)


def backend_line(backend: Backend) -> str:
    """A backend as a line."""
    words = [str(backend.address), f"weight={backend.weight}"]
    words += [word for word, said in (("drain", backend.drain), ("down", backend.down)) if said]
    return " ".join(words + ([f"server-id={backend.server_id}"] if backend.server_id else []))


@given(some.lists(VIPS, max_size=4), some.sampled_from(["\n", "\n\n", "\n# vip in a comment\n", " # comment\n  ", "\r\n\t"]))
def test_what_is_written_is_read(wanted: list[Vip], between: str) -> None:
    text = between.join(line for vip in wanted for line in written(vip)) + between

    assert vips(text) == tuple(wanted)


@given(VIPS)
def test_every_backend_is_found_again_on_its_line(vip: Vip) -> None:
    listing = Listing.of(lines("\n# head\n" + "\n\n".join(written(vip)) + "\n"))
    text = listing.text.split("\n")

    assert text[listing.line_of(0, ()) - 1].startswith("vip ")
    for number, backend in enumerate(vip.backend):
        assert text[listing.line_of(0, ("backend", number, "address")) - 1] == backend_line(backend)
    for number, route in enumerate(vip.source):
        assert text[listing.line_of(0, ("source", number, "prefixes")) - 1].startswith(f"source {route.name} ")
        for index, backend in enumerate(route.backend):
            assert text[listing.line_of(0, ("source", number, "backend", index)) - 1] == backend_line(backend)


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("vip", "a VIP is cut short", "vip 10.200.1.1:443 tcp"),
        ("vip 10.200.1.1:443", "a VIP is cut short", "vip 10.200.1.1:443 tcp"),
        ("vip 10.200.1.1 tcp", '"10.200.1.1" has no port', "10.200.1.1:443, or 10.200.1.1:0"),
        ("vip [2001:db8::1] tcp", '"[2001:db8::1]" has no port', "[2001:db8::1]:443"),
        ("vip 2001:db8::1:443 tcp", "leaves open where the port begins", "[2001:db8::1]:443"),
        ("vip 10.200.1.1:https tcp", 'port must be an integer, not "https"', "from 0 to 65535"),
        ("vip 10.200.1.1: tcp", 'port must be an integer, not ""', "from 0 to 65535"),
        ("vip 10.200.1.1:65536 tcp", "port must be at most 65535, not 65536", "from 0 to 65535"),
        ("vip 10.200.1.1:-1 tcp", "port must be at least 0, not -1", "from 0 to 65535"),
        ("vip 10.200.1.1/24:80 tcp", "has bits set beyond its length", '"10.200.1.0/24"'),
        ("vip 10.200.1.300:80 tcp", '"10.200.1.300" is not a prefix', "right are"),
        ("vip 10.200.1.1:80 sctp", '"sctp" is no known protocol', "known: tcp, udp"),
        ("vip 10.200.1.1:80 udp options=quick", '"quick" is no known option', 'did you mean "quic"?'),
        ("vip 10.200.1.1:80 udp options=", '"" is no known option', "known: no-source-port"),
        ("vip 10.200.1.1:80 tcp encapsulation=vxlan", '"vxlan" is no known encapsulation', "known: gue, ipip"),
        ("vip 10.200.1.1:80 tcp weight=3", '"weight=3" is no known word here', "known here: options=, encapsulation="),
        ("vip 10.200.1.1:80 tcp option=quic", '"option=quic" is no known word here', 'did you mean "options="?'),
        ("vip 10.200.1.1:80 tcp options=quic options=quic", "options stands here twice", "keep one"),
        ("10.0.0.1 weight=x", 'weight must be an integer, not "x"', "from 0 to 2147483647"),
        ("10.0.0.1 weight=-1", "weight must be at least 0, not -1", "from 0 to 2147483647"),
        ("10.0.0.1 weight=2147483648", "weight must be at most 2147483647", "from 0 to 2147483647"),
        ("10.0.0.1 weight=" + "9" * 5000, "weight must be an integer", "from 0 to 2147483647"),
        ("10.0.0.1 weight", '"weight" is no known word here', 'did you mean "weight="?'),
        ("10.0.0.1 drain=yes", '"drain=yes" is no known word here', 'did you mean "drain"?'),
        ("10.0.0.1 server-id=0", "server-id must be at least 1, not 0", "from 1 to 4294967295"),
        ("10.0.0.1 weight=1 weight=2", "weight stands here twice", "keep one"),
        ("10.0.0.1/32", '"10.0.0.1/32" is a prefix, not an address', '"10.0.0.1"'),
        ("10.0.0.300", '"10.0.0.300" is not an IP address', "right are"),
        ("fe80::1%eth0", "names an interface", '"fe80::1"'),
        ("VIP 10.200.1.2:80 tcp", '"VIP" begins no line', "vip, source, or the address of a backend"),
        ("vips 10.200.1.2:80 tcp", '"vips" begins no line', "vip, source, or the address of a backend"),
        ("source eu", "a source route is cut short", "source eu 198.51.100.0/24"),
        ("source e/u 198.51.100.0/24", '"e/u" is not a name', "letters, digits"),
        ("source eu 198.51.100.1/24", "has bits set beyond its length", '"198.51.100.0/24"'),
        ("source eu 198.51.100.0/24,", '"" is not a prefix', "right are"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(line: str, says: str, hint: str) -> None:
    (problem,) = refused(vips=lines(f"# head\nvip 10.200.0.1:80 tcp\n  10.0.0.9\n\n{line}\n  10.0.0.8\n"))

    assert (FILE, 5) == (problem.file, problem.line)
    assert says in problem.message
    assert hint in problem.hint
    assert problem.hint


def test_backends_before_the_first_vip_belong_to_none_and_are_told_once() -> None:
    (problem,) = refused(vips=lines("10.0.0.1\n10.0.0.2\nvip 10.200.0.1:80 tcp\n"))

    assert (1, "stands before the first VIP") == (problem.line, problem.message)


def test_all_wrong_lines_are_told_in_their_order() -> None:
    problems = refused(vips=lines("vip 1 tcp\n10.0.0.1 x\nvip 10.200.0.1:80 tcp\n 10.0.0.1 y\n10.0.0.1\n source\n10.0.0.2 z\n"))

    assert [1, 2, 4, 6, 7] == [problem.line for problem in problems]


def test_a_vip_of_the_file_is_checked_as_one_of_the_node_file() -> None:
    text = EXAMPLE + "vip 10.200.9.9:80 tcp options=quic\n 10.0.0.1\n 10.0.0.2\n source eu 198.51.100.0/24\n 10.0.0.1\n 10.0.0.1\n"

    problems = refused(vips=lines(text))

    assert [(13, '"quic" is for UDP'), (18, "10.0.0.1 is in this pool already")] == [(each.line, each.message) for each in problems]


def test_the_example_is_good() -> None:
    assert 4 == len(read(vips=lines(EXAMPLE)).all_vips)
