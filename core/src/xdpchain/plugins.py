# SPDX-License-Identifier: Apache-2.0
"""
Plugins: found through entry points and loaded one by one, so that a broken one is reported by name and harms no other.

A plugin counts as loaded when it was imported, its hooks fit, and every function that it announces is sound and has a name of its own. Where two
announce one name, the plugin that bears it wins, else the first by name.
"""

from __future__ import annotations

import difflib
import functools
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from xdpchain import hookspecs
from xdpchain.errors import ConfigError, PluginError, Problem
from xdpchain.function import KernelFunction
from xdpchain.plugin_checks import check_function, check_origin

LOAD_VARIABLE = "XDPCHAIN_LOAD_PLUGINS"
"""environment variable: the only plugins to load, by entry point, separated by commas; set but empty: none"""


@attrs.frozen
class LoadedPlugin:
    """A plugin that works. `name` is its entry point, `dist` and `version` are its distribution's."""

    name: str
    dist: str
    version: str
    functions: tuple[str, ...]


@attrs.frozen
class BrokenPlugin:
    """A plugin that was left out, and why."""

    name: str
    dist: str
    error: PluginError


@attrs.frozen
class Plugins:
    """All plugins of this process: the core's own, those that were loaded, and those that were left out."""

    manager: pluggy.PluginManager
    functions: Mapping[str, KernelFunction[Any]]
    loaded: tuple[LoadedPlugin, ...]
    broken: tuple[BrokenPlugin, ...]

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """
        Call a hook plugin by plugin, the core's own first.

        Yields:
            A plugin's name and its answer: a list where the hook asks for several things, or a `PluginError` when it raised.
        """
        for name, plugin in self.manager.list_name_plugin():  # in the order in which they were registered
            yield name, _call(self.manager, plugin, name, hook, arguments)

    def explain(self, error: ConfigError) -> ConfigError:
        """The same problems; where one is about a function that a broken plugin should have brought, the hint says so."""
        return ConfigError(tuple(self._explain(problem) for problem in error.problems))

    def _explain(self, problem: Problem) -> Problem:
        for broken in self.broken:
            if f'"{broken.name}"' in problem.message and problem.message.startswith("no "):
                return attrs.evolve(problem, hint=f"{broken.error.message}; `xdpchain plugins` shows the details")
        return problem


def load_plugins(*builtin: object) -> Plugins:
    """
    Load what is installed.

    Args:
        builtin: plugins of the core itself (modules), registered first.
    """
    manager = _manager()
    for plugin in builtin:
        manager.register(plugin)
    functions: dict[str, KernelFunction[Any]] = {}
    owner: dict[str, str] = {}
    loaded: list[LoadedPlugin] = []
    broken: list[BrokenPlugin] = []
    sound: list[tuple[EntryPoint, object, Sequence[KernelFunction[Any]]]] = []
    seen: set[str] = set()
    found = sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: (entry.name, _dist(entry)[0]))
    for entry in _wanted(found, broken):
        try:
            _check_name(entry.name, seen)
            sound.append((entry, *_load(entry)))
        except PluginError as error:
            broken.append(BrokenPlugin(entry.name, _dist(entry)[0], error))
    # a function belongs first of all to the plugin that bears its name: whatever else is installed, that one goes on working
    sound.sort(key=lambda one: one[0].name not in {function.name for function in one[2]})
    for entry, plugin, announced in sound:
        dist, version = _dist(entry)
        try:
            _check_clashes(entry.name, announced, owner)
        except PluginError as error:
            broken.append(BrokenPlugin(entry.name, dist, error))
            continue
        manager.register(plugin, entry.name)
        names = tuple(function.name for function in announced)
        functions.update(zip(names, announced, strict=True))
        owner.update(dict.fromkeys(names, f"{entry.name} ({dist})"))
        loaded.append(LoadedPlugin(entry.name, dist, version, names))
    return Plugins(manager, functions, tuple(sorted(loaded, key=_name)), tuple(sorted(broken, key=_name)))


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _wanted(found: Sequence[EntryPoint], broken: list[BrokenPlugin]) -> Iterator[EntryPoint]:
    """The plugins that `XDPCHAIN_LOAD_PLUGINS` leaves; a name there that is not installed is a broken plugin."""
    restriction = os.environ.get(LOAD_VARIABLE)
    if restriction is None:
        yield from found
        return
    wanted = {name.strip() for name in restriction.split(",") if name.strip()}
    yield from (entry for entry in found if entry.name in wanted)
    installed = [entry.name for entry in found]
    for name in sorted(wanted.difference(installed)):
        near = difflib.get_close_matches(name, installed, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"correct {LOAD_VARIABLE} or install it"
        broken.append(BrokenPlugin(name, "", PluginError(name, f"{LOAD_VARIABLE} names it, but it is not installed", hint=hint)))


def _name(plugin: LoadedPlugin | BrokenPlugin) -> str:
    return plugin.name


def _dist(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")


def _check_name(name: str, seen: set[str]) -> None:
    if name in seen:
        raise PluginError(name, "another distribution has a plugin of this name", hint="uninstall one of the two")
    seen.add(name)


def _load(entry: EntryPoint) -> tuple[object, Sequence[KernelFunction[Any]]]:
    """Import one plugin and ask for its functions, in a manager of its own: what fails here leaves no trace in the real one."""
    name = entry.name
    check_origin(name, entry.module)
    plugin = _guard(name, f"cannot be imported (entry point {entry.value!r})", entry.load)
    manager = _manager()
    _guard(name, "does not fit the hooks of this version", lambda: manager.register(plugin, name))
    _guard(name, "has a hook that this version does not know", manager.check_pending)
    announced = _call(manager, plugin, name, "xdpchain_functions", {})
    if isinstance(announced, PluginError):
        raise announced
    for function in announced:
        _guard(name, "announces something that cannot be looked at", functools.partial(check_function, name, function))
    return plugin, announced


def _check_clashes(name: str, announced: Iterable[KernelFunction[Any]], owner: Mapping[str, str]) -> None:
    mine: set[str] = set()
    for function in announced:
        if function.name in mine:
            raise PluginError(name, f"announces function {function.name!r} twice", hint="announce each function once")
        if function.name in owner:
            raise PluginError(
                name,
                f"function {function.name!r} is already announced by plugin {owner[function.name]}",
                hint="uninstall one of the two, or rename the function",
            )
        mine.add(function.name)


def _call(manager: pluggy.PluginManager, plugin: object, name: str, hook: str, arguments: Mapping[str, Any]) -> Any:
    """One plugin's answer to a hook as a list, or the `PluginError` that it ended in."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    caller = manager.subset_hook_caller(hook, others)
    try:
        return _guard(name, f"its hook {hook} failed", lambda: [item for answer in caller(**arguments) for item in answer or ()])
    except PluginError as error:
        return error


def _guard(name: str, what: str, action: Callable[[], Any]) -> Any:
    """
    Run a plugin's code. Whatever it raises becomes a `PluginError` of that plugin.

    Raises:
        PluginError: the code raised; a plugin that calls `sys.exit` while it is imported ends itself only.
    """
    try:
        return action()
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        hint = f"ask its author, or leave it out with {LOAD_VARIABLE}; `xdpchain plugins --json` shows the traceback"
        raise PluginError(name, f"{what}: {type(error).__name__}: {error}", hint=hint, details=text) from error
