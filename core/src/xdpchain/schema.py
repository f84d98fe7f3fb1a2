# SPDX-License-Identifier: Apache-2.0
"""
The map schema: how a function declares its maps, and how bytes become values and back.

The types follow the C ABI of BPF targets: little-endian hosts, natural alignment, trailing padding up to the widest member.
`be16` ... `be64` hold network byte order in the map and plain integers in Python.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, runtime_checkable

import attrs


@runtime_checkable
class Type(Protocol):
    """What a key, a value or a field is made of. `size` and `align` are in bytes."""

    @property
    def size(self) -> int: ...

    @property
    def align(self) -> int: ...

    def pack(self, value: Any) -> bytes: ...

    def unpack(self, data: bytes) -> Any: ...


def _packed(data: bytes, size: int) -> bytes:
    """A value that is given as bytes."""
    if len(data) != size:
        raise ValueError(f"{size} bytes wanted, {len(data)} given")
    return data


@attrs.frozen
class Scalar:
    """An integer. `code` is its `struct` format, byte order first."""

    name: str
    code: str

    @functools.cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct(self.code)

    @property
    def size(self) -> int:
        return self._struct.size

    @property
    def align(self) -> int:
        return self.size

    def pack(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return _packed(value, self.size)
        return self._struct.pack(value)

    def unpack(self, data: bytes) -> int:
        (value,) = self._struct.unpack(data)
        return int(value)


u8, u16, u32, u64 = (Scalar(f"u{8 * n}", f"={c}") for n, c in ((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
s8, s16, s32, s64 = (Scalar(f"s{8 * n}", f"={c}") for n, c in ((1, "b"), (2, "h"), (4, "i"), (8, "q")))
be16, be32, be64 = (Scalar(f"be{8 * n}", f">{c}") for n, c in ((2, "H"), (4, "I"), (8, "Q")))


@attrs.frozen
class Raw:
    """Bytes as they are, e.g. a MAC address: `u8 name[size]` in C."""

    size: int

    @property
    def align(self) -> int:
        return 1

    def pack(self, value: Any) -> bytes:
        return _packed(bytes(value), self.size)

    def unpack(self, data: bytes) -> bytes:
        return bytes(data)


@attrs.frozen
class Address:
    """An IP address in network byte order; `size` is 4 (`__be32`) or 16 (`struct in6_addr`, `__be32 [4]`, `u8 [16]`)."""

    size: int
    align: int = 4

    def pack(self, value: Any) -> bytes:
        known = isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address))
        packed: bytes = value.packed if known else ipaddress.ip_address(value).packed
        if len(packed) != self.size:
            raise ValueError(f"{value} is not an address of {self.size} bytes")
        return packed

    def unpack(self, data: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.IPv4Address(bytes(data)) if self.size == 4 else ipaddress.IPv6Address(bytes(data))


ipv4 = Address(4)
ipv6 = Address(16)


@attrs.frozen
class Array:
    """`item name[length]` in C; a list in Python."""

    item: Type
    length: int

    @property
    def size(self) -> int:
        return self.item.size * self.length

    @property
    def align(self) -> int:
        return self.item.align

    @functools.cached_property
    def _struct(self) -> struct.Struct | None:
        """All items at once, where they are integers."""
        return struct.Struct(f"{self.item.code[0]}{self.length}{self.item.code[1:]}") if isinstance(self.item, Scalar) else None

    def pack(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return _packed(value, self.size)
        if len(value) != self.length:
            raise ValueError(f"{self.length} items wanted, {len(value)} given")
        return self._struct.pack(*value) if self._struct else b"".join(map(self.item.pack, value))

    def unpack(self, data: bytes) -> list[Any]:
        if self._struct:
            return list(self._struct.unpack(data))
        step = self.item.size
        return [self.item.unpack(data[at : at + step]) for at in range(0, self.size, step)]


@attrs.frozen
class Struct:
    """`struct name { ... }` in C; a dict in Python. Fields keep the order in which they are given."""

    name: str
    fields: Mapping[str, Type] = attrs.field(hash=False)

    @functools.cached_property
    def offsets(self) -> dict[str, int]:
        """The byte offset of each field."""
        at, offsets = 0, {}
        for name, kind in self.fields.items():
            at = _align(at, kind.align)
            offsets[name] = at
            at += kind.size
        return offsets

    @functools.cached_property
    def align(self) -> int:
        return max(kind.align for kind in self.fields.values())

    @functools.cached_property
    def size(self) -> int:
        last = list(self.fields)[-1]
        return _align(self.offsets[last] + self.fields[last].size, self.align)

    @functools.cached_property
    def _flat(self) -> _Flat:
        return _Flat(self)

    def pack(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return _packed(value, self.size)
        if value.keys() != self.fields.keys():
            unknown, missing = sorted(set(value) - set(self.fields)), sorted(set(self.fields) - set(value))
            raise ValueError(f"struct {self.name}: unknown {unknown}, missing {missing}")
        return self._flat.pack(value)

    def unpack(self, data: bytes) -> dict[str, Any]:
        return self._flat.unpack(data)


class _Flat:
    """A struct as one format of the `struct` module: the integers in the host's byte order are its own, all other fields bytes."""

    def __init__(self, of: Struct) -> None:
        self._of = of
        self._names = tuple(of.fields)
        self._others = tuple((at, kind) for at, kind in enumerate(of.fields.values()) if not _native(kind))
        code, end = "=", 0
        for name, kind in of.fields.items():
            code += f"{of.offsets[name] - end}x" + (kind.code[1:] if _native(kind) else f"{kind.size}s")
            end = of.offsets[name] + kind.size
        self._struct = struct.Struct(f"{code}{of.size - end}x")

    def pack(self, value: Mapping[str, Any]) -> bytes:
        values = [value[name] for name in self._names]
        for at, kind in self._others:
            values[at] = kind.pack(values[at])
        try:
            return self._struct.pack(*values)
        except struct.error:
            # An integer does not fit, which its own type says better; or it is given as bytes.
            given = zip(self._of.fields.values(), values, strict=True)
            return self._struct.pack(*(kind.unpack(kind.pack(one)) if _native(kind) else one for kind, one in given))

    def unpack(self, data: bytes) -> dict[str, Any]:
        values = list(self._struct.unpack(data))
        for at, kind in self._others:
            values[at] = kind.unpack(values[at])
        return dict(zip(self._names, values, strict=True))


