# SPDX-License-Identifier: Apache-2.0
"""An instance in the kernel: its artifact, its one set of maps, its routines."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from xdpchain.bpf import libbpf
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.layout import fingerprint
from xdpchain.bpf.loader import create_map, inner_maker, load_btf
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.pins import Pins, open_pin, pin_undoably, unpin
from xdpchain.chain.routine import Routine, load_routines
from xdpchain.chain.transaction import Transaction
from xdpchain.chain.writes import carry_out
from xdpchain.errors import PluginError, XdpchainError
from xdpchain.function import Hook, KernelFunction, NextHops, Write
from xdpchain.schema import Map, Role

_KEPT = {Role.STATE, Role.STATS}
_NO_HOPS: NextHops = {}


@attrs.frozen
class Instance:
    """One function with one config, its maps and routines. `code` fingerprints what needs a new generation when it changes."""

    name: str
    function: KernelFunction[Any]
    config: Any
    code: str
    artifact: Artifact
    maps: Mapping[str, KernelMap]
    routines: Mapping[str, Routine]
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
    name: str,
    function: KernelFunction[Any],
    config: Any,
    code: str,
    artifact: Artifact,
    pins: Pins | None,
    transaction: Transaction,
    hops: NextHops = _NO_HOPS,
) -> Instance:
    """
    Create an instance's maps, adopt the pinned ones whose schema fits, load its routines, and write its config.

    Without `pins` nothing is pinned or adopted.
    """
    with plugin_call(function, "maps"):
        schemas = tuple(function.maps(config))
    btf = load_btf(artifact)
    maps: dict[str, KernelMap] = {}
    pinned: list[Path] = []
    kept: set[str] = set()
    for schema in schemas:
        path = pins.map(name, schema.name, fingerprint(schema)) if pins and schema.role in _KEPT else None
        adopted = _adopt(path, schema, inner_maker(schema, artifact, btf)) if path else None
        maps[schema.name] = create_map(schema, artifact, btf=btf) if adopted is None else adopted
        if adopted is not None:
            kept.add(schema.name)
        elif path:
            pin_undoably(maps[schema.name].handle, path, transaction)
        if path:
            pinned.append(path)
    entries = [program.entry for program in function.programs if program.hook is Hook.ROUTINE]
    routines = load_routines(name, function.name, artifact, entries, {map_name: one.fd for map_name, one in maps.items()})
    with plugin_call(function, "configure"):
        writes: Iterable[Write] = function.configure_with_hops(None, config, maps, hops)
        if kept:
            # else nothing is lost when it raises half way: what it has written goes with the maps
            writes = list(writes)
        carry_out(function.name, "configure", writes, maps, routines, transaction, fresh=maps.keys() - kept)
    return Instance(name, function, config, code, artifact, maps, routines, tuple(pinned))


def writes_between(instance: Instance, config: Any, hops: NextHops = _NO_HOPS) -> Sequence[Write]:
    """What the config handler would write to lead a running instance to another config."""
    with plugin_call(instance.function, "configure"):
        return list(instance.function.configure_with_hops(instance.config, config, instance.maps, hops))


def write(instance: Instance, writes: Iterable[Write], transaction: Transaction | None, *, method: str = "configure") -> int:
    """Carry out writes of a running instance; returns how many. What they overwrite is remembered for the undo, if there may be one."""
    with plugin_call(instance.function, method):
        listed = list(writes)
        carry_out(instance.function.name, method, listed, instance.maps, instance.routines, transaction)
    return len(listed)


def _adopt(path: Path, schema: Map, new_inner: Callable[[], KernelMap] | None) -> KernelMap | None:
    """A pinned map, if there is one that the kernel itself says is of this schema's kind and sizes."""
    handle = open_pin(path)
    if handle is None:
        return None
    info = libbpf.map_info(handle.fd)
    found = (info.type, info.key_size, info.value_size, info.max_entries)
    if found != (schema.kind.value, schema.key.size, schema.value.size, schema.capacity):
        unpin(path)
        return None
    return KernelMap(handle, schema, new_inner)
