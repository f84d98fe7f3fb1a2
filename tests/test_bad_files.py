# SPDX-License-Identifier: Apache-2.0
"""
Every broken node file of the core's tests, through the real command and by SIGHUP, against a node that carries traffic: each is refused in
plain words, and nothing changes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
from xdpchain.errors import ExitCode

import core.tests.config
from core.tests.chain.conftest import Wire
from tests.helpers.distribution import install
from tests.helpers.node import Node
from tests.helpers.standstill import Standing, counts, standing
from tests.helpers.traffic import Sender, marked_frame, syn_frame

CORE_TESTS = Path(next(iter(core.tests.config.__path__)))
BROKEN = sorted((CORE_TESTS / "broken").glob("*.toml"))
RATE = 20
NODE = f"""\
[node]
metrics = "off"

[interface.near]
chain = ["ratelimit", "trail"]

[function.ratelimit]
window = "1h"
rule = [{{ ports = [80], rate = {RATE} }}]
"""


@attrs.frozen
class Bed:
    """A node under traffic, and what it is before anything is refused."""

    node: Node
    sender: Sender
    before: Standing


@pytest.fixture
def bed(here: Node, wire: Wire) -> Iterator[Bed]:
    """A running node, whose plugins bring the functions that the broken files are about."""
    example = (CORE_TESTS / "example.py").read_text().replace('Path("', 'Path(__file__).with_name("')
    hook = "\n\nimport xdpchain\n\n\n@xdpchain.hookimpl\ndef xdpchain_functions():\n    return FUNCTIONS.values()\n"
    sources = {f"{name}.bpf.c": "never compiled\n" for name in ("limit", "mark", "spread")}
    install(here.plugins, "example", {"example.py": example + hook, **sources})
    here.configure(NODE)
    here.start()
    with Sender("far", [marked_frame(), syn_frame(80)]) as sender:
        yield Bed(here, sender, standing(here))


def expected(broken: Path) -> list[Mapping[str, str]]:
    """The problems that a file's head names: line, path, and parts of what is said."""
    return [dict(word.split("=", 1) for word in shlex.split(line[2:])) for line in broken.read_text().splitlines() if line.startswith("#!")]


def complaints(text: str, file: Path, broken: Path) -> list[str]:
    """What is missing in the words of a refusal."""
    found = [line for line in text.splitlines() if line.startswith(f"{file}")]
    wrong = []
    for line, want in zip(found, expected(broken), strict=False):
        head = ": ".join(filter(None, (f"{file}:{want['line']}", want.get("path", ""))))
        if not (line.startswith(head) and want["says"] in line):
            wrong.append(f"{line!r} is not {want}")
    if len(found) != len(expected(broken)):
        wrong.append(f"{len(found)} problems, not {len(expected(broken))}")
    if text.count("    hint: ") != len(found):
        wrong.append("a problem without a hint")
    return wrong


def check_nothing_changed(bed: Bed) -> None:
    """The same programs, pins and generation, and every frame since the start is accounted for by them."""
    assert "" == bed.before.changes(standing(bed.node))

    rounds = bed.sender.stop()
    found = counts(bed.node)
    assert rounds > RATE
    assert {
        ("near", "trail", "NEXT", "marked"): rounds,
        ("near", "ratelimit", "NEXT", "admitted"): RATE,
        ("near", "ratelimit", "DROP", "rate_exceeded"): rounds - RATE,
    } == {key: count for key, count in found.items() if key[3]}


def test_the_command_refuses_every_broken_file_in_plain_words_and_nothing_changes(bed: Bed, tmp_path: Path) -> None:
    def refused(broken: Path) -> list[str]:
        file = tmp_path / broken.name
        file.write_text(broken.read_text())
        file.chmod(0o600)
        return complaints(bed.node.command("apply", "--config", str(file), code=ExitCode.CONFIG), file, broken)

    with ThreadPoolExecutor(4) as pool:
        wrong = {broken.name: found for broken, found in zip(BROKEN, pool.map(refused, BROKEN), strict=True) if found}

    assert len(BROKEN) >= 40
    assert {} == wrong
    assert bed.node.status()["config"]["error"]["exit_code"] == ExitCode.CONFIG
    check_nothing_changed(bed)


def test_a_reload_of_every_broken_file_is_refused_and_nothing_changes(bed: Bed) -> None:
    wrong = {}
    for broken in BROKEN:
        bed.node.configure(broken.read_text())
        logged = bed.node.hang_up()
        found = [(str(one["line"]), one["problem"]) for one in logged if one["event"] == "config_problem" and one["hint"]]
        want = [(one["line"], one["says"]) for one in expected(broken)]
        fits = len(found) == len(want) and all(
            line == at and says in problem for (line, problem), (at, says) in zip(found, want, strict=True)
        )
        if not (fits and "config_refused" in {one["event"] for one in logged}):
            wrong[broken.name] = logged

    assert {} == wrong
    assert bed.node.status()["config"]["file_differs"]
    check_nothing_changed(bed)
