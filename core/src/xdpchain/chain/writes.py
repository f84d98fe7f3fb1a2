# SPDX-License-Identifier: Apache-2.0
"""
Carrying out the writes of a function, in their order.

Writes to one map that follow each other go to the kernel together. Maps that nobody uses yet have no order among each other: what goes to
them is collected until a routine must see it.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Iterable, Mapping
from typing import Protocol

from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.routine import Routine
from xdpchain.chain.transaction import Transaction
from xdpchain.errors import PluginError
from xdpchain.function import Delete, Move, Put, PutMany, Run, Write
from xdpchain.schema import MapKind, Role

_MOST = 4096
"""How many writes are collected."""
_MOST_INNER = 256
"""How many inner maps are: each is held by a descriptor."""


def carry_out(
    plugin: str,
    method: str,
    writes: Iterable[Write],
    maps: Mapping[str, KernelMap],
    routines: Mapping[str, Routine],
    transaction: Transaction | None = None,
    fresh: Iterable[str] = (),
) -> None:
    """
    Carry out writes.

    Args:
        plugin: whose writes they are, and
        method: which method of it answered with them, for errors.
        writes: what to do.
        maps: the maps of the instance by name.
        routines: its routines by name.
        transaction: remembers what is overwritten; None where nothing will be taken back.
        fresh: names of the maps that nobody uses yet; what is overwritten there need not be remembered.

    Raises:
        PluginError: a write names a map or routine that is not there.
        KernelError: the kernel refuses, or a routine does not end.
    """
    new = {*fresh, *(name for name, one in maps.items() if one.schema.role is Role.SCRATCH)}
    collected: dict[str, _Collected] = {}
    last = ""
    for one in writes:
        if isinstance(one, Run):
            if one.entry not in routines:
                raise PluginError(plugin, f"{method}() runs {one.entry!r}, which is no routine of it", hint=_have("it has", routines))
            for pending in collected.values():
                pending.flush()
            routines[one.entry].run(one.most)
            continue
        if one.map != last and last not in new and last:
            collected[last].flush()
        last = one.map
        if last not in collected:
            if last not in maps:
                message = f"{method}() writes to map {last!r}, which its schema does not have"
                raise PluginError(plugin, message, hint=_have("its schema has", maps))
            kind = _Inners if maps[last].schema.inner else _Elements
            collected[last] = kind(maps[last], None if last in new else transaction)
        collected[last].add(one)
    for pending in collected.values():
        pending.flush()


def _have(who: str, names: Iterable[str]) -> str:
    return f"{who}: {', '.join(names) or 'none'}"


class _Collected(Protocol):
    """What is to be written to one map."""

    def __init__(self, target: KernelMap, transaction: Transaction | None) -> None: ...

    def add(self, one: Put | PutMany | Delete | Move) -> None: ...

    def flush(self) -> None: ...


class _Elements:
    """Writes to a map of plain values: puts are collected, the rest is done at once."""

    def __init__(self, target: KernelMap, transaction: Transaction | None) -> None:
        self._target = target
        self._transaction = transaction
        self._pack_key, self._pack = target.schema.key.pack, target.pack
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._what = f"write to {target.schema.name}"

    def add(self, one: Put | PutMany | Delete | Move) -> None:
        if isinstance(one, PutMany):
            self._add_many(one)
            return
        key = self._pack_key(one.key)
        if isinstance(one, Put) and not one.keep:
            self._keys.append(key)
            self._values.append(self._pack(one.value))
            if len(self._keys) >= _MOST:
                self.flush()
            return
        self.flush()
        if isinstance(one, Put):
            if self._target.put_raw(key, self._pack(one.value), keep=True):
                self._remember([key], [None])
        elif isinstance(one, Delete):
            self._remember([key], self._there([key]))
            self._target.delete_raw(key)
        else:
            raise TypeError(f"{one}: {self._target.schema.name} is no map of maps")

    def _add_many(self, many: PutMany) -> None:
        if len(many.keys) != len(many.values):
            raise ValueError(f"{len(many.keys)} keys and {len(many.values)} values for {many.map}")
        self._keys += self._target.pack_keys(many.keys)
        self._values += self._target.pack_values(many.values)
        if len(self._keys) >= _MOST:
            self.flush()

    def flush(self) -> None:
        if not self._keys:
            return
        self._remember(self._keys, self._there(self._keys))
        self._target.put_many_raw(self._keys, self._values)
        self._keys, self._values = [], []

    def _there(self, keys: list[bytes]) -> list[bytes | None]:
        """What stands at the keys; a look-up in a trie would answer with a shorter prefix."""
        if not self._transaction:
            return []
        if self._target.schema.kind is MapKind.LPM_TRIE:
            elements = dict(self._target.items_raw())
            return [elements.get(key) for key in keys]
        return self._target.get_many_raw(keys)

    def _remember(self, keys: list[bytes], before: list[bytes | None]) -> None:
        if self._transaction:
            self._transaction.undo(self._what, functools.partial(self._restore, keys, before))

    def _restore(self, keys: list[bytes], before: list[bytes | None]) -> None:
        """Bring elements back; what was not there goes first, for there may be room for no more."""
        for key, value in zip(keys, before, strict=True):
            if value is None:
                self._target.delete_raw(key)
        there = [(key, value) for key, value in zip(keys, before, strict=True) if value is not None]
        self._target.put_many_raw([key for key, _ in there], [value for _, value in there])


class _Inners:
    """
    Writes to a map of maps, as what shall stand at each key in the end; None: nothing.

    They take effect together: each single one would wait for the kernel as long as all of them.
    """

    def __init__(self, target: KernelMap, transaction: Transaction | None) -> None:
        self._target = target
        self._transaction = transaction
        self._inners: dict[bytes, KernelMap | None] = {}

    def add(self, one: Put | PutMany | Delete | Move) -> None:
        if isinstance(one, PutMany):
            for key, value in zip(one.keys, one.values, strict=True):
                self.add(Put(one.map, key, value))
            return
        key = self._target.schema.key.pack(one.key)
        if isinstance(one, Put):
            if not one.keep or self._at(key) is None:
                self._inners[key] = self._target.make_inner(one.value)
        elif isinstance(one, Delete):
            self._inners[key] = None
        else:
            inner, to = self._at(key), self._target.schema.key.pack(one.to)
            if inner is None:
                raise LookupError(f"{one}: nothing is there")
            self._inners[key] = None
            self._inners[to] = inner
        if len(self._inners) >= _MOST_INNER:
            self.flush()

    def _at(self, key: bytes) -> KernelMap | None:
        return self._inners[key] if key in self._inners else self._target.inner_raw(key)

    def flush(self) -> None:
        if not self._inners:
            return
        if self._transaction:
            _raise_limit()
            before = {key: self._target.inner_raw(key) for key in self._inners}
            self._transaction.undo(f"write to {self._target.schema.name}", functools.partial(self._target.put_inners, before))
        self._target.put_inners(self._inners)
        self._inners = {}


@functools.cache
def _raise_limit() -> None:
    """Allow as many descriptors as may be had: each inner map that an apply replaces is held by one until the apply is through."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
