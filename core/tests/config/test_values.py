# SPDX-License-Identifier: Apache-2.0
"""Value types: what is written is what is meant, and comes back as it would be written."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdpchain.config import Duration, IPAddress, IPNetwork, MACAddress, Percent, Port, PortRange, duration, show_duration
from xdpchain.config.kinds import Kind, shape_of
from xdpchain.config.misfit import MisfitError
from xdpchain.config.values import MAX_DURATION_NS


def kind(annotation: Any) -> Kind:
    shape = shape_of(annotation)
    assert isinstance(shape, Kind)
    return shape


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0s", 0),
        ("7ns", 7),
        ("250us", 250_000),
        ("100ms", 100_000_000),
        ("1s", 10**9),
        ("1.5m", 90 * 10**9),
        ("2h", 7200 * 10**9),
        ("0.1s", 10**8),
    ],
)
def test_a_duration_is_exact_in_nanoseconds(text: str, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


@given(st.integers(0, MAX_DURATION_NS))
def test_a_shown_duration_reads_back_as_itself(nanoseconds: int) -> None:
    assert duration(show_duration(nanoseconds)) == nanoseconds


@given(st.ip_addresses())
def test_an_address_reads_back_as_itself(address: IPAddress) -> None:
    assert kind(IPAddress).parse(str(address)) == address


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_prefix_is_taken_exactly_when_it_has_no_host_bits(address: IPAddress, length: int) -> None:
    length = min(length, address.max_prefixlen)
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)

    assert kind(IPNetwork).parse(str(network)) == network
    if network.network_address != address:
        with pytest.raises(MisfitError, match="bits set beyond its length") as raised:
            kind(IPNetwork).parse(f"{address}/{length}")
        assert str(network) in raised.value.hint


def test_an_address_alone_is_the_prefix_of_its_full_length() -> None:
    assert str(kind(IPNetwork).parse("10.0.0.1")) == "10.0.0.1/32"
    assert str(kind(IPNetwork).parse("2001:db8::1")) == "2001:db8::1/128"


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::%eth0/64"])
def test_a_prefix_with_a_zone_is_refused(text: str) -> None:
    with pytest.raises(MisfitError, match="names an interface"):
        kind(IPNetwork).parse(text)


@given(st.binary(min_size=6, max_size=6))
def test_a_mac_address_reads_back_as_itself(mac: bytes) -> None:
    assert kind(MACAddress).parse(kind(MACAddress).show(MACAddress(mac))) == mac


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_port_range_reads_back_as_itself(one: int, other: int) -> None:
    ports = PortRange(Port(min(one, other)), Port(max(one, other)))

    assert kind(PortRange).parse(kind(PortRange).show(ports)) == ports


def test_one_port_is_a_range_of_one() -> None:
    assert kind(PortRange).parse(443) == PortRange(Port(443), Port(443))
    assert kind(PortRange).parse("443-443") == PortRange(Port(443), Port(443))
    assert str(PortRange(Port(443), Port(443))) == "443"
    assert str(PortRange(Port(80), Port(90))) == "80-90"


def test_a_percentage_may_have_a_fraction() -> None:
    assert kind(Percent).parse(0.1) == 0.1
    assert kind(Percent).parse(100) == 100


@pytest.mark.parametrize("annotation", [Duration, Port, PortRange, Percent, MACAddress, IPAddress, IPNetwork, int, float, bool, str])
@pytest.mark.parametrize("value", [{}, [], [1], object()])
def test_nothing_but_a_plain_value_is_taken_for_one(annotation: Any, value: object) -> None:
    with pytest.raises(MisfitError, match=r"^must be "):
        kind(annotation).parse(value)


@pytest.mark.parametrize("annotation", [object, bytes, list, set[int], tuple[int, str], dict[int, int], int | tuple[int, ...], Any])
def test_a_type_that_no_file_can_hold_is_a_clear_error(annotation: Any) -> None:
    with pytest.raises(TypeError, match="config class cannot hold"):
        shape_of(annotation)
