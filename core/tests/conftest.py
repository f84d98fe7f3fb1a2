# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all of the core's tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from core.tests.isolation import leave_the_machine_alone


@pytest.fixture(scope="session", autouse=True)
def own_namespaces() -> None:
    """Leave the machine's network and mounts alone."""
    leave_the_machine_alone()


@pytest.fixture
def bpffs(tmp_path: Path) -> Path:
    """An empty bpffs."""
    path = tmp_path / "bpffs"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    return path
