# SPDX-License-Identifier: Apache-2.0
"""The map schema against what the compiler saw, and the parser of BTF in between."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdpchain.bpf.btf import Btf
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.layout import check_schema, fingerprint, layout_of
from xdpchain.errors import SchemaError
from xdpchain.function import Hook
from xdpchain.schema import (
    Address,
    Array,
    Map,
    MapKind,
    Raw,
    Role,
    Struct,
    be16,
    be32,
    be64,
    ipv4,
    ipv6,
    s8,
    s16,
    s32,
    s64,
    u8,
    u16,
    u32,
    u64,
)

ENTRY = "int entry(struct xdp_md *ctx)\n{\n\treturn XDP_PASS;\n}\n"


def compiled(text):
    return Compiler(None).compile(Unit("demo", text + ENTRY, {"entry": Hook.XDP}))


def declare(name, kind, key, value, capacity=1024, **more):
    return Map(name=name, kind=kind, key=key, value=value, capacity=capacity, role=Role.STATE, help="", **more)


SOURCE = """
#include <linux/in6.h>
enum colour { RED, GREEN };
struct key { __be32 source; u16 port; u8 proto; u8 pad; };
struct inner { u16 x; s8 y; u8 z; };
struct value { u64 state; __be16 ports[3]; u8 mac[6]; struct in6_addr address; struct inner inner; enum colour colour; const s32 balance; };
struct bits { u32 low:3; u32 high:29; };
struct holed { u8 a; u32 b; };
struct locked { struct bpf_spin_lock lock; u32 n; };
BPF_TABLE("lru_hash", struct key, struct value, m_flows, 1);
BPF_TABLE("hash", u32, struct bits, m_bits, 1);
BPF_TABLE("hash", struct holed, u32, m_holed, 1);
BPF_TABLE("array", u32, struct locked, m_locked, 7);
BPF_F_TABLE("lpm_trie", struct key, u32, m_lpm, 1, BPF_F_NO_PREALLOC);
BPF_TABLE("array", u32, u64, m_template, 1);
BPF_HASH_OF_MAPS(m_outer, struct key, "m_template", 1);
BPF_ARRAY_OF_MAPS(m_list, "m_template", 1);
BPF_RINGBUF_OUTPUT(m_events, 1);
BPF_TABLE("prog", u32, u32, xc_next, 1);
"""
KEY = Struct("key", {"source": ipv4, "port": u16, "proto": u8, "pad": u8})
VALUE = Struct(
    "value",
    {
        "state": u64,
        "ports": Array(be16, 3),
        "mac": Raw(6),
        "address": ipv6,
        "inner": Struct("inner", {"x": u16, "y": s8, "z": u8}),
        "colour": u32,
        "balance": s32,
    },
)
TEMPLATE = declare("m_template", MapKind.ARRAY, u32, u64, 4)
DECLARED = {
    item.name: item
    for item in (
        declare("m_flows", MapKind.LRU_HASH, KEY, VALUE, 65536),
        declare("m_locked", MapKind.ARRAY, u32, Struct("locked", {"lock": u32, "n": u32}), 7),
        declare("m_lpm", MapKind.LPM_TRIE, KEY, u32, flags=1),
        declare("m_outer", MapKind.HASH_OF_MAPS, KEY, u32, inner=TEMPLATE),
        declare("m_list", MapKind.ARRAY_OF_MAPS, u32, u32, inner=TEMPLATE),
        declare("m_events", MapKind.RINGBUF, u32, u32, 1 << 20),
        declare("m_bits", MapKind.HASH, u32, Raw(4)),
    )
}


@pytest.fixture(scope="module")
def artifact():
    found = compiled(SOURCE)
    maps = {name: layout for name, layout in found.maps.items() if name != "m_holed"}
    return attrs.evolve(found, maps=maps), found


def differences(artifact, *changed):
    maps = {**DECLARED, **{item.name: item for item in changed}}
    with pytest.raises(SchemaError) as caught:
        check_schema("demo", list(maps.values()), artifact[0])
    return caught.value.details.splitlines()


def fields(declared, **changes):
    """A struct with fields replaced, or with None removed."""
    kept = {name: changes.get(name, kind) for name, kind in declared.fields.items()}
    return Struct(declared.name, {name: kind for name, kind in kept.items() if kind is not None})


def flows(value=VALUE, key=KEY, **more):
    return attrs.evolve(DECLARED["m_flows"], value=value, key=key, **more)


def test_a_schema_that_says_what_c_says_passes(artifact):
    check_schema("demo", list(DECLARED.values()), artifact[0])


def test_all_differences_are_told_together(artifact):
    with pytest.raises(SchemaError) as caught:
        check_schema("demo", [flows(value=u64)], artifact[0])

    assert "m_flows" in caught.value.details
    assert "map m_lpm: in C, but not declared" in caught.value.details.splitlines()
    assert "more)" in str(caught.value)
    assert "xc_next" not in caught.value.details


def test_a_map_that_c_lacks_is_told(artifact):
    assert differences(artifact, declare("m_gone", MapKind.HASH, u32, u32)) == ["map m_gone: declared, but not in C"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (flows(kind=MapKind.HASH), ["map m_flows: kind lru_hash in C, hash declared"]),
        (flows(key=fields(KEY, source=u32)), ["map m_flows: key.source: __be32 in C, u32 declared: the byte order differs"]),
        (flows(key=fields(KEY, port=be16)), ["map m_flows: key.port: u16 in C, be16 declared: the byte order differs"]),
        (flows(key=fields(KEY, proto=s8)), ["map m_flows: key.proto: u8 in C, s8 declared: one has a sign, the other not"]),
        (flows(key=u64), ["map m_flows: key: struct key in C, u64 declared"]),
        (
            flows(key=fields(KEY, pad=None)),
            ["map m_flows: key.pad: in struct key, but not declared"],
        ),
        (
            flows(key=Struct("key", {"source": ipv4, "port": u16, "pad": u8, "proto": u8})),
            ["map m_flows: key: the order is source, port, proto, pad in C, source, port, pad, proto declared"],
        ),
        (
            flows(key=Struct("key", {"source": ipv4, "ports": u16, "proto": u8, "pad": u8})),
            ["map m_flows: key.ports: declared, but not in struct key", "map m_flows: key.port: in struct key, but not declared"],
        ),
        (flows(value=fields(VALUE, balance=u32)), ["map m_flows: value.balance: s32 in C, u32 declared: one has a sign, the other not"]),
        (
            flows(value=fields(VALUE, ports=Array(be16, 2), mac=Raw(8))),
            [
                "map m_flows: value.ports: __be16[3] in C, of size 6; 4 declared",
                "map m_flows: value.ports: 3 items in C, 2 declared",
                "map m_flows: value.mac: at byte 14 in C, at byte 12 declared",
                "map m_flows: value.mac: u8[6] in C, of size 6; 8 declared",
            ],
        ),
        (
            flows(value=fields(VALUE, inner=Struct("inner", {"x": u16, "y": u16}))),
            [
                "map m_flows: value.inner.z: in struct inner, but not declared",
                "map m_flows: value.inner.y: s8 in C, of size 1; 2 declared",
            ],
        ),
        (attrs.evolve(DECLARED["m_locked"], capacity=8), ["map m_locked: capacity 7 in C, 8 declared; write BY_SCHEMA in C"]),
        (attrs.evolve(DECLARED["m_lpm"], flags=0), ["map m_lpm: flags 0x1 in C, but not declared"]),
        (
            attrs.evolve(DECLARED["m_bits"], value=Struct("bits", {"low": u32, "high": u32})),
            [
                "map m_bits: value: struct bits in C, of size 4; 8 declared",
                "map m_bits: value.low: a bit-field of 3 bits in C; give it a whole integer, and mask it",
                "map m_bits: value.high: a bit-field of 29 bits in C; give it a whole integer, and mask it",
            ],
        ),
        (
            attrs.evolve(DECLARED["m_outer"], key=fields(KEY, source=u32)),
            ["map m_outer: key.source: __be32 in C, u32 declared: the byte order differs"],
        ),
        (
            attrs.evolve(DECLARED["m_outer"], inner=attrs.evolve(DECLARED["m_locked"])),
            ["map m_outer: its maps are like m_template in C, like m_locked declared"],
        ),
        (
            attrs.evolve(DECLARED["m_list"], inner=attrs.evolve(TEMPLATE, value=u32)),
            ["map m_template: value: u64 in C, of size 8; 4 declared"],
        ),
    ],
)
def test_each_difference_is_named_with_its_place(artifact, changed, says):
    assert differences(artifact, changed) == says


@pytest.mark.parametrize("value", [fields(VALUE, ports=Raw(6)), fields(VALUE, mac=Array(u8, 6)), fields(VALUE, address=Raw(16))])
def test_bytes_may_be_declared_raw_or_as_an_array(artifact, value):
    check_schema("demo", [*DECLARED.values(), flows(value=value)], artifact[0])


def test_padding_in_a_key_is_told(artifact):
    holed = declare("m_holed", MapKind.HASH, Struct("holed", {"a": u8, "b": u32}), u32)

    with pytest.raises(SchemaError, match="struct holed has padding at byte 1, 2, 3"):
        check_schema("demo", [*DECLARED.values(), holed], artifact[1])


def test_without_btf_sizes_are_still_compared(artifact):
    bare = attrs.evolve(artifact[0], btf=b"")

    check_schema("demo", list(DECLARED.values()), bare)
    with pytest.raises(SchemaError, match="m_flows: key: size 8 in C, 4 declared"):
        check_schema("demo", list({**DECLARED, "m_flows": flows(key=u32)}.values()), bare)


def test_a_layout_knows_names_offsets_and_signs(artifact):
    layout = layout_of(artifact[0].btf, artifact[0].maps["m_flows"].btf_value_id)

    assert [(field.name, field.offset, str(field.layout)) for field in layout.fields] == [
        ("state", 0, "u64"),
        ("ports", 8, "__be16[3]"),
        ("mac", 14, "u8[6]"),
        ("address", 20, "struct in6_addr"),
        ("inner", 36, "struct inner"),
        ("colour", 40, "enum colour"),
        ("balance", 44, "s32"),
    ]
    assert layout.fields[-1].layout.signed


@pytest.mark.parametrize("blob", [b"", b"\x9f\xeb", b"\xeb\x9f" + bytes(30)])
def test_what_is_not_btf_is_a_value_error(blob):
    with pytest.raises(ValueError, match="BTF"):
        Btf(blob)


def test_a_fingerprint_changes_with_all_that_makes_a_map_another_one():
    changed = [
        DECLARED["m_flows"],
        flows(capacity=1),
        flows(kind=MapKind.HASH),
        flows(flags=2),
        flows(key=u64),
        flows(key=fields(KEY, port=be16)),
        flows(value=fields(VALUE, mac=Array(u8, 6))),
        flows(family="others"),
        flows(inner=TEMPLATE),
        flows(inner=attrs.evolve(TEMPLATE, capacity=9)),
    ]

    assert len({fingerprint(item) for item in changed}) == len(changed)
    assert all(len(fingerprint(item)) == 8 for item in changed)
    assert fingerprint(flows(role=Role.STATS, help="else")) == fingerprint(flows())


SCALARS = {u8: "u8", u16: "u16", u32: "u32", u64: "u64", s8: "s8", s16: "s16", s32: "s32", s64: "s64"} | {
    be16: "__be16",
    be32: "__be32",
    be64: "__be64",
}
LEAVES = st.sampled_from([*SCALARS, ipv4, ipv6]) | st.integers(1, 9).map(Raw)


def struct_of(kinds):
    return st.lists(kinds, min_size=1, max_size=5).map(lambda found: Struct("", {f"f{n}": kind for n, kind in enumerate(found)}))


TYPES = struct_of(LEAVES | st.builds(Array, LEAVES, st.integers(1, 4)) | struct_of(LEAVES))


def c_field(kind, name):
    """A field in C."""
    match kind:
        case Struct():
            return f"struct {{ {' '.join(c_field(inner, field) + ';' for field, inner in kind.fields.items())} }} {name}"
        case Array():
            return c_field(kind.item, f"{name}[{kind.length}]")
        case Raw():
            return f"u8 {name}[{kind.size}]"
    if isinstance(kind, Address):
        return f"{'__be32' if kind is ipv4 else 'struct in6_addr'} {name}"
    return f"{SCALARS[kind]} {name}"


@settings(max_examples=8, deadline=None)
@given(st.lists(TYPES, min_size=4, max_size=8))
def test_any_schema_written_down_in_c_has_the_offsets_that_the_schema_computes(types):
    source = "#include <linux/in6.h>\n"
    for number, kind in enumerate(types):
        source += f'struct v{number} {{ {c_field(kind, "field")}; }};\nBPF_TABLE("array", u32, struct v{number}, m{number}, 1);\n'
    declared = [declare(f"m{n}", MapKind.ARRAY, u32, Struct("", {"field": kind})) for n, kind in enumerate(types)]

    found = compiled(source)

    check_schema("demo", declared, found)
    btf = Btf(found.btf)
    for item in declared:
        types = btf.map_types(item.name)
        assert types
        _, value = types
        assert value.size == item.value.size
        assert {field.name: field.offset for field in value.fields[0].layout.fields} == item.value.fields["field"].offsets
