# SPDX-License-Identifier: Apache-2.0
"""What clients are shown, as plain data: snapshots, plugins, tables, maps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from xdpchain.chain.model import InstanceStatus, PlaceStatus, Snapshot
from xdpchain.daemon.wire import error_data
from xdpchain.function import Hook, MapReader, Table
from xdpchain.plugins import Plugins


def snapshot_data(snapshot: Snapshot, warnings: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """What runs and what it counted; `warnings` by instance, None where there is nobody to ask."""
    return {
        "places": [_place_data(place) for place in snapshot.places],
        "instances": [_instance_data(instance, warnings) for instance in snapshot.instances],
        "waiting": list(snapshot.waiting),
        "blocked": dict(snapshot.blocked),
    }


def _instance_data(instance: InstanceStatus, warnings: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
    more = {} if warnings is None else {"warnings": list(warnings.get(instance.name, ()))}
    return {**attrs.asdict(instance), **more}


def _place_data(place: PlaceStatus) -> dict[str, Any]:
    hops = [
        {
            "instance": hop.instance,
            "program_id": hop.program_id,
            "counts": [{**attrs.asdict(count), "verdict": count.verdict.name} for count in hop.counts],
        }
        for hop in place.hops
    ]
    return {
        "interface": place.interface,
        "index": place.place.interface,
        "hook": place.place.hook.value,
        "program": place.place.program,
        "mode": place.mode,
        "generation": place.generation,
        "on_error": place.on_error,
        "in_kernel": list(place.in_kernel),
        "broken": place.broken,
        "hops": hops,
    }


def plugins_data(plugins: Plugins) -> dict[str, Any]:
    """Which plugins there are, what they bring, and what is wrong with the broken ones."""
    loaded = [
        {
            "name": plugin.name,
            "dist": plugin.dist,
            "version": plugin.version,
            "functions": [_function_data(plugins.functions[name]) for name in plugin.functions],
        }
        for plugin in plugins.loaded
    ]
    broken = [{"name": plugin.name, "dist": plugin.dist, "error": error_data(plugin.error)} for plugin in plugins.broken]
    return {"loaded": loaded, "broken": broken}


def _function_data(function: Any) -> dict[str, Any]:
    return {
        "name": function.name,
        "summary": function.summary,
        "hooks": sorted({program.hook.value for program in function.programs} - {Hook.ROUTINE.value}),
        "reasons": {reason.name: reason.help for reason in function.reasons},
    }


def tables_data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """What a function says about itself."""
    return [{"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]} for table in tables]


def map_data(reader: MapReader, limit: int) -> dict[str, Any]:
    """The first `limit` elements of a map, and how many there are."""
    schema = reader.schema
    elements = [{"key": key, "value": value} for key, value in itertools.islice(reader.items(), limit)]
    return {
        "map": schema.name,
        "help": schema.help,
        "kind": schema.kind.name.lower(),
        "role": schema.role.value,
        "when_full": schema.when_full.value,
        "entries": len(reader),
        "capacity": schema.capacity,
        "elements": elements,
    }
