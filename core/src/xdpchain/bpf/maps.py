# SPDX-License-Identifier: Apache-2.0
"""Maps in the kernel, read and written with the types of their schema."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.errors import KernelError
from xdpchain.schema import Map, MapKind

_NO_BATCH = {errno.EINVAL, errno.EOPNOTSUPP, 524}  # 524 is the kernel's own ENOTSUPP
_BATCH = 4096


@functools.cache
def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the number of values of a per-CPU map."""
    last = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class KernelMap:
    """
    One map, by its schema; a `xdpchain.function.MapReader` that can write too.

    A value of a per-CPU map is a list with one value for each CPU; writing one single value writes it for all of them.
    """

    def __init__(self, handle: Handle, schema: Map) -> None:
        self.handle = handle
        self.schema = schema
        self._stride = (schema.value.size + 7) // 8 * 8
        self._value_bytes = self._stride * possible_cpus() if schema.kind.per_cpu else schema.value.size

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

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All elements; those that come or go meanwhile may or may not be among them."""
        for key, value in self.items_raw():
            yield self.schema.key.unpack(key), self._unpack(value)

    def __len__(self) -> int:
        return self.schema.capacity if self.schema.kind.is_array else sum(1 for _ in self.items_raw())

    def put(self, key: Any, value: Any, *, keep: bool = False) -> bool:
        """
        Write `value`; with `keep` only where there is none, and False tells that there was one.

        Raises:
            KernelError: the map is full (E2BIG), or the kernel refuses otherwise.
        """
        return self.put_raw(self.schema.key.pack(key), self.pack(value), keep=keep)

    def put_many(self, elements: Iterable[tuple[Any, Any]]) -> None:
        """Write many elements, in batches where the map's kind has them."""
        self.put_many_raw((self.schema.key.pack(key), self.pack(value)) for key, value in elements)

    def put_many_raw(self, elements: Iterable[tuple[bytes, bytes]]) -> None:
        """`put_many` for packed keys and values."""
        packed = list(elements)
        for at in range(0, len(packed), _BATCH):
            part = packed[at : at + _BATCH]
            try:
                libbpf.map_update_batch(self.fd, b"".join(k for k, _ in part), b"".join(v for _, v in part), len(part))
            except KernelError as error:
                if error.errno not in _NO_BATCH:
                    raise self._full(error.errno) from error
                for key, value in part:
                    self.put_raw(key, value)

    def delete(self, key: Any) -> bool:
        """Remove `key`; False where it was not there."""
        return self.delete_raw(self.schema.key.pack(key))

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

    def put_raw(self, key: bytes, value: bytes, *, keep: bool = False) -> bool:
        result = libbpf.map_update(self.fd, key, value, libbpf.BPF_NOEXIST if keep else libbpf.BPF_ANY)
        if result == -errno.EEXIST and keep:
            return False
        if result < 0:
            raise self._full(-result)
        return True

    def delete_raw(self, key: bytes) -> bool:
        if self.schema.kind.is_array:
            return self.put_raw(key, bytes(self._value_bytes))
        return libbpf.map_delete(self.fd, key)

    def keys_raw(self) -> Iterator[bytes]:
        """The keys, one by one; bounded, since a walk starts again when its key is deleted under it."""
        for seen, key in enumerate(libbpf.map_keys(self.fd, self.schema.key.size)):
            if seen >= self.schema.capacity:
                return
            yield key

    def items_raw(self) -> Iterator[tuple[bytes, bytes]]:
        if self.schema.kind is not MapKind.LPM_TRIE or self.schema.capacity > _BATCH:
            try:
                chunk = min(self.schema.capacity, _BATCH)
                yield from libbpf.map_lookup_batch(self.fd, self.schema.key.size, self._value_bytes, chunk)
            except KernelError as error:
                if error.errno not in _NO_BATCH:
                    raise
            else:
                return
        for key in self.keys_raw():
            value = self.get_raw(key)
            if value is not None:
                yield key, value

    def _full(self, code: int) -> KernelError:
        if code in {errno.E2BIG, errno.ENOSPC}:
            text = f"map {self.schema.name} is full: {self.schema.capacity} entries"
            return KernelError(text, errno=code, hint="raise the setting that sizes it, or configure less")
        return KernelError(f"cannot write to map {self.schema.name}: {os.strerror(code)}", errno=code)
