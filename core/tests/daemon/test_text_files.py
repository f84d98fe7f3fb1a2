# SPDX-License-Identifier: Apache-2.0
"""A file of text that a key names is part of what is applied, gone back to, and kept."""

from __future__ import annotations

import pytest

from core.tests.daemon.process import Daemon
from core.tests.plugins.build import LIMITER, make_plugin

NODE = """\
[node]
metrics = "off"

[interface.t0]
chain = ["lister"]

[function.lister]
list = "ports.txt"
"""
LISTER = LIMITER.replace(
    'ports: tuple[xdpchain.Port, ...] = option(default=(), help="UDP ports whose packets are dropped.")',
    'list: xdpchain.TextFile = option(help="UDP ports whose packets are dropped, a line each.")',
).replace(
    "class NAME(",
    """def _ports(self):
    return [int(line) for line in self.list.text.split()]


Config.ports = property(_ports)


class NAME(""",
)


@pytest.fixture
def lister(daemon: Daemon, link: str) -> Daemon:
    """A daemon whose node drops the ports 53 and 54, which a file lists."""
    make_plugin(daemon.base / "plugins", "lister", LISTER)
    daemon.configure(NODE)
    write(daemon, 53, 54)
    daemon.start()
    return daemon


def write(daemon: Daemon, *ports: int) -> None:
    (daemon.file.parent / "ports.txt").write_text("".join(f"{port}\n" for port in ports))


def listed(daemon: Daemon) -> set[int]:
    """The ports that the kernel knows."""
    return {element["key"] for element in daemon.data("show", "lister", "lister_ports")["elements"]}


def differs(daemon: Daemon) -> bool:
    """Whether the files say something else than what runs."""
    return bool(daemon.data("status")["config"]["file_differs"])


def test_a_changed_text_is_seen_and_applied(lister: Daemon) -> None:
    assert listed(lister) == {53, 54}
    assert not differs(lister)

    write(lister, 53, 99)

    assert differs(lister)
    lister.cli("apply")
    assert listed(lister) == {53, 99}
    assert not differs(lister)


def test_a_rollback_brings_the_old_text_back(lister: Daemon) -> None:
    write(lister, 99)
    lister.cli("apply")

    lister.cli("rollback")

    assert listed(lister) == {53, 54}
    assert differs(lister)
    lister.end()
    lister.start()
    assert listed(lister) == {53, 54}
    lister.cli("rollback")
    assert listed(lister) == {99}
    assert not differs(lister)


def test_a_start_without_the_text_takes_the_one_that_was_applied_last(lister: Daemon) -> None:
    lister.end()
    (lister.file.parent / "ports.txt").unlink()

    lister.start()

    assert lister.events("last_good_used")
    assert listed(lister) == {53, 54}
