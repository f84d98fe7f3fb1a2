# SPDX-License-Identifier: Apache-2.0
"""The config reference in Markdown, from the same classes that read the files."""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs

from xdpchain.config.instances import Functions
from xdpchain.config.kinds import Items, Keyed, Kind, Shape, Table
from xdpchain.config.model import MAX_CHAIN, InterfaceTable, NodeSettings
from xdpchain.config.option import Key, keys_of, to_toml

_INTRODUCTION = """\
# Node file reference

A node is described by one TOML file, `/etc/xdpchain/node.toml`, and by the files `conf.d/*.toml` beside it, read in the order of their names
(hidden files are left out). Together they are one document:

- Tables grow together: a file in `conf.d` can add an interface, an instance, or keys to one that another file began.
- Lists of tables (`[[function.NAME.KEY]]`) grow together: the tables of the main file first, then those of the others.
- Nothing is overridden: a key that two files set is an error that names both places.

The daemon runs as root and so takes its orders from root alone: a file, or a `conf.d`, that belongs to another user or that group or others
can write is refused. `xdpchain check` reports everything that is wrong with all files at once, and `xdpchain schema` prints a JSON Schema.
"""

_VALUES = """\
## Values

| value | written as |
|---|---|
| a duration | a string of a number and one unit of `ns`, `us`, `ms`, `s`, `m`, `h`: `"100ms"`, `"1.5m"`; never a number alone |
| a port | an integer from 0 to 65535 |
| a range of ports | a string, both ends included: `"8000-8099"` |
| an IP address | a string, IPv4 or IPv6: `"10.0.0.1"`, `"2001:db8::1"` |
| a prefix | a string without host bits: `"10.0.0.0/24"`; an address alone is the prefix of its full length |
| a MAC address | a string: `"02:00:00:00:00:01"` |
| a percentage | a number from 0 to 100 |
| the path of a file | a string, relative to the folder of the main file; its text is part of the configuration, and held to the same owner and rights |
"""

_INTERFACES = f"""\
NAME is an interface or a pattern of the shell's kind: `eth0`, `"tap*"`, `"eth[0-3]"`. An interface's own name wins over patterns; of several
patterns the one with the longest text before its first wildcard wins, of equals the first in the files. A chain holds up to {MAX_CHAIN}
instances, none of them twice. A function whose keys all have defaults needs no table to be listed.
"""

_INSTANCES = """\
NAME is the instance's name: a lower case letter, then lower case letters, digits and underscores, 32 in all. It is the function's own name,
unless the table says which function it means with `plugin = "FUNCTION"`. One instance may be listed on several interfaces and shares its
maps among them. An instance in no chain is a warning, and does not run, unless all of its programs are tracepoints.
"""


def reference(functions: Functions) -> str:
    """The reference of the node file on a machine with these functions."""
    parts = [
        _INTRODUCTION,
        "## `[node]`\n",
        _rows(NodeSettings),
        "## `[interface.NAME]`\n",
        _INTERFACES,
        _rows(InterfaceTable),
        "## `[function.NAME]`\n",
        _INSTANCES,
    ]
    for name, function in sorted(functions.items()):
        parts += [f"### `[function.{name}]`\n", f"{function.summary}\n", *_tables(function.config, f"function.{name}")]
    return "\n".join([*parts, _VALUES])


def _tables(cls: type[attrs.AttrsInstance], header: str) -> Iterator[str]:
    """The keys of a table, then those of the tables in it."""
    yield _rows(cls)
    for key in keys_of(cls):
        inner, template = key.shape, f"[{header}.{key.name}]"
        if isinstance(inner, Keyed):
            inner, template = inner.item, f"[{header}.{key.name}.NAME]"
        elif isinstance(inner, Items):
            inner, template = inner.item, f"[[{header}.{key.name}]]"
        if isinstance(inner, Table):
            yield f"#### `{template}`\n"
            yield from _tables(inner.cls, template.strip("[]"))


def _rows(cls: type[attrs.AttrsInstance]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in keys_of(cls):
        cells = (f"`{key.name}`", _value(key), _default(key), key.help)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    if key.required:
        return "required"
    return "not set" if key.default is None else f"`{json.dumps(key.default, ensure_ascii=False)}`"


def _value(key: Key) -> str:
    bounds = key.bounds
    if isinstance(key.shape, Items | Keyed):
        limits = bounds.range() and f"{bounds.range()} of them"
    elif _noun(key.shape) == "a string":
        limits = bounds.range() and f"{bounds.range()} characters"
    else:
        limits = bounds.range(lambda limit: to_toml(key.shape, limit))
    return _noun(key.shape) + (f", {limits}" if limits else "")


def _noun(shape: Shape) -> str:
    match shape:
        case Kind():
            return shape.noun
        case Items():
            return "a list of tables" if isinstance(shape.item, Table) else f"a list, each {_noun(shape.item)}"
        case Keyed():
            return f"a table of names, each {_noun(shape.item)}"
        case Table():
            return "a table"
