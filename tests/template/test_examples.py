# SPDX-License-Identifier: Apache-2.0
"""The examples are what they look like: distributions that build, install and pass their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template.conftest import ROOT, Environment

EXAMPLES = sorted((ROOT / "examples").iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_its_tests_against_its_installed_wheel(environment: Environment, example: Path, tmp_path: Path) -> None:
    environment.install(example, tmp_path)

    done = environment.run("python", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", cwd=example)

    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
    environment.uninstall(example.name)
