# SPDX-License-Identifier: Apache-2.0
"""`[interface.NAME]`: the chains of a node, and whether every name in them stands for an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from xdpchain.config.instances import Functions, implicit_instance
from xdpchain.config.keypath import KeyPath
from xdpchain.config.misfit import MisfitError, nearest, quoted
from xdpchain.config.model import MAX_CHAIN, InstanceConfig, InterfaceConfig, InterfaceTable
from xdpchain.config.names import check_interface_name
from xdpchain.config.report import Report
from xdpchain.config.structure import structure


def read_interfaces(tables: Mapping[str, Any], report: Report) -> list[InterfaceConfig]:
    """The interfaces whose tables are right in themselves."""
    interfaces = []
    for name, table in tables.items():
        path: KeyPath = ("interface", name)
        try:
            check_interface_name(name)
        except MisfitError as misfit:
            report.error(path, misfit.message, misfit.hint)
        written, problems = structure(InterfaceTable, table, path)
        report.errors += problems
        if written is not None:
            interfaces.append(InterfaceConfig(name, **attrs.asdict(written, recurse=False)))
    return interfaces


def read_chains(tables: Mapping[str, Any], instances: dict[str, InstanceConfig | None], functions: Functions, report: Report) -> set[str]:
    """
    Finds the instance of every name in every chain, and returns the names.

    It looks at the tables as they are written, so that a chain is checked even where another key of its interface is wrong. A name without a
    table is the function of that name with its defaults; such an instance is added to `instances`.
    """
    used = set[str]()
    for interface, table in tables.items():
        chain = table.get("chain") if isinstance(table, Mapping) else None
        if isinstance(chain, list):
            path: KeyPath = ("interface", interface, "chain")
            _check_length(chain, path, report)
            for index, name in enumerate(chain):
                if isinstance(name, str):
                    used.add(name)
                    _check_entry(name, chain[:index], (*path, index), instances, functions, report)
    return used


def _check_length(chain: Sequence[Any], path: KeyPath, report: Report) -> None:
    if not chain:
        report.error(path, "is empty", "list at least one instance, or remove the interface's table")
    elif len(chain) > MAX_CHAIN:
        hint = f"{MAX_CHAIN} instances fit: the kernel ends a packet's walk at 33 tail calls"
        report.error(path, f"is too long: {len(chain)} instances", hint)


def _check_entry(
    name: str, before: Sequence[Any], path: KeyPath, instances: dict[str, InstanceConfig | None], functions: Functions, report: Report
) -> None:
    if name in before:
        hint = 'keep one, or give the second an instance of its own with plugin = "..."'
        report.error(path, f"{quoted(name)} is in this chain already", hint)
    elif name in instances or not report.document.complete:
        return  # where a file could not be read, the table may be in it
    elif name in functions:
        instances[name] = implicit_instance(functions[name], path, report)
    else:
        known = {**instances, **functions}
        otherwise = f"known: {', '.join(sorted(known)) or 'none'}; is the package of this function installed?"
        report.error(path, f"no instance or function is called {quoted(name)}", nearest(name, known, otherwise))
