# SPDX-License-Identifier: Apache-2.0
"""The guide for authors: its blocks are a package that works and prints what it says, and it leaves nothing out."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from xdpchain import Hook, KernelFunction, MapKind, NextHop, Role, Verdict, hookspecs
from xdpchain.bpf.unit import INCLUDE
from xdpchain.testing import LoadChain, LoadedChain, plugin

from tests.docs.markdown import ROOT, Block, blocks

GUIDE = ROOT / "docs" / "writing-a-function.md"
TEXT = GUIDE.read_text(encoding="utf-8")
_DIRECTIVE = re.compile(r"<!-- (?P<word>file|apart|output|broken)(?:: (?P<what>.*))? -->")


def directive(block: Block, word: str) -> str | None:
    """What the comment in the line above a block says for a word; None where there is none."""
    above = _DIRECTIVE.fullmatch(TEXT.splitlines()[block.line - 2])
    return (above["what"] or "") if above and above["word"] == word else None


@attrs.frozen
class Package:
    """The guide's package, written to a directory; `site` announces it as an installed distribution."""

    path: Path
    site: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody would who has followed the guide so far."""
        paths = [str(self.site), str(self.path / "src"), *filter(None, sys.path)]
        environment = {
            **os.environ,
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDPCHAIN_LOAD_PLUGINS": "antiamp",
            "XDPCHAIN_CACHE": str(self.site / "cache"),
        }
        return subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)

    def said(self, done: subprocess.CompletedProcess[str]) -> str:
        """What it printed, without the place of the package."""
        return (done.stdout + done.stderr).replace(f"{self.path}/", "")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The blocks of each file, one after the other."""
    one = Package(tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site"))
    for block in blocks(GUIDE):
        if name := directive(block, "file"):
            path = one.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(block.text)
            path.chmod(0o644)
    project = tomllib.loads((one.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = one.site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["xdpchain"].items())
    (info / "entry_points.txt").write_text(f"[xdpchain]\n{points}")
    return one


def test_the_tests_of_the_guide_pass(package: Package) -> None:
    done = package.run(
        sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir=.", "tests"
    )

    written = (package.path / "tests/test_antiamp.py").read_text(encoding="utf-8").count("\ndef test_")
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout
    assert passed
    assert int(passed[1]) >= written


@pytest.mark.parametrize("block", [block for block in blocks(GUIDE) if directive(block, "output") is not None], ids=str)
def test_commands_print_what_the_guide_shows(package: Package, block: Block) -> None:
    for step in re.split(r"^# ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")

        assert package.said(package.run("bash", "-c", command)) == expected, command


@pytest.mark.parametrize("block", [block for block in blocks(GUIDE) if directive(block, "broken") is not None], ids=str)
def test_a_mistake_is_answered_as_the_guide_shows(package: Package, block: Block) -> None:
    right, _, wrong = (directive(block, "broken") or "").partition(" => ")
    source = package.path / "src/xdpchain_antiamp/antiamp.bpf.c"
    text = source.read_text(encoding="utf-8")
    assert right in text
    try:
        source.write_text(text.replace(right, wrong), encoding="utf-8")
        done = package.run("xdpchain", "trace", "--config", "node.toml", "--interface", "eth0", "--packet", "IP()/UDP()")
    finally:
        source.write_text(text, encoding="utf-8")

    assert package.said(done).startswith(block.text)


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> KernelFunction[Any]:
    """The function that the guide has apart from its package."""
    folder = tmp_path_factory.mktemp("spread")
    for block in blocks(GUIDE):
        if name := directive(block, "apart"):
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(block.text)
    found: KernelFunction[Any] = runpy.run_path(str(folder / "spread.py"))["Spread"]()
    return found


BACKENDS = ("192.0.2.1", "192.0.2.2", "2001:db8::3")
HOPS = {ip_address(backend): NextHop("eth0", mac=bytes((2, 0, 0, 0, 0, number)), here=True) for number, backend in enumerate(BACKENDS)}


@pytest.fixture
def chain(load_chain: LoadChain, spread: KernelFunction[Any]) -> LoadedChain:
    document = {"interface": {"eth0": {"chain": ["spread"]}}, "function": {"spread": {"backend": list(BACKENDS), "per_second": 1000}}}
    loaded = load_chain(document, functions=[spread])
    loaded.follow("spread", HOPS)
    return loaded


def test_the_table_of_the_guide_spreads_packets_over_all_backends(chain: LoadedChain) -> None:
    results = {port: chain.send(Ether() / IP() / UDP(sport=port, dport=4000)) for port in range(1000, 1100)}
    told = {port: chain.answer("spread", {"port": port})["backend"] for port in results}

    assert {(Verdict.TX, "sent")} == {(result.verdict, result.reason) for result in results.values()}
    assert told == {port: BACKENDS[result.packet[5]] for port, result in results.items()}
    assert set(BACKENDS) == set(told.values())


def test_the_guide_has_hardware_addresses_written_before_the_table_that_needs_them(chain: LoadedChain) -> None:
    one = chain.config.instances["spread"]
    chain.follow("spread", dict.fromkeys(HOPS, NextHop()))
    lost = chain.send(Ether() / IP() / UDP(dport=4000)).reason
    writes = list(one.function.configure_with_hops(one.config, one.config, chain.maps["spread"], HOPS))
    chain.carry_out("spread", writes[: len(BACKENDS)])

    assert ["no_backend", "sent"] == [lost, chain.send(Ether() / IP() / UDP(dport=4000)).reason]
    assert list(one.function.configure(one.config, one.config, chain.maps["spread"])) == writes[len(BACKENDS) :]


def test_the_table_of_the_guide_is_built_anew_for_another_config(chain: LoadedChain) -> None:
    chain.configure("spread", {"backend": [*BACKENDS[1:], BACKENDS[1]], "per_second": 1000})
    chain.follow("spread", HOPS)

    assert BACKENDS[0] not in {chain.answer("spread", {"port": port})["backend"] for port in range(1000, 1100)}
    assert chain.maps["spread"]["spread_tables"].inner(0) is None


def test_what_is_due_each_second_is_done(chain: LoadedChain) -> None:
    packet = Ether() / IP() / UDP(sport=1000, dport=4000)
    chain.configure("spread", {"backend": list(BACKENDS), "per_second": 1})
    reasons = [chain.send(packet).reason, chain.send(packet).reason]
    chain.upkeep("spread")

    assert ["sent", "no_token", "sent"] == [*reasons, chain.send(packet).reason]


def test_a_way_that_is_not_known_is_warned_of(chain: LoadedChain) -> None:
    before = chain.warnings("spread")
    lost = ip_address(BACKENDS[0])
    chain.follow("spread", {**HOPS, lost: NextHop()})
    function, config = chain.config.instances["spread"].function, chain.config.instances["spread"].config
    (problem,) = function.check_next_hops(config, {**HOPS, lost: NextHop()})

    assert [] == before
    assert [f"the way to {BACKENDS[0]} is not known: its packets are dropped"] == chain.warnings("spread")
    assert ("backend", 0) == problem.path
    assert {*HOPS} == {*function.destinations(config)}


def _fields_of_the_packet() -> list[str]:
    header = (INCLUDE / "packet.h").read_text(encoding="utf-8")
    body = re.search(r"^struct packet \{\n(.*?)^\};", header, re.MULTILINE | re.DOTALL)
    assert body is not None
    return re.findall(r"^\t[\w ]+?[ *]+(\w+);", body[1], re.MULTILINE)


def _methods() -> list[str]:
    return [name for name in vars(KernelFunction) if not name.startswith("_")]


@pytest.mark.parametrize(
    "word",
    [
        *_fields_of_the_packet(),
        *(verdict.name for verdict in Verdict),
        *(f"Hook.{hook.name}" for hook in Hook),
        *(kind.name for kind in MapKind),
        *(role.name for role in Role),
        *(name for name in vars(hookspecs) if name.startswith("xdpchain_")),
        *(name for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"),
    ],
)
def test_everything_that_an_author_can_use_is_in_the_guide(word: str) -> None:
    assert f"`{word}`" in TEXT


@pytest.mark.parametrize("name", ["api", "name", "summary", "source", "config", "programs", *_methods()])
def test_every_part_of_a_function_is_shown(name: str) -> None:
    assert re.search(rf"\n    (?:def {name}\(|{name} = )", TEXT)
