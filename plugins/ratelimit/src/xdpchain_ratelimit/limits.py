# SPDX-License-Identifier: Apache-2.0
"""
The writes that lead from one config to another.

Destinations and ports lead to rules in `rl_rules`, and these to windows in `rl_windows`. A rule that something leads to is never changed: a new one
gets a place of its own, complete before the first port leads there, and an old one is emptied when nothing does. So a packet sees the old
rule or the new one; of its lists it sees each prefix as it was or as it is. A window stays where it is as long as its rule is there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from xdpchain import Delete, Maps, Put, Write

from xdpchain_ratelimit.config import RatelimitConfig
from xdpchain_ratelimit.shape import gates, packed, targets, window_id
from xdpchain_ratelimit.tables import PLACES, RULE, list_key

T = TypeVar("T", bound=Hashable)
Key = tuple[str, bytes | int]


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
    listed_before, listed = _listed(old, had_windows) if old else {}, _listed(new, wanted_windows)
    for key, verdict in listed.items():
        if listed_before.get(key) != verdict:
            yield Put("rl_lists", key, verdict)
    had = {RULE.pack(rule): place for place, rule in maps["rl_rules"].items() if rule["shared"]["span"]} if old else {}
    rules = _rules(new, wanted_windows)
    wanted = _place(rules, had)
    for rule, place in wanted.items():
        if rule not in had:
            yield Put("rl_rules", place, rule)
    before = _routes(old, had, had_windows) if old else {}
    after = _routes(new, wanted, wanted_windows)
    yield from _open(old, new)
    for (name, at), place in after.items():
        if before.get((name, at)) != place:
            yield Put(name, at, place)
    for name, at in before.keys() - after.keys():
        yield Delete(name, at)
    yield from _shut(old, new)
    for key in listed_before.keys() - listed.keys():
        yield Delete("rl_lists", key)
    for place in set(had.values()).difference(wanted.values()):
        yield Delete("rl_rules", place)
    for place in set(had_windows.values()).difference(wanted_windows.values()):
        yield Delete("rl_windows", place)
        yield Delete("rl_stats", place)


def _open(old: RatelimitConfig | None, new: RatelimitConfig) -> Iterator[Write]:
    """While targets change, packets are looked up for the old rules and the new."""
    before = gates(old) if old else 0
    if gates(new) | before != before:
        yield Put("rl_gates", 0, gates(new) | before)


def _shut(old: RatelimitConfig | None, new: RatelimitConfig) -> Iterator[Write]:
    before = gates(old) if old else 0
    if gates(new) | before != gates(new):
        yield Put("rl_gates", 0, gates(new))


def _place(wanted: Iterable[T], had: Mapping[T, int]) -> dict[T, int]:
    """A place for each: the one that it has, or a free one. What became free last is taken last: a packet may still be reading there."""
    top = max(had.values(), default=0)
    used = set(had.values())
    free = (place for place in (*range(top + 1, PLACES), *range(1, top + 1)) if place not in used)
    return {one: had[one] if one in had else next(free) for one in wanted}


def _rules(config: RatelimitConfig, places: Mapping[int, int]) -> list[bytes]:
    return [packed(config, rule, places[window_id(config, rule)]) for rule in config.rule]


def _routes(config: RatelimitConfig, places: Mapping[bytes, int], window_places: Mapping[int, int]) -> dict[Key, int]:
    rules = zip(config.rule, _rules(config, window_places), strict=True)
    return {target: places[struct] for rule, struct in rules for target in targets(rule)}


def _listed(config: RatelimitConfig, places: Mapping[int, int]) -> dict[bytes, int]:
    return {
        list_key(places[window_id(config, rule)], prefix): verdict
        for rule in config.rule
        for prefix, verdict in rule.listing.prefixes.items()
    }
