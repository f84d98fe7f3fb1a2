# SPDX-License-Identifier: Apache-2.0
"""
Writes what the documentation takes from the code: the reference of the node's file, the commands, the tables in the operator's guide.

`./run python docs/generate.py` writes, with `--check` it only says what is out of date and ends with 1.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine
from xdpchain.cli import builtin
from xdpchain.cli import main as client
from xdpchain.config import reference
from xdpchain.daemon.log import EVENTS
from xdpchain.daemon.main import main as daemon
from xdpchain.daemon.metrics import Family, NodeCollector
from xdpchain.daemon.node import Node
from xdpchain.daemon.store import Store
from xdpchain.errors import PluginError
from xdpchain.plugins import LOAD_VARIABLE, Plugins, load_plugins

DOCS = Path(__file__).resolve().parent
COMMAND = "./run python docs/generate.py"
_WIDTH = 120
_NOTICE = f"<!-- Made by `{COMMAND}`. -->\n\n"

_COMMANDS = """\
# Commands

`xdpchain` is for people and scripts, `xdpchaind` is the daemon. What shows something takes `--json`: then standard output has one JSON document
and nothing else, an error included (`trace` prints one object in a line for each frame). What the exit codes mean is in the
[operator's guide](operating.md#exit-codes). Plugins may add commands of their own, which `xdpchain --help` lists, too; those of the plugins in this
repository stand at the end.
"""

_EXAMPLE = """\
## An example

A node with a pattern, and with two instances of one function:

```toml node
{text}```
"""


def shipped() -> tuple[str, ...]:
    """The plugins of this repository, by their entry points."""
    projects = [tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in sorted(DOCS.parent.glob("plugins/*/pyproject.toml"))]
    return tuple(name for project in projects for name in project["entry-points"]["xdpchain"])


def pages(plugins: Plugins) -> dict[Path, str]:
    """The text of each page that has generated parts."""
    operating = DOCS / "operating.md"
    example = (DOCS / "node.toml").read_text(encoding="utf-8")
    parts = {"events": events(), "metrics": metrics(plugins)}
    return {
        DOCS / "configuration.md": _NOTICE + reference(plugins.functions) + "\n" + _EXAMPLE.format(text=example),
        DOCS / "commands.md": _NOTICE + commands(plugins),
        operating: _filled(operating.read_text(encoding="utf-8"), parts),
    }


def events() -> str:
    """The table of what the daemon logs."""
    return _table(("event", "meaning"), ((f"`{name}`", meaning) for name, meaning in EVENTS.items()))


def metrics(plugins: Plugins) -> str:
    """The table of the core's metric families."""
    rows = (
        (f"`{family.name}{'_total' * (family.type == 'counter')}`", family.type, _labels(family), family.documentation)
        for family in families(plugins)
    )
    return _table(("metric", "type", "labels", "meaning"), rows)


def families(plugins: Plugins) -> Iterator[Family]:
    """The core's metric families, from a node on which nothing runs."""
    engine = Engine(DOCS, Compiler(None))
    node = Node(DOCS / "node.toml", engine, Store(DOCS / "no-state"), plugins, list)
    node.applies.last_applied = 1.0
    return NodeCollector(node, engine, plugins).collect()


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in family._labelnames)  # noqa: SLF001 - prometheus-client has no public name for them


def commands(plugins: Plugins) -> str:
    """The page of all commands, as `--help` prints them."""
    top = _context(client, "xdpchain")
    contexts = [top, *(_context(one, one.name, top) for one in builtin.xdpchain_commands()), _context(daemon, "xdpchaind")]
    for _, answer in plugins.each("xdpchain_commands"):
        if isinstance(answer, PluginError):
            sys.exit(answer.message)
        contexts += (context for one in answer for context in _with_inner(_context(one, one.name, top)))
    return "\n".join([_COMMANDS, *(f"## `{one.command_path}`\n\n```text\n{one.get_help()}\n```\n" for one in contexts)])


def _context(command: click.Command, name: str | None, parent: click.Context | None = None) -> click.Context:
    """A command as it is called on a wide terminal."""
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    return click.Context(command, parent=parent, info_name=name, **settings)


def _with_inner(context: click.Context) -> Iterator[click.Context]:
    """A command, and those in it if it is a group."""
    yield context
    if isinstance(context.command, click.Group):
        for inner in context.command.commands.values():
            yield from _with_inner(_context(inner, inner.name, context))


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(header)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "&#124;") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _filled(text: str, parts: dict[str, str]) -> str:
    """A page with the text between `<!-- generated: NAME -->` and `<!-- end -->` written anew."""
    for name, part in parts.items():
        begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not closed:
            sys.exit(f"docs/operating.md has no place for {name}, between {begin.strip()} and {end}")
        text = before + begin + part + end + after
    return text


def main() -> None:
    """Write the pages, or with `--check` say what differs."""
    os.environ[LOAD_VARIABLE] = ",".join(shipped())
    plugins = load_plugins()
    for broken in plugins.broken:
        sys.exit(broken.error.message)
    stale = False
    for path, text in pages(plugins).items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if "--check" in sys.argv[1:]:
            stale = stale or old != text
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(keepends=True), text.splitlines(keepends=True), str(path), "generated")
            )
        elif old != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    if stale:
        sys.exit(f"out of date; bring it up to date with: {COMMAND}")


if __name__ == "__main__":
    main()
