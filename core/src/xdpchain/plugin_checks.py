# SPDX-License-Identifier: Apache-2.0
"""What a plugin's function must be before the core has anything to do with it, and where plugin code may come from."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from xdpchain.errors import PluginError
from xdpchain.function import API_VERSION, CHAIN_HOOKS, Hook, KernelFunction, Program, Reason, Side

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_C_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EVENT = re.compile(r"[a-z0-9_]+:[a-z0-9_]+")
_REQUIRED = ("api", "name", "summary", "source", "config", "programs")


def check_function(plugin: str, function: object) -> None:
    """
    Raise where an announced function does not fit the API.

    Raises:
        PluginError: says which attribute is wrong and what would be right.
    """
    for message, hint in _faults(function):
        raise PluginError(plugin, message, hint=hint)


def _faults(function: Any) -> Iterator[tuple[str, str]]:
    if isinstance(function, type) and issubclass(function, KernelFunction):
        yield f"announces the class {function.__name__}", f"announce an object: {function.__name__}()"
    elif not isinstance(function, KernelFunction):
        yield f"announces {function!r}, which is no KernelFunction", "derive its class from xdpchain.KernelFunction"
    who = f"function {getattr(function, 'name', type(function).__name__)!r}"
    if getattr(function, "api", None) != API_VERSION:
        yield _other_api(who, getattr(function, "api", None))
    for missing in (attribute for attribute in _REQUIRED if not hasattr(function, attribute)):
        yield f"{who} has no attribute {missing!r}", f"set {missing} in the class {type(function).__name__}"
    if not (isinstance(function.name, str) and NAME.fullmatch(function.name)):
        yield f"{function.name!r} is no name for a function", "use a lower case letter, then letters, digits or _ (32 at most)"
    if not Path(function.source).is_file():
        yield f"{who}: its source {function.source} is not there", "the package was built without it: are *.bpf.c files packed?"
    if not (isinstance(function.config, type) and attrs.has(function.config)):
        yield f"{who}: its config {function.config!r} is no attrs class", "decorate the class with @attrs.frozen"
    elif "plugin" in (field.name for field in attrs.fields(function.config)):
        yield f"{who}: its config has a key 'plugin'", "choose another: in a node file `plugin` says which function an instance is of"
    yield from _program_faults(who, function.programs)
    yield from _reason_faults(who, function.reasons)


def _other_api(who: str, api: object) -> tuple[str, str]:
    if api is None:
        return f"{who} does not say which API it was written for", f"set `api = {API_VERSION}` in its class"
    old = isinstance(api, int) and api < API_VERSION
    hint = f"upgrade {'the plugin' if old else 'xdpchain'}, or install a version of the plugin for API {API_VERSION}"
    return f"{who} was written for API {api}, this core has {API_VERSION}", hint


def _program_faults(who: str, programs: Any) -> Iterator[tuple[str, str]]:
    if not programs or all(isinstance(program, Program) and program.hook is Hook.ROUTINE for program in programs):
        yield f"{who} has no programs for a hook", 'set programs = (Program(Hook.XDP, "NAME"),)'
    entries: set[str] = set()
    hooks: set[tuple[Hook, Side]] = set()
    for program in programs:
        if not isinstance(program, Program) or not isinstance(program.hook, Hook):
            yield f"{who}: {program!r} is no Program of a Hook", 'write Program(Hook.XDP, "NAME")'
        if not _C_NAME.fullmatch(program.entry):
            yield f"{who}: entry {program.entry!r} is no name of a C function", "name the author's function in the source"
        if program.entry in entries:
            yield f"{who}: two programs have the entry {program.entry!r}", "give each program a C function of its own"
        if (program.hook is Hook.TRACEPOINT) != bool(_EVENT.fullmatch(program.event)):
            yield f"{who}: program {program.entry!r} has the event {program.event!r}", 'a tracepoint, and only that, has "category:name"'
        if program.fields and program.hook is not Hook.TRACEPOINT:
            yield f"{who}: program {program.entry!r} names fields of an event", "a tracepoint, and only that, has an event"
        places = {(program.hook, side) for side in Side if program.runs_on(side)}
        if hooks & places and program.hook in CHAIN_HOOKS:
            yield (
                f"{who} has two programs for the hook {program.hook.value}",
                "a function has one place in a chain: make one program of them, or give each a side of its own",
            )
        if program.side and program.hook not in CHAIN_HOOKS:
            yield f"{who}: program {program.entry!r} has a side", "only what runs on an interface has"
        entries.add(program.entry)
        hooks |= places


def _reason_faults(who: str, reasons: Any) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for reason in reasons:
        if not (isinstance(reason, Reason) and NAME.fullmatch(reason.name)):
            yield f"{who}: {reason!r} is no good reason", "write Reason(name, help); the name like a function's"
        if reason.name in names:
            yield f"{who}: the reason {reason.name!r} is there twice", "name each reason once"
        names.add(reason.name)


def check_origin(plugin: str, module: str) -> None:
    """
    Refuse a plugin whose code other users can change, when this process is root. Nothing of the plugin runs before that.

    Raises:
        PluginError: names the file or directory that group or others can write to.
    """
    if os.geteuid() != 0:
        return
    trusted = {0, Path(__file__).stat().st_uid}  # whoever could change the core's own code needs no plugin
    for path in _origin(module.partition(".")[0]):
        mode = path.stat()
        if mode.st_uid not in trusted:
            hint = f"no code is loaded from where others can write: chown root {path}"
            raise PluginError(plugin, f"{path} belongs to user {mode.st_uid}, not to root", hint=hint)
        by_group = mode.st_mode & stat.S_IWGRP and mode.st_gid != 0
        if by_group or mode.st_mode & stat.S_IWOTH:
            raise PluginError(
                plugin,
                f"{path} can be written by others than root (mode {stat.S_IMODE(mode.st_mode):04o})",
                hint=f"no code is loaded from where others can write: chmod go-w {path}",
            )


def _origin(package: str) -> Iterator[Path]:
    """The files of a top-level package, its directories, and the directory that it was found in."""
    spec = importlib.util.find_spec(package) if package not in sys.modules else sys.modules[package].__spec__
    if spec is None or spec.origin is None or not Path(spec.origin).exists():
        return
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        yield origin
        yield origin.parent
        return
    yield origin.parent.parent
    yield origin.parent
    yield from (path for path in sorted(origin.parent.rglob("*")) if "__pycache__" not in path.parts)
