# SPDX-License-Identifier: Apache-2.0
"""Maps in the kernel, read and written with the types of their schema."""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.errors import KernelError
from xdpchain.schema import Map, MapKind, Type, u32

_NO_BATCH = {errno.EINVAL, errno.EOPNOTSUPP, 524}  # 524 is the kernel's own ENOTSUPP
_BATCH, _BATCH_BYTES = 4096, 4 << 20
"""What one batch call moves at most: elements and bytes."""
_LARGE, _REMEMBER_S = 65_536, 10.0
"""From which capacity on the count of a hash map's elements is remembered, and how long."""
_WAITING = 64
"""How many threads wait for the kernel at a time when inner maps are taken out."""


@functools.cache
def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the number of values of a per-CPU map."""
    last = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class KernelMap:
    """
    One map, by its schema; a `xdpchain.function.MapReader` that can write too.

    A value of a per-CPU map is a list with one value for each CPU; writing one single value writes it for all of them. A value of a map of
    maps is read as the id of the inner map, and written as its content. Keys and values may be given as bytes, packed already.
    """

    def __init__(self, handle: Handle, schema: Map, new_inner: Callable[[], KernelMap] | None = None) -> None:
        self.handle = handle
        self.schema = schema
        self._new_inner = new_inner
        self._stride = (schema.value.size + 7) // 8 * 8
        self._value_bytes = self._stride * possible_cpus() if schema.kind.per_cpu else schema.value.size
        self._chunk = max(1, min(schema.capacity, _BATCH, _BATCH_BYTES // (schema.key.size + self._value_bytes)))
        self._counted = (0, 0.0)

    @property
    def fd(self) -> int:
        return self.handle.fd

    @property
    def number(self) -> int:
        """The kernel's id of the map."""
        return int(libbpf.map_info(self.fd).id)

    def get(self, key: Any) -> Any | None:
        """The value at `key`, or None."""
        data = self.get_raw(self.schema.key.pack(key))
        return None if data is None else self._unpack(data)

    def get_many(self, keys: Sequence[Any]) -> list[Any | None]:
        """The values at `keys`, None where there is none."""
        found = self.get_many_raw(self.pack_keys(keys))
        return [None if data is None else self._unpack(data) for data in found]

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All elements; those that come or go meanwhile may or may not be among them."""
        for key, value in self.items_raw():
            yield self.schema.key.unpack(key), self._unpack(value)

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """
        All elements as they are in C, thousands at a time: keys one after the other, and their values.

        Those of per-CPU maps have a value for each CPU, padded to 8 bytes each.
        """
        for count, keys, values in self._chunks():
            yield bytes(memoryview(keys)[: count * self.schema.key.size]), bytes(memoryview(values)[: count * self._value_bytes])

    def blob(self) -> bytes:
        """
        All values of an array, as they are in C and without padding between them; of a per-CPU array each key has one for each CPU.

        Raises:
            ValueError: this is no array.
        """
        if not self.schema.kind.is_array:
            raise ValueError(f"map {self.schema.name} is no array")
        data = b"".join(values for _, values in self.chunks())
        if not self.schema.kind.per_cpu or self._stride == self.schema.value.size:
            return data
        return b"".join(data[at : at + self.schema.value.size] for at in range(0, len(data), self._stride))

    def inner(self, key: Any) -> KernelMap | None:
        """The inner map at `key` of a map of maps."""
        return self.inner_raw(self.schema.key.pack(key))

    def __len__(self) -> int:
        """How many elements there are; of a large hash map how many there were within the last ten seconds, for it must be read to be counted."""
        if self.schema.kind.is_array:
            return self.schema.capacity
        count, until = self._counted
        if time.monotonic() >= until:
            count = sum(count for count, _, _ in self._chunks())
            self._counted = count, time.monotonic() + (_REMEMBER_S if self.schema.capacity > _LARGE else 0)
        return count

    def __bool__(self) -> bool:
        """A map is there, also when nothing is in it."""
        return True

    def put(self, key: Any, value: Any, *, keep: bool = False) -> bool:
        """
        Write `value`; with `keep` only where there is none, and False tells that there was one.

        Raises:
            KernelError: the map is full (E2BIG), or the kernel refuses otherwise.
        """
        packed = self.schema.key.pack(key)
        if not self.schema.inner:
            return self.put_raw(packed, self.pack(value), keep=keep)
        if keep and self.get_raw(packed) is not None:
            return False
        self.put_inners({packed: self.make_inner(value)})
        return True

    def put_many(self, elements: Iterable[tuple[Any, Any]]) -> None:
        """Write many elements, in batches where the map's kind has them."""
        pairs = list(elements)
        if self.schema.inner:
            self.put_inners({self.schema.key.pack(key): self.make_inner(value) for key, value in pairs})
        elif pairs:
            self.put_many_raw(self.pack_keys([key for key, _ in pairs]), self.pack_values([value for _, value in pairs]))

    def delete(self, key: Any) -> bool:
        """Remove `key`; False where it was not there. What an array has at `key` becomes zero."""
        return self.delete_raw(self.schema.key.pack(key))

    def make_inner(self, content: Iterable[tuple[Any, Any]]) -> KernelMap:
        """A new map for inside this map of maps, with these elements. Nothing refers to it yet."""
        if self._new_inner is None:
            raise ValueError(f"map {self.schema.name} is no map of maps")
        inner = self._new_inner()
        inner.put_many(content)
        return inner

    def pack_keys(self, keys: Sequence[Any]) -> Sequence[bytes]:
        """The bytes of many keys."""
        return _packed(self.schema.key, keys)

    def pack_values(self, values: Sequence[Any]) -> Sequence[bytes]:
        """The bytes of many values, each for all CPUs where the map has one for each."""
        return [self.pack(value) for value in values] if self.schema.kind.per_cpu else _packed(self.schema.value, values)

    def pack(self, value: Any) -> bytes:
        """The bytes of a value, for all CPUs where the map has one for each."""
        if not self.schema.kind.per_cpu:
            return self.schema.value.pack(value)
        values = value if isinstance(value, list) else [value] * possible_cpus()
        return b"".join(self.schema.value.pack(one).ljust(self._stride, b"\0") for one in values)

    def _unpack(self, data: bytes) -> Any:
        kind = self.schema.value
        if not self.schema.kind.per_cpu:
            return kind.unpack(data)
        return [kind.unpack(data[at : at + kind.size]) for at in range(0, len(data), self._stride)]

    def get_raw(self, key: bytes) -> bytes | None:
        return libbpf.map_lookup(self.fd, key, self._value_bytes)

    def get_many_raw(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return libbpf.map_lookup_many(self.fd, keys, self._value_bytes)

    def put_raw(self, key: bytes, value: bytes, *, keep: bool = False) -> bool:
        self._counted = 0, 0.0
        result = libbpf.map_update(self.fd, key, value, libbpf.BPF_NOEXIST if keep else libbpf.BPF_ANY)
        if result == -errno.EEXIST and keep:
            return False
        if result < 0:
            raise self._full(-result)
        return True

    def put_many_raw(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Write packed elements, in this order."""
        self._counted = 0, 0.0
        if len(keys) == 1:
            self.put_raw(keys[0], values[0])
            return
        for at in range(0, len(keys), self._chunk):
            some, theirs = keys[at : at + self._chunk], values[at : at + self._chunk]
            try:
                libbpf.map_update_batch(self.fd, b"".join(some), b"".join(theirs), len(some))
            except KernelError as error:
                if error.errno not in _NO_BATCH:
                    raise self._full(error.errno) from error
                for key, value in zip(some, theirs, strict=True):
                    self.put_raw(key, value)

    def delete_raw(self, key: bytes) -> bool:
        self._counted = 0, 0.0
        if self.schema.kind.is_array and not self.schema.inner:
            return self.put_raw(key, bytes(self._value_bytes))
        return libbpf.map_delete(self.fd, key)

    def inner_raw(self, key: bytes) -> KernelMap | None:
        while True:
            number = self.get_raw(key)
            if number is None or self.schema.inner is None:
                return None
            try:
                return KernelMap(Handle(libbpf.map_by_id(u32.unpack(number))), self.schema.inner)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise  # else another one has just taken its place

    def put_inners(self, inners: Mapping[bytes, KernelMap | None]) -> None:
        """
        Put maps into this map of maps, and take out what is at keys with None.

        The kernel lets each such call wait until no CPU can be in the old inner map any more (some 10 ms): so all is put in by one call, and
        taken out by others at the same time.
        """
        put = {key: u32.pack(inner.fd) for key, inner in inners.items() if inner is not None}
        gone = [key for key, inner in inners.items() if inner is None]
        if not gone:
            self.put_many_raw(list(put), list(put.values()))
            return
        with ThreadPoolExecutor(min(len(gone) + 1, _WAITING)) as pool:
            jobs: list[Future[Any]] = [pool.submit(self.put_many_raw, list(put), list(put.values()))]
            jobs += [pool.submit(self.delete_raw, key) for key in gone]
        for job in jobs:
            job.result()

    def keys_raw(self) -> Iterator[bytes]:
        """The keys, one by one; bounded, since a walk starts again when its key is deleted under it."""
        for seen, key in enumerate(libbpf.map_keys(self.fd, self.schema.key.size)):
            if seen >= self.schema.capacity:
                return
            yield key

    def items_raw(self) -> Iterator[tuple[bytes, bytes]]:
        key_bytes, value_bytes = self.schema.key.size, self._value_bytes
        for key_data, value_data in self.chunks():
            for at in range(len(key_data) // key_bytes):
                yield key_data[at * key_bytes : (at + 1) * key_bytes], value_data[at * value_bytes : (at + 1) * value_bytes]

    def _chunks(self) -> Iterator[libbpf.Chunk]:
        """All elements, many at a time where the map's kind has batches."""
        if self.schema.kind is not MapKind.LPM_TRIE or self.schema.capacity > _BATCH:
            try:
                yield from libbpf.map_lookup_chunks(self.fd, self.schema.key.size, self._value_bytes, self._chunk)
            except KernelError as error:
                if error.errno not in _NO_BATCH:
                    raise
            else:
                return
        for key in self.keys_raw():
            value = self.get_raw(key)
            if value is not None:
                yield 1, key, value

    def _full(self, code: int) -> KernelError:
        if code in {errno.E2BIG, errno.ENOSPC}:
            text = f"map {self.schema.name} is full: {self.schema.capacity} entries"
            return KernelError(text, errno=code, hint="raise the setting that sizes it, or configure less")
        return KernelError(f"cannot write to map {self.schema.name}: {os.strerror(code)}", errno=code)


def _packed(kind: Type, values: Sequence[Any]) -> Sequence[bytes]:
    """Many values of one type in C."""
    if set(map(type, values)) == {bytes} and set(map(len, values)) == {kind.size}:
        return values
    return [kind.pack(value) for value in values]
