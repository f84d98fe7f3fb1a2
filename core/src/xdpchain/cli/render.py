# SPDX-License-Identifier: Apache-2.0
"""How things look: the one place where errors, tables and plans become text. Colours go away by themselves where no terminal is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from xdpchain.config import key_path
from xdpchain.daemon.wire import encode, error_data
from xdpchain.errors import ConfigError, Problem, XdpchainError

DETAIL_LINES = 40
"""lines of an error's details that are shown; --json has all of them"""


def print_json(data: Mapping[str, Any]) -> None:
    """Data for programs."""
    click.echo(json.dumps(json.loads(encode(data)), indent=2))


def show_error(error: XdpchainError, *, as_json: bool) -> None:
    """An error, on standard error; with `as_json` its data on standard output instead."""
    if as_json:
        print_json({"error": error_data(error)})
        return
    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(problem_text(problem), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    if error.details:
        click.echo("\n".join(f"  | {line}" for line in _cut(error.details.rstrip().splitlines())), err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)


def problem_text(problem: Problem) -> str:
    """`FILE:LINE: key.path: message`, and the hint in a line below."""
    place = ":".join(str(part) for part in (problem.file, problem.line) if part)
    text = ": ".join(filter(None, (place, key_path(problem.path), problem.message)))
    return text + (f"\n    {click.style('hint:', fg='cyan')} {problem.hint}" if problem.hint else "")


def problem_from(data: Mapping[str, Any]) -> Problem:
    """A problem that came as data."""
    return Problem(**{**data, "path": tuple(data["path"])})


def _cut(lines: Sequence[str]) -> list[str]:
    """The beginning and the end of long details: compilers say the cause first, the verifier last."""
    if len(lines) <= DETAIL_LINES:
        return list(lines)
    half = DETAIL_LINES // 2
    return [*lines[:half], f"... {len(lines) - DETAIL_LINES} lines more with --json ...", *lines[-half:]]


def columns(header: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> str:
    """A table: columns as wide as they must be, numbers to the right."""
    body = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[at]) for row in body) for at in range(len(header))] if body else [False] * len(header)
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True))
        return (indent + "  ".join(padded)).rstrip()

    return "\n".join([click.style(line(header), bold=True), *(line(row) for row in body)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(one) for one in value)
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("-", "", 1).isdigit()


def show_plan(plan: Mapping[str, Any], *, done: bool) -> None:
    """A plan's actions in order, then what stays undone."""
    for action in plan["actions"]:
        why = f"  ({action['why']})" if action["why"] else ""
        click.echo(f"{click.style(action['action'].ljust(9), bold=True)} {action['subject']}{why}")
    if not plan["actions"]:
        click.echo("nothing to do: what is configured is what runs")
    elif done:
        click.echo(click.style("applied", fg="green"))
    show_absent(plan)


def show_absent(data: Mapping[str, Any]) -> None:
    """Interfaces that wait, and blocked ones."""
    for name in data["waiting"]:
        click.echo(f"{click.style('waiting', fg='yellow')}   {name}: no such interface now; its chain attaches when it appears")
    for name, who in data["blocked"].items():
        click.echo(f"{click.style('blocked', fg='red')}   {name}: {who}")
        click.echo("    hint: mend that, or take the interface out of the config; a daemon attaches by itself then")


def amount(number: float) -> str:
    """A number of bytes, short."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def span(seconds: float) -> str:
    """A time span, short."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
