# SPDX-License-Identifier: Apache-2.0
"""Maps of the kernel, read and written many elements at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.maps import KernelMap, possible_cpus
from xdpchain.errors import KernelError
from xdpchain.schema import Array, Map, MapKind, Role, Struct, Type, u8, u32, u64

ODD = Struct("odd", {"a": u8, "b": Array(u8, 4)})
"""Five bytes: the kernel pads it in per-CPU maps."""
ALL_KINDS = [MapKind.HASH, MapKind.LRU_HASH, MapKind.PERCPU_HASH, MapKind.ARRAY, MapKind.PERCPU_ARRAY]
HASHES = [kind for kind in ALL_KINDS if not kind.is_array]
ARRAYS = [kind for kind in ALL_KINDS if kind.is_array]


def make(kind: MapKind, value: Type, capacity: int, key: Type = u32, flags: int = 0) -> KernelMap:
    schema = Map(name="some", kind=kind, key=key, value=value, capacity=capacity, role=Role.STATE, help="", flags=flags)
    return KernelMap(Handle(libbpf.map_create(kind.value, "some", key.size, value.size, capacity, flags=flags)), schema)


def each(kind: MapKind, value: Any) -> Any:
    """What is read where `value` was written."""
    return [value] * possible_cpus() if kind.per_cpu else value


def odd(number: int) -> dict[str, Any]:
    return {"a": number % 256, "b": [number % 256, number // 256, 3, 4]}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_more_elements_than_a_batch_takes_are_written_and_read(kind: MapKind) -> None:
    one = make(kind, ODD, 9000 if kind.is_array else 20_000)  # an LRU map evicts before it is quite full
    one.put_many((key, odd(key)) for key in range(9000))

    assert {key: each(kind, odd(key)) for key in range(9000)} == dict(one.items())
    assert 9000 == len(one)
    assert [each(kind, odd(key)) for key in (8999, 0, 4096)] == one.get_many([8999, 0, 4096])


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_chunks_have_all_elements_as_they_are_in_c(kind: MapKind) -> None:
    one = make(kind, ODD, 9000 if kind.is_array else 20_000)
    one.put_many((key, odd(key)) for key in range(9000))
    found, most = dict[int, bytes](), 0
    for keys, values in one.chunks():
        count = len(keys) // 4
        size = len(values) // count
        most = max(most, count)
        found |= {u32.unpack(keys[4 * at : 4 * at + 4]): values[size * at : size * at + ODD.size] for at in range(count)}

    assert {key: ODD.pack(odd(key)) for key in range(9000)} == found
    assert most > 1000


@pytest.mark.parametrize("kind", HASHES)
def test_keys_that_are_not_there_have_no_value(kind: MapKind) -> None:
    one = make(kind, u64, 10)
    one.put(3, 4)

    assert [None, each(kind, 4), None] == one.get_many([1, 3, 5])
    assert [] == one.get_many([])


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_packed_keys_and_values_are_taken_as_they_are(kind: MapKind) -> None:
    one = make(kind, ODD, 300)
    one.put_many((u32.pack(key), ODD.pack(odd(key))) for key in range(200))
    one.put(u32.pack(200), ODD.pack(odd(200)))
    one.put_many([(201, ODD.pack(odd(201))), (u32.pack(202), odd(202))])

    assert [each(kind, odd(key)) for key in range(203)] == one.get_many(range(203))
    assert each(kind, odd(7)) == one.get(u32.pack(7))


@pytest.mark.parametrize("pair", [(b"123", 1), (1, b"1234"), (1, b"123456789")], ids=str)
@pytest.mark.parametrize(
    "write", [lambda one, pair: one.put(*pair), lambda one, pair: one.put_many([pair, (u32.pack(1), u64.pack(1))])], ids=["put", "put_many"]
)
def test_bytes_of_another_size_are_refused(write: Callable[[KernelMap, tuple[Any, Any]], object], pair: tuple[Any, Any]) -> None:
    one = make(MapKind.HASH, u64, 10)
    with pytest.raises(ValueError, match="bytes wanted"):
        write(one, pair)

    assert 0 == len(one)


def test_sizes_that_make_up_for_each_other_are_refused_too() -> None:
    one = make(MapKind.HASH, u64, 10)
    with pytest.raises(ValueError, match="8 bytes wanted, 7 given"):
        one.put_many([(1, bytes(7)), (2, bytes(9))])


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_blob_has_all_values_of_an_array_without_padding(kind: MapKind) -> None:
    one = make(kind, ODD, 5000)
    one.put_many((key, odd(key)) for key in range(5000))
    copies = possible_cpus() if kind.per_cpu else 1

    assert b"".join(ODD.pack(odd(key)) * copies for key in range(5000)) == one.blob()


def test_a_hash_has_no_blob() -> None:
    with pytest.raises(ValueError, match="no array"):
        make(MapKind.HASH, u32, 10).blob()


def test_values_that_are_larger_than_a_batch_go_one_by_one() -> None:
    one = make(MapKind.ARRAY, Array(u32, 300_000), 5)
    one.put_many((key, [key] * 300_000) for key in range(5))

    assert [0, 1, 2, 3, 4] == [value[299_999] for _, value in one.items()]
    assert 5 * 1_200_000 == len(one.blob())


def test_a_trie_is_written_and_read_without_batches() -> None:
    key = Struct("prefix", {"bits": u32, "address": Array(u8, 4)})
    one = make(MapKind.LPM_TRIE, u32, 100, key, flags=1)
    one.put_many(({"bits": 32, "address": [10, 0, 0, last]}, last) for last in range(50))

    assert 50 == len(one)
    assert set(range(50)) == {value for _, value in one.items()}


def test_a_full_map_is_named() -> None:
    with pytest.raises(KernelError, match="map some is full: 10 entries"):
        make(MapKind.HASH, u64, 10).put_many((key, key) for key in range(20))


def test_the_count_of_a_large_map_is_remembered_until_it_is_written_to() -> None:
    one = make(MapKind.HASH, u64, 100_000)
    other = KernelMap(one.handle, one.schema)
    one.put_many((key, key) for key in range(5000))
    before = len(one)
    other.delete(0)
    remembered = len(one)
    one.delete(1)

    assert [5000, 5000, 4998] == [before, remembered, len(one)]


def test_the_count_of_a_small_map_is_not_remembered() -> None:
    one = make(MapKind.HASH, u64, 100)
    other = KernelMap(one.handle, one.schema)
    before = len(one)
    other.put(0, 0)

    assert [0, 1] == [before, len(one)]


def test_an_empty_map_is_there() -> None:
    assert make(MapKind.HASH, u64, 100)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_map_is_let_go_when_nobody_has_it_any_more(kind: MapKind) -> None:
    one = make(kind, ODD, 10)
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one

        assert gone() is None, "no circle of references waits for the collector: the descriptor would stay open until then"
    finally:
        gc.enable()
