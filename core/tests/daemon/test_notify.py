# SPDX-License-Identifier: Apache-2.0
"""What the service manager gets to hear."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdpchain.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and its address as systemd writes it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@xdpchain-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0") if address.startswith("@") else address)
        listener.settimeout(5)
        yield listener, address


def test_each_state_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    notifier = Notifier(address)

    notifier.ready("two\nlines")
    notifier.stopping()
    notifier.status("busy")
    notifier.alive()

    told = [listener.recv(1000) for _ in range(4)]
    assert told == [b"READY=1\nSTATUS=two lines", b"STOPPING=1", b"STATUS=busy", b"WATCHDOG=1"]


def test_a_reload_carries_the_time_of_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    before = time.monotonic_ns() // 1000

    Notifier(address).reloading()

    first, second = listener.recv(1000).split(b"\n")
    assert first == b"RELOADING=1"
    name, _, value = second.partition(b"=")
    assert name == b"MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_the_environment_is_read_and_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    assert Notifier.from_environment() == Notifier("/run/x", 30.0)
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")

    assert Notifier.from_environment().watchdog_s == 0


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        while not is_full(tmp_path / "notify"):
            pass
        begin = time.monotonic()

        notifier.alive()

        assert time.monotonic() - begin < 5


def is_full(path: Path) -> bool:
    """Whether a datagram would have to wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        probe.connect(str(path))
        try:
            probe.send(b"x")
        except BlockingIOError:
            return True
        return False


def test_no_manager_and_a_manager_that_is_gone_are_no_errors() -> None:
    Notifier().ready("fine")
    Notifier("/nowhere/notify").ready("fine")
