# SPDX-License-Identifier: Apache-2.0
"""Rates: what a function's tables counted between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from xdpchain.function import Table

_WHOLE = 100
"""from here on the digits behind the point are noise"""


def with_rates(before: Sequence[Table], now: Sequence[Table], seconds: float) -> list[Table]:
    """
    The tables as they are now, with a column "NAME/s" behind each counter.

    A rate is None where there was no such row before, or where the counter began anew. A table that looks otherwise than before, or has no
    counters, stays as it is.
    """
    earlier = {(table.title, tuple(table.columns)): table for table in before}
    return [_with_rates(earlier.get((table.title, tuple(table.columns))), table, seconds) for table in now]


def _with_rates(before: Table | None, now: Table, seconds: float) -> Table:
    if before is None or not now.counters:
        return now
    old = {tuple(row[: now.key]): row for row in before.rows}
    columns: list[str] = []
    for name in now.columns:
        columns += [name, f"{name}/s"] if name in now.counters else [name]
    rows = []
    for row in now.rows:
        last, cells = old.get(tuple(row[: now.key])), list[Any]()
        for at, (name, value) in enumerate(zip(now.columns, row, strict=True)):
            cells += [value, _rate(last[at] if last else None, value, seconds)] if name in now.counters else [value]
        rows.append(cells)
    return attrs.evolve(now, columns=columns, rows=rows)


def _rate(before: Any, now: Any, seconds: float) -> float | int | None:
    if not isinstance(before, int | float) or not isinstance(now, int | float) or now < before:
        return None
    rate = (now - before) / seconds
    return round(rate) if rate >= _WHOLE else round(rate, 2)
