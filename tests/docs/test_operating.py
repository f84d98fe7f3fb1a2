# SPDX-License-Identifier: Apache-2.0
"""The operator's guide is complete: exit codes, error classes, variables, capabilities, paths, and nothing that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import xdpchain
from xdpchain import errors
from xdpchain.daemon.main import unit_file
from xdpchain.daemon.paths import DEFAULTS, variable
from xdpchain.errors import ExitCode, XdpchainError
from xdpchain.plugins import LOAD_VARIABLE, load_plugins

from docs.generate import families
from tests.docs.markdown import ROOT, table

GUIDE = ROOT / "docs" / "operating.md"
TEXT = GUIDE.read_text(encoding="utf-8")
PACKAGE = Path(xdpchain.__file__).parent


def test_the_table_of_exit_codes_is_the_enumeration() -> None:
    rows = table(GUIDE, "Exit codes")

    assert [(str(int(code)), code.name) for code in ExitCode] == [(number, name) for number, name, *_ in rows]


def test_every_error_class_stands_at_its_exit_code() -> None:
    rows = {int(number): set(re.findall(r"`(\w+)`", classes)) for number, _, classes, _ in table(GUIDE, "Exit codes")}

    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, XdpchainError)]
    assert {one.__name__: one.exit_code for one in classes} == {name: ExitCode(number) for number, names in rows.items() for name in names}


def test_every_class_of_errors_has_its_place_in_troubleshooting() -> None:
    section = TEXT.split("## Troubleshooting")[1].split("\n## ")[0]

    codes = {int(code) for codes in re.findall(r"exit code (\d)(?: or (\d))?", section) for code in codes if code}
    assert codes == {int(code) for code in ExitCode if code > ExitCode.USAGE}


def test_every_path_has_its_default_and_its_variable() -> None:
    rows = table(GUIDE, "Files, permissions, environment")

    assert {f"`{variable(name)}`": f"`{path}`" for name, path in DEFAULTS.items()} == {row[2]: row[1] for row in rows}


def test_every_environment_variable_is_documented() -> None:
    documented = set(re.findall(r"XDPCHAIN_[A-Z_]+", TEXT))

    assert documented == set(_variables())


def _variables() -> Iterator[str]:
    yield from (variable(name) for name in DEFAULTS)
    yield LOAD_VARIABLE
    for path in PACKAGE.rglob("*.py"):
        yield from re.findall(r"\"(XDPCHAIN_[A-Z_]+)\"", path.read_text(encoding="utf-8"))


def test_every_capability_of_the_unit_is_explained() -> None:
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", unit_file(Path("/usr/bin/xdpchaind")), re.MULTILINE)

    assert bounding is not None
    section = TEXT.split("## Security")[1].split("\n## ")[0]
    assert set(bounding[1].split()) == set(re.findall(r"`(CAP_\w+)`", section))


def test_rules_and_queries_use_metrics_that_exist() -> None:
    known = {family.name + "_total" * (family.type == "counter") for family in families(load_plugins())}

    used = set(re.findall(r"\bxdpchain_[a-z_]+\b", TEXT)) - {"xdpchain_ratelimit"}
    assert used <= known
    assert known <= used
