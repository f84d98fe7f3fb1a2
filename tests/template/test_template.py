# SPDX-License-Identifier: Apache-2.0
"""What `xdpchain new` writes builds, installs, passes its own tests and runs, at once and under any name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.template.conftest import Environment

NAME = "port_guard"


@pytest.fixture(scope="module")
def repository(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new function, as the installed command writes it."""
    folder = tmp_path_factory.mktemp("work")
    environment.run("xdpchain", "new", NAME, cwd=folder)
    return folder / f"xdpchain-{NAME}"


@pytest.fixture(scope="module")
def wheel(environment: Environment, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its wheel, installed."""
    yield environment.install(repository, tmp_path_factory.mktemp("wheel"))
    environment.uninstall(f"xdpchain-{NAME}")


def test_the_repository_has_five_files(repository: Path) -> None:
    files = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())

    package = f"src/xdpchain_{NAME}"
    assert files == ["README.md", "pyproject.toml", f"{package}/__init__.py", f"{package}/{NAME}.bpf.c", f"tests/test_{NAME}.py"]


def test_the_wheel_has_the_source_of_the_program(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert f"xdpchain_{NAME}/{NAME}.bpf.c" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_its_own_tests_pass_against_the_installed_wheel(environment: Environment, repository: Path, wheel: Path) -> None:
    done = environment.run("python", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", cwd=repository)

    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def test_the_installed_function_is_found_and_runs(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[interface.eth0]\nchain = ["{NAME}"]\n[function.{NAME}]\nprefixes = ["192.0.2.0/24"]\n')
    config.chmod(0o644)

    listed = json.loads(environment.run("xdpchain", "plugins", "--json").stdout)
    traced = environment.run(
        "xdpchain", "trace", "--config", str(config), "--interface", "eth0", "--packet", 'IP(src="192.0.2.9")/UDP()', "--json"
    )

    assert [function["name"] for one in listed["loaded"] for function in one["functions"]] == [NAME]
    assert json.loads(traced.stdout)["reason"] == "blocked"


def test_a_name_that_is_installed_is_not_given_twice(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    done = environment.run("xdpchain", "new", NAME, cwd=tmp_path, check=False)

    assert done.returncode == 2
    assert f"a plugin '{NAME}' is installed here" in done.stderr
    assert list(tmp_path.iterdir()) == []
