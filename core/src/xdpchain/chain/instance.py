# SPDX-License-Identifier: Apache-2.0
"""An instance in the kernel: its artifact and its one set of maps."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from xdpchain.bpf import libbpf
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.layout import fingerprint
from xdpchain.bpf.loader import create_map, load_btf
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.pins import Pins, open_pin, pin_undoably, unpin
from xdpchain.chain.transaction import Transaction
from xdpchain.errors import PluginError, XdpchainError
from xdpchain.function import Delete, KernelFunction, Put, Write
from xdpchain.schema import Map, Role


@attrs.frozen
class Instance:
    """One function with one config, and its maps. `code` fingerprints what needs a new generation when it changes."""

    name: str
    function: KernelFunction[Any]
    config: Any
    code: str
    artifact: Artifact
    maps: Mapping[str, KernelMap]
    pins: tuple[Path, ...]


@contextlib.contextmanager
def plugin_call(function: KernelFunction[Any], method: str) -> Iterator[None]:
    """Turn whatever a plugin's method raises into a `PluginError` that names both."""
    try:
        yield
    except XdpchainError:
        raise
    except (Exception, SystemExit) as error:
        message = f"{method}() raised {type(error).__name__}: {error}"
        hint = "this is a defect of the plugin; nothing was changed"
        raise PluginError(function.name, message, details=traceback.format_exc(), hint=hint) from error


def make_instance(
    name: str, function: KernelFunction[Any], config: Any, code: str, artifact: Artifact, pins: Pins | None, transaction: Transaction
) -> Instance:
    """
    Create an instance's maps, adopt the pinned ones whose schema fits, and write its config.

    Without `pins` nothing is pinned or adopted.
    """
    with plugin_call(function, "maps"):
        schemas = tuple(function.maps(config))
    btf = load_btf(artifact)
    maps: dict[str, KernelMap] = {}
    pinned: list[Path] = []
    kept: set[str] = set()
    for schema in schemas:
        path = pins.map(name, schema.name, fingerprint(schema)) if pins and schema.role is not Role.CONFIG else None
        adopted = _adopt(path, schema) if path else None
        maps[schema.name] = create_map(schema, artifact, btf=btf) if adopted is None else adopted
        if adopted is not None:
            kept.add(schema.name)
        elif path:
            pin_undoably(maps[schema.name].handle, path, transaction)
        if path:
            pinned.append(path)
    with plugin_call(function, "configure"):
        writes = list(function.configure(None, config, maps))
    write(function, maps, writes, transaction, fresh=maps.keys() - kept)
    return Instance(name, function, config, code, artifact, maps, tuple(pinned))


def writes_between(instance: Instance, config: Any) -> Sequence[Write]:
    """What the config handler would write to lead a running instance to another config."""
    with plugin_call(instance.function, "configure"):
        return list(instance.function.configure(instance.config, config, instance.maps))


def write(
    function: KernelFunction[Any],
    maps: Mapping[str, KernelMap],
    writes: Iterable[Write],
    transaction: Transaction,
    *,
    fresh: Iterable[str] = (),
) -> None:
    """Carry out writes in order. What they overwrite is remembered for the undo, except in `fresh` maps, which nobody uses yet."""
    new = set(fresh)
    batch: list[tuple[Any, Any]] = []
    last = ""

    def flush() -> None:
        if batch:
            maps[last].put_many(batch)
            batch.clear()

    with plugin_call(function, "configure"):
        for one in writes:
            if one.map not in maps:
                message = f"configure() writes to map {one.map!r}, which its schema does not have"
                raise PluginError(function.name, message, hint=f"its schema has: {', '.join(maps) or 'no maps'}")
            if one.map != last:
                flush()
                last = one.map
            if one.map in new and isinstance(one, Put) and not one.keep:
                batch.append((one.key, one.value))
                continue
            flush()
            _write_one(maps[one.map], one, transaction)
        flush()


def _write_one(target: KernelMap, one: Write, transaction: Transaction) -> None:
    key = target.schema.key.pack(one.key)
    before = target.get_raw(key)
    what = f"write to {target.schema.name}"
    if isinstance(one, Delete):
        if before is not None:
            target.delete_raw(key)
            transaction.undo(what, lambda: target.put_raw(key, before))
        return
    if one.keep and before is not None:
        return
    target.put_raw(key, target.pack(one.value), keep=one.keep)
    if before is None:
        transaction.undo(what, lambda: target.delete_raw(key))
    else:
        transaction.undo(what, lambda: target.put_raw(key, before))


def _adopt(path: Path, schema: Map) -> KernelMap | None:
    """A pinned map, if there is one that the kernel itself says is of this schema's kind and sizes."""
    handle = open_pin(path)
    if handle is None:
        return None
    info = libbpf.map_info(handle.fd)
    found = (info.type, info.key_size, info.value_size, info.max_entries)
    if found != (schema.kind.value, schema.key.size, schema.value.size, schema.capacity):
        unpin(path)
        return None
    return KernelMap(handle, schema)
