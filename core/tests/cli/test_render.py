# SPDX-License-Identifier: Apache-2.0
"""How things look."""

from __future__ import annotations

import click
import pytest
from xdpchain.cli import render
from xdpchain.errors import CompileError, Problem


def test_long_details_keep_their_beginning_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    details = "\n".join(f"line {number}" for number in range(1000))

    render.show_error(CompileError("limiter", "clang refuses it", details=details, hint="look"), as_json=False)

    text = capsys.readouterr().err
    assert text.startswith("error: plugin 'limiter': clang refuses it\n  | line 0\n")
    assert "  | ... 960 lines more with --json ...\n" in text
    assert text.endswith("  | line 999\nhint: look\n")


def test_json_has_all_details(capsys: pytest.CaptureFixture[str]) -> None:
    render.show_error(CompileError("limiter", "no", details="x\n" * 1000), as_json=True)

    assert capsys.readouterr().out.count("x\\n") == 1000


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(("interface", "tap*", "chain", 0), "no", "", "f.toml", 3), 'f.toml:3: interface."tap*".chain[0]: no'),
        (Problem((), "cannot be read", "write it", "f.toml"), "f.toml: cannot be read\n    hint: write it"),
        (Problem(("node",), "no"), "node: no"),
    ],
)
def test_a_problem_is_place_key_and_message(problem: Problem, text: str) -> None:
    assert click.unstyle(render.problem_text(problem)) == text


def test_a_table_has_columns_and_numbers_stand_right() -> None:
    table = render.columns(("NAME", "N"), [("a", 5), ("bcd", 100), ("e", None)], "  ")

    assert click.unstyle(table) == "  NAME    N\n  a       5\n  bcd   100\n  e       -"


def test_an_empty_table_is_its_header() -> None:
    assert "NAME  N" in render.columns(("NAME", "N"), [])


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e15, "3000.0 TB")])
def test_amounts_are_short(number: float, text: str) -> None:
    assert render.amount(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (61, "1 min 1 s"), (7265, "2 h 1 min"), (86400, "1 d"), (90061, "1 d 1 h")])
def test_spans_are_short(seconds: float, text: str) -> None:
    assert render.span(seconds) == text
