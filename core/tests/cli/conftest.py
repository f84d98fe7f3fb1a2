# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from xdpchain.cli import main

from core.tests.plugins.build import importable, make_plugin

Run = Callable[..., Result]

NODE = '[interface.t0]\nchain = ["limiter"]\n\n[function.limiter]\nports = [53]\n'


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A good node's file."""
    path = tmp_path / "etc" / "node.toml"
    path.parent.mkdir()
    path.write_text(NODE)
    return path


@pytest.fixture
def run(tmp_path: Path, bpffs: Path, node: Path) -> Iterator[Run]:
    """Runs `xdpchain` with the plugin `limiter` and paths below the test's own directory; no daemon runs."""
    make_plugin(tmp_path / "plugins")
    environment = {
        "XDPCHAIN_CONFIG": str(node),
        "XDPCHAIN_ROOT": str(bpffs / "xdpchain"),
        "XDPCHAIN_STATE": str(tmp_path / "state"),
        "XDPCHAIN_CACHE": str(tmp_path / "cache"),
        "XDPCHAIN_SOCKET": str(tmp_path / "run" / "control.sock"),
    }

    def invoke(*arguments: str, code: int = 0, typed: str = "") -> Result:
        result = CliRunner(env=environment).invoke(main, arguments, prog_name="xdpchain", input=typed, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    with importable(tmp_path / "plugins"):
        yield invoke
