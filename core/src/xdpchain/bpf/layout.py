# SPDX-License-Identifier: Apache-2.0
"""
Does the map schema in Python say what the C source says?

The declaration decides how bytes are read and written, so every difference from what the compiler saw is an error, and all are told together.
"""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator, Sequence

from xdpchain import schema
from xdpchain.bpf.artifact import Artifact, MapLayout
from xdpchain.bpf.btf import Btf, Field, Layout
from xdpchain.errors import SchemaError
from xdpchain.schema import MapKind

CORE_PREFIX = "xc_"
"""Names of the core's own maps, which no function declares."""

BY_SCHEMA = 1
"""The capacity in C when the schema says it; of a ring buffer, whose size in C is in pages, one page."""

_MAPS_OF_MAPS = {MapKind.ARRAY_OF_MAPS, MapKind.HASH_OF_MAPS}
_KIND_NAMES = {kind.value: kind.name.lower() for kind in MapKind}
_BIG_ENDIAN = "__be"


def check_schema(owner: str, maps: Sequence[schema.Map], artifact: Artifact) -> None:
    """
    Compare the declared maps of a function with the compiled ones.

    Raises:
        SchemaError: with every difference in `details`, one per line.
    """
    differences = list(_differences(maps, artifact))
    if not differences:
        return
    first = differences[0] + (f" (and {len(differences) - 1} more)" if len(differences) > 1 else "")
    raise SchemaError(
        owner,
        f"its map schema and its C source differ: {first}",
        hint="make the declaration in Python and the one in C say the same",
        details="\n".join(differences),
    )


def fingerprint(declared: schema.Map) -> str:
    """Eight hex digits that two declarations share only when one may go on with the other's map: kind, capacity, flags, key, value, inner, family."""
    parts = [declared.kind.name, str(declared.capacity), str(declared.flags), _canonical(declared.key), _canonical(declared.value)]
    parts += [declared.family] if declared.family else []
    if declared.inner:
        parts.append(fingerprint(declared.inner))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def layout_of(btf: Btf | bytes, type_id: int) -> Layout:
    """The layout of a type of an artifact's BTF."""
    return (btf if isinstance(btf, Btf) else Btf(btf)).layout(type_id)


def _differences(maps: Sequence[schema.Map], artifact: Artifact) -> Iterator[str]:
    declared = {item.name: item for outer in maps for item in (outer, outer.inner) if item}
    btf = Btf(artifact.btf) if artifact.btf else None
    for name in artifact.maps:
        if name not in declared and not name.startswith(CORE_PREFIX):
            yield f"map {name}: in C, but not declared"
    for name, item in declared.items():
        compiled = artifact.maps.get(name)
        if compiled is None:
            yield f"map {name}: declared, but not in C"
        else:
            yield from (f"map {name}: {difference}" for difference in _map_differences(item, compiled, btf))


def _map_differences(declared: schema.Map, compiled: MapLayout, btf: Btf | None) -> Iterator[str]:
    if declared.kind.value != compiled.kind:
        yield f"kind {_KIND_NAMES.get(compiled.kind, compiled.kind)} in C, {declared.kind.name.lower()} declared"
        return
    by_schema = resource.getpagesize() if declared.kind is MapKind.RINGBUF else BY_SCHEMA
    if compiled.capacity not in {by_schema, declared.capacity}:
        yield f"capacity {compiled.capacity} in C, {declared.capacity} declared; write BY_SCHEMA in C"
    if missing := compiled.flags & ~declared.flags:
        yield f"flags {missing:#x} in C, but not declared"
    if declared.inner and declared.inner.name != compiled.inner:
        yield f"its maps are like {compiled.inner} in C, like {declared.inner.name} declared"
    if declared.kind is MapKind.RINGBUF:
        return
    types = btf.map_types(declared.name) if btf else None
    yield from _side("key", declared.key, compiled.key_size, types[0] if types else None, index=declared.kind.is_array)
    if types and (holes := set(range(types[0].size)) - _named_bytes(types[0])):
        where = ", ".join(map(str, sorted(holes)))
        yield f"key: {types[0]} has padding at byte {where}: C leaves it undefined, and a hash looks at every byte; name it"
    if declared.kind not in _MAPS_OF_MAPS:
        yield from _side("value", declared.value, compiled.value_size, types[1] if types else None)


