# SPDX-License-Identifier: Apache-2.0
"""
The limits of a config as they stand in the maps, and the writes that lead from one config to another.

A limit lies in a slot of `rl_rules`, and ports lead to slots. A slot that a port leads to is never changed: what is new gets a slot of its own,
complete before the first port leads there, and what is old is emptied when no port does. So a packet sees the old limit or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import attrs
from xdpchain import Delete, Put, Write

from xdpchain_ratelimit import ports
from xdpchain_ratelimit.config import MAX_RULES, RatelimitConfig, Rule

SLOTS = 2 * MAX_RULES + 1
"""Room for the limits of two configs, the old and the new; slot 0 means none."""


@attrs.frozen
class Limit:
    """One limit. `id` is the key of its window: it lives as long as ports and window stay the same, whatever becomes of the rate."""

    id: int
    rate: int
    window_ns: int

    @classmethod
    def of(cls, config: RatelimitConfig, rule: Rule) -> Limit:
        """The limit of a rule."""
        window_ns = config.window_of(rule)
        digest = hashlib.blake2b(f"{ports.show(ports.each(rule.ports))} {window_ns}".encode(), digest_size=8).digest()
        return cls(int.from_bytes(digest, "little"), rule.rate, window_ns)


def limits(config: RatelimitConfig) -> dict[Limit, Rule]:
    """The limits of a config and their rules."""
    return {Limit.of(config, rule): rule for rule in config.rule}


def writes(old: RatelimitConfig | None, new: RatelimitConfig, slots: Mapping[int, Limit], ids: Iterable[int]) -> Iterator[Write]:
    """
    The writes from `old` to `new`.

    Args:
        old: None where nothing of it is in the maps but windows.
        new: what shall be.
        slots: the slots in use, as they are in `rl_rules`.
        ids: the keys of `rl_windows`.
    """
    wanted = limits(new)
    where = _places(wanted, slots)
    for limit in wanted:
        yield Put("rl_windows", limit.id, 0, keep=True)
    for limit in wanted:
        yield Put("rl_stats", limit.id, {"admitted": 0, "limited": 0}, keep=True)
    for limit, slot in where.items():
        if slot not in slots:
            yield Put("rl_rules", slot, attrs.asdict(limit))
    before = _routes(limits(old), {limit: slot for slot, limit in slots.items()}) if old else {}
    after = _routes(wanted, where)
    for port, slot in after.items():
        if before.get(port) != slot:
            yield Put("rl_ports", port, slot)
    for port in before.keys() - after.keys():
        yield Delete("rl_ports", port)
    for slot in slots.keys() - set(where.values()):
        yield Delete("rl_rules", slot)
    for gone in set(ids).difference(limit.id for limit in wanted):
        yield Delete("rl_windows", gone)
        yield Delete("rl_stats", gone)


def _places(wanted: Iterable[Limit], slots: Mapping[int, Limit]) -> dict[Limit, int]:
    """A slot for each limit: the one that it has, or a free one. What became free last is taken last: a packet may still be reading there."""
    has = {limit: slot for slot, limit in slots.items()}
    top = max(slots, default=0)
    free = (slot for slot in (*range(top + 1, SLOTS), *range(1, top + 1)) if slot not in slots)
    return {limit: has[limit] if limit in has else next(free) for limit in wanted}


def _routes(wanted: Mapping[Limit, Rule], where: Mapping[Limit, int]) -> dict[int, int]:
    return {port: where[limit] for limit, rule in wanted.items() for port in ports.each(rule.ports)}
