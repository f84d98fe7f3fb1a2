# SPDX-License-Identifier: Apache-2.0
"""The hash functions, by vectors that Katran gives."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from xdpchain_elb.hashing import HashOption, backend_hash, flow_hash, offset_and_skip, slot_of

CLIENT4, CLIENT6 = IPv4Address("192.168.1.1"), IPv6Address("fc00:2::1")
NOBODY4, NOBODY6 = IPv4Address(0), IPv6Address(0)
OTHERS = 8 | 16 | 32 | 64 | 128


@pytest.mark.parametrize(("client", "hash", "slot"), [(CLIENT4, 3353773618, 48717), (CLIENT6, 2623155930, 37505)])
def test_a_packet_finds_the_slot_that_it_finds_in_katran(client: IPv4Address | IPv6Address, hash: int, slot: int) -> None:
    assert hash == flow_hash(client, 31337, 80)
    assert slot == slot_of(client, 31337, 80)


@pytest.mark.parametrize(
    ("address", "hash"),
    [
        ("10.0.0.1", 0xD671359DBAA15954),
        ("::ffff:10.0.0.1", 0xD671359DBAA15954),
        ("10.0.0.200", 0x28B013F89F94D00D),
        ("fc00::1", 0x64E74A25B986D744),
        ("fc00::2", 0x87D247835B02295B),
        ("fc00::3", 0x0B2E5EA98827F017),
    ],
)
def test_a_backend_has_the_hash_that_it_has_in_katran(address: str, hash: int) -> None:
    assert hash == backend_hash(ip_address(address))


@pytest.mark.parametrize(("address", "places"), [("10.0.0.1", (4577, 18292)), ("fc00::1", (7827, 60497))])
def test_a_backend_has_its_places_where_it_has_them_in_katran(address: str, places: tuple[int, int]) -> None:
    assert places == offset_and_skip(backend_hash(ip_address(address)))


@pytest.mark.parametrize(("client", "nobody"), [(CLIENT4, NOBODY4), (CLIENT6, NOBODY6)])
@pytest.mark.parametrize(
    ("options", "like"),
    [
        (HashOption.NO_SOURCE_PORT, (True, 0, 80)),
        (HashOption.NO_DESTINATION_PORT, (True, 31337, 0)),
        (HashOption.NO_SOURCE_PORT | HashOption.NO_DESTINATION_PORT, (True, 0, 0)),
        (HashOption.DESTINATION_PORT_ONLY, (False, 80, 80)),
        (HashOption.DESTINATION_PORT_ONLY | HashOption.NO_SOURCE_PORT, (False, 80, 80)),
        (HashOption.DESTINATION_PORT_ONLY | HashOption.NO_DESTINATION_PORT, (False, 80, 0)),
        (OTHERS, (True, 31337, 80)),
    ],
)
def test_options_leave_a_part_of_the_packet_to_be_hashed(
    client: IPv4Address | IPv6Address, nobody: IPv4Address | IPv6Address, options: int, like: tuple[bool, int, int]
) -> None:
    with_address, source_port, destination_port = like

    assert slot_of(client if with_address else nobody, source_port, destination_port) == slot_of(client, 31337, 80, options)
