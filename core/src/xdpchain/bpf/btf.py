# SPDX-License-Identifier: Apache-2.0
"""
BTF, the kernel's type information: from the blob that the compiler made to layouts that can be compared.

The format is described in the kernel's Documentation/bpf/btf.rst. Only what a map's key and value can be made of is kept.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

import attrs

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_ARRAY = struct.Struct("=III")
_MAP_PREFIX = "____btf_map_"


class _Kind(enum.IntEnum):
    """`BTF_KIND_*` of linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FORWARD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_TRAILER = {_Kind.INT: 4, _Kind.ARRAY: 12, _Kind.VAR: 4, _Kind.DECL_TAG: 4}
"""Bytes behind a type's head, where the number is fixed."""
_TRAILER_EACH = {_Kind.STRUCT: 12, _Kind.UNION: 12, _Kind.ENUM: 8, _Kind.FUNC_PROTO: 8, _Kind.DATASEC: 12, _Kind.ENUM64: 12}
"""Bytes behind a type's head for each of its members."""


@attrs.frozen
class Field:
    """A member of a struct or union: `offset` in bytes, `bits` its width if it is a bit-field, else 0."""

    name: str
    offset: int
    layout: Layout
    bits: int = 0


@attrs.frozen
class Layout:
    """
    A type as it lies in memory. `kind` is "int", "enum", "pointer", "array", "struct", "union" or "void".

    `name` is the outermost name in C (`__be16`, `u32`, `flow_key`), "" if it has none; `size` is in bytes. Arrays have `item` and `length`.
    """

    kind: str
    name: str
    size: int
    signed: bool = False
    fields: tuple[Field, ...] = ()
    item: Layout | None = None
    length: int = 0

    def __str__(self) -> str:
        if self.item is not None:
            return f"{self.item}[{self.length}]"
        prefix = f"{self.kind} " if self.kind in {"struct", "union", "enum"} else ""
        return prefix + (self.name or ("*" if self.kind == "pointer" else "{...}"))


class _Type(NamedTuple):
    kind: _Kind
    name: str
    size: int
    """in bytes; of a typedef or qualifier the id of the type that it stands for"""
    flag: bool
    trailer: bytes


class Btf:
    """
    The types of a BTF blob; type 0 is void.

    Raises:
        ValueError: this is not BTF.
    """

    def __init__(self, blob: bytes) -> None:
        try:
            magic, _, _, header, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(blob)
            if magic != _MAGIC:
                raise ValueError("not BTF of this machine's byte order")
            self._strings = blob[header + strings_at : header + strings_at + strings_size]
            section = blob[header + types_at : header + types_at + types_size]
            self._types = [_Type(_Kind.VOID, "void", 0, flag=False, trailer=b""), *self._parse(section)]
        except struct.error as error:
            raise ValueError(f"not BTF: {error!r}") from error

    def layout(self, type_id: int) -> Layout:
        """The layout of a type, with typedefs and qualifiers resolved."""
        found = self._types[type_id]
        match found.kind:
            case _Kind.TYPEDEF:
                target = self.layout(found.size)
                # The name of an integer tells its byte order; a struct is known by its own name.
                return target if target.fields else attrs.evolve(target, name=found.name)
            case _Kind.VOLATILE | _Kind.CONST | _Kind.RESTRICT | _Kind.TYPE_TAG:
                return self.layout(found.size)
            case _Kind.INT:
                (encoding,) = struct.unpack("=I", found.trailer)
                return Layout("int", found.name, found.size, signed=bool(encoding >> 24 & 1))
            case _Kind.ENUM | _Kind.ENUM64:
                return Layout("enum", found.name, found.size, signed=found.flag)
            case _Kind.ARRAY:
                item_id, _, length = _ARRAY.unpack(found.trailer)
                item = self.layout(item_id)
                return Layout("array", "", item.size * length, item=item, length=length)
            case _Kind.STRUCT | _Kind.UNION:
                return Layout(found.kind.name.lower(), found.name, found.size, fields=tuple(self._fields(found)))
            case _Kind.PTR:
                return Layout("pointer", "", 8)
            case _:
                return Layout("void", found.name, 0)

    def map_types(self, name: str) -> tuple[Layout, Layout] | None:
        """Key and value of a map: bcc describes each by `struct ____btf_map_NAME { key; value; }`, whether or not the kernel asks for it."""
        for number, found in enumerate(self._types):
            if found.kind is _Kind.STRUCT and found.name == _MAP_PREFIX + name:
                key, value = self.layout(number).fields
                return key.layout, value.layout
        return None

    def _fields(self, found: _Type) -> Iterator[Field]:
        for name, type_id, where in _MEMBER.iter_unpack(found.trailer):
            bits, offset = (where >> 24, where & 0xFFFFFF) if found.flag else (0, where)
            yield Field(self._name(name), offset // 8, self.layout(type_id), bits)

    def _parse(self, section: bytes) -> Iterator[_Type]:
        at = 0
        while at < len(section):
            name, info, size = _TYPE.unpack_from(section, at)
            at += _TYPE.size
            kind, members = _Kind(info >> 24 & 0x1F), info & 0xFFFF
            trailer = _TRAILER.get(kind, 0) + _TRAILER_EACH.get(kind, 0) * members
            yield _Type(kind, self._name(name), size, bool(info >> 31), section[at : at + trailer])
            at += trailer

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()
