# SPDX-License-Identifier: Apache-2.0
"""A fresh virtual environment with the wheel of the core, as the authors of functions have it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
NETWORK = os.open("/proc/self/ns/net", os.O_RDONLY)
"""the machine's, opened while tests are collected: those of other folders leave it, and pip may need it"""


@attrs.frozen
class Environment:
    """A virtual environment that has nothing of the one in which this test runs."""

    path: Path

    def run(self, program: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its programs."""
        command = ("nsenter", f"--net=/proc/self/fd/{NETWORK}", str(self.path / "bin" / program), *arguments)
        done = subprocess.run(
            command,
            cwd=cwd or self.path,
            env=clean(os.environ),
            pass_fds=(NETWORK,),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def install(self, repository: Path, wheels: Path) -> Path:
        """Build a repository's wheel and install that."""
        self.run(
            "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(repository)
        )
        (wheel,) = wheels.glob("*.whl")
        self.run("python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel))
        return wheel

    def uninstall(self, name: str) -> None:
        self.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", name)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What decides where Python finds modules, and what xdpchain does, stays here; settings of pip go along."""
    return {
        name: value for name, value in environment.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "XDPCHAIN", "PYTEST", "COV"))
    }


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's wheel: tox has built it, else it is built now."""
    folder = os.environ.get("XDPCHAIN_WHEELS")
    if folder is None:
        folder = str(tmp_path_factory.mktemp("wheels"))
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT / "core", check=True)
    (wheel,) = Path(folder).glob("xdpchain-*.whl")
    return wheel


@pytest.fixture(scope="session")
def environment(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With the core, what its tests' fixtures need, and the build backend of the repositories."""
    path = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True, env=clean(os.environ))
    one = Environment(path)
    one.run("python", "-m", "pip", "install", "--quiet", f"xdpchain[testing] @ {core_wheel.as_uri()}", "hatchling>=1.27")
    return one
