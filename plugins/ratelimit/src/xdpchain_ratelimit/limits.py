# SPDX-License-Identifier: Apache-2.0
"""
The limits of a config as they stand in the maps, and the writes that lead from one config to another.

Ports lead to limits in `rl_rules`, and these to windows in `rl_windows`. A limit that a port leads to is never changed: a new one gets a place
of its own, complete before the first port leads there, and an old one is emptied when no port does. So a packet sees the old limit or the new
one. A window stays where it is as long as its rule is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

import attrs
from xdpchain import Delete, Maps, Put, Write

from xdpchain_ratelimit import ports
from xdpchain_ratelimit.config import MAX_RULES, RatelimitConfig, Rule

PLACES = 2 * MAX_RULES + 1
"""Room for the limits of two configs, the old and the new; place 0 means none."""

T = TypeVar("T", bound=Hashable)


@attrs.frozen
class Limit:
    """One limit. `window` is its place in `rl_windows`."""

    window: int
    rate: int
    window_ns: int


def window_id(config: RatelimitConfig, rule: Rule) -> int:
    """What a rule's window is found again by: a hash of its ports and window, whatever becomes of its rate and of its place in the file."""
    text = f"{ports.show(ports.each(rule.ports))} {config.window_of(rule)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def windows(maps: Maps) -> dict[int, int]:
    """The places of all windows by their ids."""
    return {window["id"]: place for place, window in maps["rl_windows"].items() if window["id"]}


def writes(old: RatelimitConfig | None, new: RatelimitConfig, maps: Maps) -> Iterator[Write]:
    """The writes from `old` to `new`, in an order that packets may see half of."""
    had_windows = windows(maps)
    wanted_windows = _place([window_id(new, rule) for rule in new.rule], had_windows)
    for id_, place in wanted_windows.items():
        if id_ not in had_windows:
            yield Put("rl_windows", place, {"id": id_, "word": 0})
    had = {Limit(**limit): place for place, limit in maps["rl_rules"].items() if limit["window_ns"]} if old else {}
    limits = _limits(new, wanted_windows)
    wanted = _place(list(limits), had)
    for limit, place in wanted.items():
        if limit not in had:
            yield Put("rl_rules", place, attrs.asdict(limit))
    before = _routes(_limits(old, had_windows), had) if old else {}
    after = _routes(limits, wanted)
    for port, place in after.items():
        if before.get(port) != place:
            yield Put("rl_ports", port, place)
    for port in before.keys() - after.keys():
        yield Delete("rl_ports", port)
    for place in set(had.values()).difference(wanted.values()):
        yield Delete("rl_rules", place)
    for place in set(had_windows.values()).difference(wanted_windows.values()):
        yield Delete("rl_windows", place)
        yield Delete("rl_stats", place)


def _place(wanted: Iterable[T], had: Mapping[T, int]) -> dict[T, int]:
    """A place for each: the one that it has, or a free one. What became free last is taken last: a packet may still be reading there."""
    top = max(had.values(), default=0)
    used = set(had.values())
    free = (place for place in (*range(top + 1, PLACES), *range(1, top + 1)) if place not in used)
    return {one: had[one] if one in had else next(free) for one in wanted}


def _limits(config: RatelimitConfig, places: Mapping[int, int]) -> dict[Limit, Rule]:
    return {Limit(places[window_id(config, rule)], rule.rate, config.window_of(rule)): rule for rule in config.rule}


def _routes(limits: Mapping[Limit, Rule], places: Mapping[Limit, int]) -> dict[int, int]:
    return {port: places[limit] for limit, rule in limits.items() for port in ports.each(rule.ports)}