def _side(side: str, declared: schema.Type, size: int, compiled: Layout | None, *, index: bool = False) -> Iterator[str]:
    """Key or value. The index of an array has no sign; without BTF only the size can be compared."""
    if compiled is None or index:
        if declared.size != size:
            yield f"{side}: size {size} in C, {declared.size} declared"
    else:
        yield from compare(declared, compiled, side)


def compare(declared: schema.Type, compiled: Layout, where: str) -> Iterator[str]:
    """The differences between a type of the schema and a type in C; `where` names the place (`value.source`)."""
    if declared.size != compiled.size:
        yield f"{where}: {compiled} in C, of size {compiled.size}; {declared.size} declared"
    if isinstance(declared, schema.Struct):
        if compiled.kind == "struct":
            yield from _compare_fields(declared, compiled, where)
        else:
            yield f"{where}: {compiled} in C, struct {declared.name} declared"
    elif isinstance(declared, schema.Array):
        if compiled.item is None:
            yield f"{where}: {compiled} in C, an array of {declared.length} declared"
        elif compiled.length != declared.length:
            yield f"{where}: {compiled.length} items in C, {declared.length} declared"
        else:
            yield from compare(declared.item, compiled.item, f"{where}[]")
    elif isinstance(declared, schema.Scalar) and declared.size == compiled.size:
        yield from _compare_scalar(declared, _sole_member(compiled), where)


def _compare_fields(declared: schema.Struct, compiled: Layout, where: str) -> Iterator[str]:
    in_c = {field.name: field for field in compiled.fields}
    for name in declared.fields:
        if name not in in_c:
            yield f"{where}.{name}: declared, but not in {compiled}"
    for name in in_c:
        if name not in declared.fields:
            yield f"{where}.{name}: in {compiled}, but not declared"
    if set(in_c) == set(declared.fields) and list(in_c) != list(declared.fields):
        yield f"{where}: the order is {', '.join(in_c)} in C, {', '.join(declared.fields)} declared"
        return
    for name, offset in declared.offsets.items():
        if name in in_c:
            yield from _compare_field(declared.fields[name], offset, in_c[name], f"{where}.{name}")


def _compare_field(declared: schema.Type, offset: int, compiled: Field, where: str) -> Iterator[str]:
    if compiled.bits:
        yield f"{where}: a bit-field of {compiled.bits} bits in C; give it a whole integer, and mask it"
        return
    if compiled.offset != offset:
        yield f"{where}: at byte {compiled.offset} in C, at byte {offset} declared"
    yield from compare(declared, compiled.layout, where)


def _compare_scalar(declared: schema.Scalar, compiled: Layout, where: str) -> Iterator[str]:
    if compiled.kind not in {"int", "enum"}:
        yield f"{where}: {compiled} in C, {declared.name} declared"
        return
    big_endian = compiled.name.startswith(_BIG_ENDIAN)
    if big_endian != declared.code.startswith(">"):
        yield f"{where}: {compiled} in C, {declared.name} declared: the byte order differs"
    elif compiled.kind == "int" and compiled.signed != declared.code[-1].islower():
        yield f"{where}: {compiled} in C, {declared.name} declared: one has a sign, the other not"


def _named_bytes(compiled: Layout, at: int = 0) -> set[int]:
    """The bytes of a type that belong to some field."""
    if compiled.kind == "struct":
        return {byte for field in compiled.fields for byte in _named_bytes(field.layout, at + field.offset)}
    return set(range(at, at + compiled.size))


def _sole_member(compiled: Layout) -> Layout:
    """A struct around one integer, such as `struct bpf_spin_lock`, is that integer."""
    while len(compiled.fields) == 1 and compiled.fields[0].layout.size == compiled.size:
        compiled = compiled.fields[0].layout
    return compiled


def _canonical(declared: schema.Type) -> str:
    if isinstance(declared, schema.Struct):
        fields = (f"{name}@{declared.offsets[name]}:{_canonical(kind)}" for name, kind in declared.fields.items())
        return f"{{{','.join(fields)}}}{declared.size}"
    if isinstance(declared, schema.Array):
        return f"{_canonical(declared.item)}[{declared.length}]"
    name = declared.name if isinstance(declared, schema.Scalar) else type(declared).__name__
    return f"{name}:{declared.size}"
