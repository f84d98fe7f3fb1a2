# SPDX-License-Identifier: Apache-2.0
"""`xdpchain show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xdpchain.cli.options import json_option, socket_option

_ROWS = 100


class _Seconds(click.ParamType[float]):
    """A duration as config files write it, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from xdpchain.config.values import UNITS_NS, duration

        try:
            return duration(value) / UNITS_NS["s"]
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("instance")
@click.argument("map_name", metavar="[MAP]", required=False)
@click.option("--limit", type=click.IntRange(min=0), default=_ROWS, show_default=True, help="Elements of a map to print.")
@click.option("--rates-over", type=_Seconds(), default="1s", show_default=True, help="How long to count for rates, at most 60s.")
@click.option("--no-rates", is_flag=True, help="Print counters without their rates, at once.")
@socket_option
@json_option
def show(instance: str, map_name: str | None, limit: int, rates_over: float, socket: Path, *, no_rates: bool, as_json: bool) -> None:
    """Print what a running instance says about itself, with rates, or the contents of one of its maps."""
    from xdpchain.cli.client import call
    from xdpchain.cli.render import print_json

    data = call("show", socket=socket, instance=instance, map=map_name, limit=limit, seconds=0 if no_rates else rates_over)
    if as_json:
        print_json(data)
    elif map_name:
        _show_map(data)
    else:
        _show_instance(data)


def _show_instance(data: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import columns

    click.echo(f"{click.style(data['instance'], bold=True)}: {data['function']}, {data['summary']}")
    for table in data["tables"]:
        click.echo(f"\n{table['title']}" if table["title"] else "")
        click.echo(columns([name.upper() for name in table["columns"]], table["rows"]))
    if data["maps"]:
        rows = [(name, one["entries"], one["capacity"], one["help"]) for name, one in data["maps"].items()]
        click.echo("\n" + columns(("MAP", "ENTRIES", "CAPACITY", "HOLDS"), rows))


def _show_map(data: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import columns

    click.echo(f"{click.style(data['map'], bold=True)}: {data['help']} ({data['kind']}, {data['role']}, when full: {data['when_full']})")
    elements = data["elements"]
    click.echo(columns([*_names("KEY", elements, "key"), *_names("VALUE", elements, "value")], map(_row, elements)))
    click.echo(f"{len(elements)} of {data['entries']} entries; capacity {data['capacity']}")


def _names(word: str, elements: list[dict[str, Any]], part: str) -> list[str]:
    """The headers of a key or value: its fields, where it has some."""
    first = elements[0][part] if elements else None
    return [name.upper() for name in first] if isinstance(first, dict) else [word]


def _row(element: Mapping[str, Any]) -> list[Any]:
    cells: list[Any] = []
    for part in ("key", "value"):
        cells.extend(element[part].values() if isinstance(element[part], dict) else [element[part]])
    return cells
