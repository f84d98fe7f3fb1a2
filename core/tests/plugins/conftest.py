# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.tests.plugins.build import importable


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory on the import path; what is imported from it is forgotten afterwards."""
    path = tmp_path / "plugins"
    path.mkdir(mode=0o755)
    with importable(path):
        yield path
