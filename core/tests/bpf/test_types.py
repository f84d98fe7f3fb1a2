# SPDX-License-Identifier: Apache-2.0
"""Values of the schema as bytes and back, against ctypes, which follows the same ABI."""

from __future__ import annotations

import ctypes as ct
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdpchain.schema import Address, Array, Raw, Scalar, Struct, Type, be16, be32, be64, ipv4, ipv6, s8, s16, s32, s64, u8, u16, u32, u64

C_INTEGERS = {
    "=B": ct.c_uint8, "=H": ct.c_uint16, "=I": ct.c_uint32, "=Q": ct.c_uint64,
    "=b": ct.c_int8, "=h": ct.c_int16, "=i": ct.c_int32, "=q": ct.c_int64,
    ">H": ct.c_uint16, ">I": ct.c_uint32, ">Q": ct.c_uint64,
}  # fmt: skip
SCALARS = [u8, u16, u32, u64, s8, s16, s32, s64, be16, be32, be64]
LEAVES: list[Type] = [*SCALARS, ipv4, ipv6, Raw(6), Raw(1)]
TYPES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        st.builds(Array, inner, st.integers(1, 4))
        | st.lists(inner, min_size=1, max_size=6).map(lambda kinds: Struct("some", {f"f{at}": kind for at, kind in enumerate(kinds)}))
    ),
    max_leaves=12,
)


def c_type(kind: Type) -> Any:
    """The type in C, as ctypes lays it out."""
    match kind:
        case Scalar():
            return C_INTEGERS[kind.code]
        case Address():
            return ct.c_uint32 * (kind.size // 4)
        case Raw():
            return ct.c_uint8 * kind.size
        case Array():
            return c_type(kind.item) * kind.length
        case Struct():
            return type(kind.name, (ct.Structure,), {"_fields_": [(name, c_type(one)) for name, one in kind.fields.items()]})
    raise AssertionError(kind)


def value_of(data: st.DataObject, kind: Type) -> Any:
    """Any value of a type."""
    match kind:
        case Scalar():
            bits = 8 * kind.size
            low = -(1 << bits - 1) if kind.code[1].islower() else 0
            return data.draw(st.integers(low, low + (1 << bits) - 1))
        case Address():
            return data.draw(st.ip_addresses(v=4 if kind.size == 4 else 6))
        case Raw():
            return data.draw(st.binary(min_size=kind.size, max_size=kind.size))
        case Array():
            return [value_of(data, kind.item) for _ in range(kind.length)]
        case Struct():
            return {name: value_of(data, one) for name, one in kind.fields.items()}
    raise AssertionError(kind)


def packed_by_c(kind: Type, value: Any) -> bytes:
    """A value's bytes, put together field by field at the places that ctypes says."""
    match kind:
        case Scalar():
            return struct.pack(kind.code, value)
        case Address():
            packed: bytes = value.packed
            return packed
        case Raw():
            return bytes(value)
        case Array():
            return b"".join(packed_by_c(kind.item, one) for one in value)
        case Struct():
            laid_out = c_type(kind)
            whole = bytearray(ct.sizeof(laid_out))
            for name, one in kind.fields.items():
                at = getattr(laid_out, name).offset
                whole[at : at + one.size] = packed_by_c(one, value[name])
            return bytes(whole)
    raise AssertionError(kind)


@given(st.data(), TYPES)
def test_values_lie_as_c_lays_them_out_and_come_back(data: st.DataObject, kind: Type) -> None:
    value = value_of(data, kind)
    packed = kind.pack(value)

    assert packed_by_c(kind, value) == packed
    assert value == kind.unpack(packed)
    assert packed == kind.pack(packed)


PAIR = Struct("pair", {"left": u8, "right": be32})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"left": 1}, r"unknown \[\], missing \['right'\]"),
        ({"left": 1, "right": 2, "up": 3}, r"unknown \['up'\], missing \[\]"),
        (bytes(7), "8 bytes wanted, 7 given"),
        ({"left": b"12", "right": 1}, "1 bytes wanted, 2 given"),
        ({"left": 1, "right": b"12"}, "4 bytes wanted, 2 given"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_a_struct_is_refused(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PAIR.pack(value)


@pytest.mark.parametrize(
    "value", [{"left": 256, "right": 1}, {"left": -1, "right": 1}, {"left": 1, "right": 1 << 32}, {"left": "1", "right": 1}]
)
def test_an_integer_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(struct.error):
        PAIR.pack(value)


def test_fields_may_be_packed_already() -> None:
    assert PAIR.pack({"left": 1, "right": 2}) == PAIR.pack({"left": b"\1", "right": b"\0\0\0\2"})
    assert Array(PAIR, 2).pack([bytes(8), {"left": 0, "right": 0}]) == bytes(16)


@pytest.mark.parametrize("value", ["192.0.2.1", IPv4Address("192.0.2.1"), bytes((192, 0, 2, 1)), 0xC0000201])
def test_an_address_may_be_written_in_several_ways(value: Any) -> None:
    assert bytes((192, 0, 2, 1)) == ipv4.pack(value)


@pytest.mark.parametrize(("kind", "value"), [(ipv4, IPv6Address("::1")), (ipv6, IPv4Address("192.0.2.1")), (ipv4, bytes(16))])
def test_an_address_of_the_other_family_is_refused(kind: Address, value: Any) -> None:
    with pytest.raises(ValueError, match="is not an address of"):
        kind.pack(value)
