# SPDX-License-Identifier: Apache-2.0
"""A function to trace: the one that `xdpchain new` writes, installed as it stands in the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from xdpchain import template
from xdpchain.cli import main

Trace = Callable[..., Result]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which geoblock is announced; its code is where it is."""
    folder = tmp_path / "site"
    info = folder / "xdpchain_geoblock-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xdpchain-geoblock\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[xdpchain]\ngeoblock = xdpchain_geoblock\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(Path(template.__file__).parent / "src"))
    monkeypatch.setenv("XDPCHAIN_LOAD_PLUGINS", "geoblock")
    monkeypatch.delitem(sys.modules, "xdpchain_geoblock", raising=False)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled functions for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two instances, of which each drops what comes from its own prefix."""
    path = tmp_path / "node.toml"
    path.write_text(
        """
        [interface.eth0]
        chain = ["near", "geoblock"]
        [function.near]
        plugin = "geoblock"
        prefixes = ["10.1.0.0/16"]
        [function.geoblock]
        prefixes = ["10.2.0.0/16", "2001:db8:bad::/48"]
        """
    )
    return path


@pytest.fixture
def trace(installed: Path, cache: Path, config: Path) -> Trace:
    """Run the command: `trace("--pcap", FILE)`."""

    def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
        given = ["trace", "--config", config, "--cache", cache, "--interface", "eth0", *arguments]
        return CliRunner().invoke(main, [str(one) for one in given], input=stdin)

    return run