def _native(kind: Type) -> TypeGuard[Scalar]:
    return isinstance(kind, Scalar) and kind.code[0] == "="


def _align(at: int, to: int) -> int:
    return (at + to - 1) // to * to


class MapKind(enum.Enum):
    """The map kinds a function may declare, by bcc's name; the value is the kernel's `enum bpf_map_type`."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    RINGBUF = 27

    @property
    def per_cpu(self) -> bool:
        return self in {MapKind.PERCPU_HASH, MapKind.PERCPU_ARRAY, MapKind.LRU_PERCPU_HASH}

    @property
    def is_array(self) -> bool:
        return self in {MapKind.ARRAY, MapKind.PERCPU_ARRAY, MapKind.ARRAY_OF_MAPS}


class Role(enum.Enum):
    """What becomes of a map when its function is restarted or upgraded."""

    STATE = "state"
    """kept (pinned) as long as its schema fits: flow tables, windows"""
    CONFIG = "config"
    """made anew and written by the config handler"""
    STATS = "stats"
    """kept like state, and summed over CPUs for the metrics"""
    SCRATCH = "scratch"
    """made anew: what routines work on, and what programs remember for themselves. What is written to it is not taken back when an apply fails"""


class WhenFull(enum.Enum):
    """What happens to a new key when the map holds `capacity` of them."""

    EVICT = "evict"
    """the least recently used makes room"""
    REFUSE = "refuse"
    """the update fails; the function decides what that means for the packet"""
    FIXED = "fixed"
    """cannot happen: an array has all its keys"""


@attrs.frozen(kw_only=True)
class Map:
    """
    One map of a function.

    `name` is the name in C, `capacity` the number of entries (C says `BY_SCHEMA` for it), `flags` the kernel's `BPF_F_*` for creation,
    `inner` the declaration of the maps inside a map of maps. Maps of one `family` speak of each other's keys: when its name changes, all of them
    are made anew, so that none is kept beside another that is not.
    """

    name: str
    kind: MapKind
    key: Type
    value: Type
    capacity: int
    role: Role
    help: str
    flags: int = 0
    inner: Map | None = None
    family: str = ""

    @property
    def when_full(self) -> WhenFull:
        if self.kind.is_array:
            return WhenFull.FIXED
        if self.kind in {MapKind.LRU_HASH, MapKind.LRU_PERCPU_HASH}:
            return WhenFull.EVICT
        return WhenFull.REFUSE

    def __attrs_post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"map {self.name}: capacity must be at least 1, not {self.capacity}")
