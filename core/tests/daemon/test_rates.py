# SPDX-License-Identifier: Apache-2.0
"""What becomes of a table's counters between two looks."""

from __future__ import annotations

from typing import Any

from xdpchain import Table
from xdpchain.daemon.rates import with_rates

COLUMNS = ("vip", "backend", "weight", "packets", "bytes")


def table(*rows: tuple[Any, ...], title: str = "t") -> Table:
    return Table(COLUMNS, rows, title, counters=("packets", "bytes"), key=2)


def test_a_rate_stands_behind_each_counter_of_the_same_row() -> None:
    before = table(("v", "a", 1, 100, 1000), ("v", "b", 1, 5, 0))
    now = table(("v", "b", 2, 6, 0), ("v", "a", 1, 2100, 4000))

    (shown,) = with_rates([before], [now], 2.0)

    assert ["vip", "backend", "weight", "packets", "packets/s", "bytes", "bytes/s"] == list(shown.columns)
    assert [["v", "b", 2, 6, 0.5, 0, 0.0], ["v", "a", 1, 2100, 1000, 4000, 1500]] == shown.rows


def test_there_is_no_rate_without_a_row_before_or_where_a_counter_began_anew() -> None:
    now = table(("v", "new", 1, 6, 60), ("v", "a", 1, 3, None))

    (shown,) = with_rates([table(("v", "a", 1, 100, 1000))], [now], 1.0)

    assert [["v", "new", 1, 6, None, 60, None], ["v", "a", 1, 3, None, None, None]] == shown.rows


def test_tables_without_counters_and_new_ones_stay_as_they_are() -> None:
    plain, new = Table(("port",), [(1,)], "ports"), table(("v", "a", 1, 1, 1), title="new")

    assert [plain, new] == with_rates([plain, table(title="old")], [plain, new], 1.0)
