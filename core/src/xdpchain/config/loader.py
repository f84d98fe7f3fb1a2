# SPDX-License-Identifier: Apache-2.0
"""Reads a node: its files or a document at hand, every problem in them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from xdpchain.config.instances import Functions, read_instances
from xdpchain.config.interfaces import read_chains, read_interfaces
from xdpchain.config.misfit import given, nearest
from xdpchain.config.model import NodeConfig, NodeSettings
from xdpchain.config.offload import check_offload
from xdpchain.config.report import Report
from xdpchain.config.sources import Source, files_of, merge, parse, read
from xdpchain.config.structure import structure
from xdpchain.config.textfile import reading
from xdpchain.errors import Problem

_SECTIONS = {"node": "[node]", "interface": "[interface.NAME]", "function": "[function.NAME]"}


def load(path: Path, functions: Functions, kept: Mapping[str, str] | None = None) -> NodeConfig:
    """
    Reads a node file and the files in `conf.d` beside it.

    Args:
        path: the main file; nothing else is read from its folder but `conf.d/*.toml` and the text files that keys name.
        functions: the installed functions by name.
        kept: the texts of such text files by their paths as written, to be taken in place of what is on disk.

    Raises:
        ConfigError: with everything that is wrong in any of the files.
        PluginError: a function's config class or `check()` is broken.
    """
    files, problems = files_of(path)
    with reading(path.parent, kept) as texts:
        config = _node([read(file) for file in files], problems, functions)
        return attrs.evolve(config, texts=tuple(texts.values()))


def loads(document: str | Mapping[str, Any], functions: Functions) -> NodeConfig:
    """
    Reads a node from TOML text or from a plain dict. Paths in it are relative to the current directory.

    Raises:
        ConfigError: with everything that is wrong; problems have no file, those of a dict no line either.
        PluginError: a function's config class or `check()` is broken.
    """
    source = parse(document, "") if isinstance(document, str) else Source("", document)
    return _node([source], [], functions)


def _node(read_files: Sequence[Source | Problem], problems: Sequence[Problem], functions: Functions) -> NodeConfig:
    unreadable = [*problems, *(file for file in read_files if isinstance(file, Problem))]
    document, conflicts = merge([file for file in read_files if isinstance(file, Source)])
    document.complete = not unreadable
    report = Report(document, [*unreadable, *conflicts])
    sections = _sections(document.data, report)

    settings, wrong = structure(NodeSettings, sections["node"], ("node",))
    report.errors += wrong
    instances = read_instances(sections["function"], functions, report)
    interfaces = read_interfaces(sections["interface"], report)
    used = read_chains(sections["interface"], instances, functions, report)
    check_offload(interfaces, instances, report)
    for name in [name for name, instance in instances.items() if name not in used and not (instance and instance.node_wide)]:
        report.warning(("function", name), "is in no chain", "list it in the chain of an interface, or remove its table")
    report.raise_errors()

    assert settings is not None  # noqa: S101 - structure() returns None with a problem only, and problems were raised
    complete = {name: instance for name, instance in instances.items() if instance is not None}
    return NodeConfig(settings, tuple(interfaces), complete, tuple(report.warnings))


def _sections(data: Mapping[str, Any], report: Report) -> dict[str, Mapping[str, Any]]:
    """The three top-level tables; what else stands there is an error."""
    for name in [name for name in data if name not in _SECTIONS]:
        message = "is not a known table" if isinstance(data[name], Mapping | list) else "stands outside of any table"
        report.error((name,), message, nearest(name, _SECTIONS, f"known are {', '.join(_SECTIONS.values())}"))
    sections = {}
    for name, header in _SECTIONS.items():
        table = data.get(name, {})
        if not isinstance(table, Mapping):
            report.error((name,), f"must be a table, not {given(table)}", f"write it under the header {header}")
        sections[name] = table if isinstance(table, Mapping) else {}
    return sections
