# SPDX-License-Identifier: Apache-2.0
"""`[function.NAME]`: the instances of a node, each checked by its function's config class and by the function itself."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import attrs

from xdpchain.config.keypath import KeyPath
from xdpchain.config.misfit import MisfitError, given, nearest, quoted
from xdpchain.config.model import InstanceConfig
from xdpchain.config.names import check_instance_name
from xdpchain.config.option import keys_of
from xdpchain.config.report import Report
from xdpchain.config.structure import structure
from xdpchain.errors import PluginError
from xdpchain.function import KernelFunction

Functions = Mapping[str, KernelFunction[Any]]


def read_instances(tables: Mapping[str, Any], functions: Functions, report: Report) -> dict[str, InstanceConfig | None]:
    """All instances that have a table, by name; None for one with a problem."""
    return {name: _read_instance(name, table, functions, report) for name, table in tables.items()}


def _read_instance(name: str, table: Any, functions: Functions, report: Report) -> InstanceConfig | None:
    path: KeyPath = ("function", name)
    try:
        check_instance_name(name)
    except MisfitError as misfit:
        report.error(path, misfit.message, misfit.hint)
        return None
    if not isinstance(table, Mapping):
        report.error(path, f"must be a table, not {given(table)}", f"write it under the header [function.{name}]")
        return None
    function = _function_of(name, table, functions, report)
    if function is None:
        return None
    own_keys = {key: value for key, value in table.items() if key != "plugin"}
    try:
        config, problems = structure(function.config, own_keys, path)
    except (Exception, SystemExit) as error:
        raise fault(function, "its config class raised", error) from error
    report.errors += problems
    return None if config is None else checked(InstanceConfig(name, function, config), report)


def _function_of(name: str, table: Mapping[str, Any], functions: Functions, report: Report) -> KernelFunction[Any] | None:
    wanted = table.get("plugin", name)
    if not isinstance(wanted, str):
        report.error(("function", name, "plugin"), f"must be the name of a function, not {given(wanted)}", _installed(functions))
    elif wanted not in functions:
        named = "plugin" in table
        path: KeyPath = ("function", name, "plugin") if named else ("function", name)
        other_name = "" if named else '; an instance under another name says plugin = "..."'
        report.error(path, f"no function {quoted(wanted)} is installed", nearest(wanted, functions, _installed(functions)) + other_name)
    else:
        return functions[wanted]
    return None


def _installed(functions: Functions) -> str:
    return f"installed: {', '.join(sorted(functions)) or 'none'}; pip install the package of the one you mean"


def implicit_instance(function: KernelFunction[Any], at: KeyPath, report: Report) -> InstanceConfig | None:
    """The instance of a function without a table, listed at `at`: possible where every key has a default."""
    missing = [key.name for key in keys_of(function.config) if key.required]
    if missing:
        report.error(at, f"{quoted(function.name)} needs a table", f"write [function.{function.name}] with {', '.join(missing)}")
        return None
    try:
        config = function.config()
    except (Exception, SystemExit) as error:
        raise fault(function, "its config class raised", error) from error
    return checked(InstanceConfig(function.name, function, config), report, at)


def checked(instance: InstanceConfig, report: Report, at: KeyPath | None = None) -> InstanceConfig | None:
    """The instance, if its function finds nothing wrong. Problems stand in its table, or `at` the place that made it."""
    function = instance.function
    try:
        problems = [attrs.evolve(problem, path=(*_table_path(instance), *problem.path)) for problem in function.check(instance.config)]
    except (Exception, SystemExit) as error:
        raise fault(function, "its check() raised", error) from error
    for problem in problems:
        report.add(problem, at)
    return None if problems else instance


def _table_path(instance: InstanceConfig) -> KeyPath:
    return ("function", instance.name)


def fault(function: KernelFunction[Any], what: str, error: BaseException) -> PluginError:
    """What a plugin's own method raised, as an error that names the plugin."""
    hint = "this is a bug of the plugin: report it to its authors"
    details = "".join(traceback.format_exception(error))
    return PluginError(function.name, f"{what} {type(error).__name__}: {error}", hint=hint, details=details)
