# SPDX-License-Identifier: Apache-2.0
"""
Every file in `broken/` gives exactly the problems that its head names, one `#!` line for each.

`says` and `hint` are parts of the message and the hint; a problem of the whole file has no path.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from xdpchain.config import key_path, load
from xdpchain.errors import ConfigError, Problem

from core.tests.config.example import FUNCTIONS

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.toml"))


def _expected(file: Path) -> list[dict[str, str]]:
    heads = [line for line in file.read_text().splitlines() if line.startswith("#!")]
    return [dict(word.split("=", 1) for word in shlex.split(head[2:])) for head in heads]


def _fits(problem: Problem, expected: dict[str, str]) -> bool:
    return (
        str(problem.line) == expected["line"]
        and key_path(problem.path) == expected.get("path", "")
        and expected["says"] in problem.message
        and expected.get("hint", "") in problem.hint
    )


@pytest.mark.parametrize("broken", BROKEN, ids=lambda file: file.stem)
def test_a_broken_file_gives_exactly_its_problems(broken: Path, tmp_path: Path) -> None:
    node = tmp_path / "node.toml"
    shutil.copyfile(broken, node)  # a file of our own: who owns the checkout is not the point here
    expected = _expected(broken)

    with pytest.raises(ConfigError) as raised:
        load(node, FUNCTIONS)

    problems = raised.value.problems
    shown = "\n".join(f"{problem.line} {key_path(problem.path)}: {problem.message} ({problem.hint})" for problem in problems)
    assert len(problems) == len(expected), shown
    assert all(_fits(problem, want) for problem, want in zip(problems, expected, strict=True)), shown
    assert {problem.file for problem in problems} == {str(node)}
    assert all(problem.hint for problem in problems), shown


def test_there_are_enough_broken_files() -> None:
    assert len(BROKEN) >= 45
