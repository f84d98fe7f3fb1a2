# SPDX-License-Identifier: Apache-2.0
"""A node: the installed `xdpchaind` and `xdpchain`, with everything of their own below one directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xdpchain.cli.client import call

PATIENCE_S = 60.0
ENDS_OF_APPLY = {"applied", "apply_failed", "config_refused", "internal_error"}
SCRIPTS = Path(sys.executable).parent


class Node:
    """
    `xdpchaind` with its files below `base`, its pins on `bpffs`, and the plugins in `plugins` beside those of the environment.

    `cache` is the directory of compiled functions.
    """

    def __init__(self, base: Path, bpffs: Path, plugins: Path, cache: Path) -> None:
        self.base, self.plugins = base, plugins
        self.file = base / "etc" / "node.toml"
        self.root = bpffs / "xdpchain"
        self.state = base / "state"
        self.socket = base / "control.sock"
        self.log = base / "log"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        paths = {"CONFIG": self.file, "ROOT": self.root, "STATE": self.state, "CACHE": cache, "SOCKET": self.socket}
        path = os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, **{f"XDPCHAIN_{name}": str(one) for name, one in paths.items()}, "PYTHONPATH": path}
        self.process: subprocess.Popen[bytes] | None = None
        self._events: list[dict[str, Any]] = []
        self._read_to = 0
        self._notify = base / "notify"

    def configure(self, text: str) -> None:
        """Write the node's file."""
        self.file.write_text(text)

    def spawn(self, **environment: str) -> None:
        """Start the daemon and do not wait for it."""
        self.log.write_text("")
        self._events, self._read_to = [], 0
        with self.log.open("ab") as log:
            command = [str(SCRIPTS / "xdpchaind")]
            self.process = subprocess.Popen(command, env={**self.environment, **environment}, stderr=log, stdin=subprocess.DEVNULL)

    def start(self, **environment: str) -> float:
        """Start the daemon and wait until it says, as to systemd, that it is ready; how long that took, in seconds."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self._notify))
            manager.settimeout(0.5)  # then look whether the daemon still lives
            began = time.monotonic()
            self.spawn(NOTIFY_SOCKET=str(self._notify), **environment)
            try:
                while not _is_ready(manager):
                    assert self.running, self.last_words()
                    assert time.monotonic() < began + PATIENCE_S, self.last_words()
                return time.monotonic() - began
            finally:
                self._notify.unlink()

    @property
    def running(self) -> bool:
        """Whether the daemon lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the daemon with a signal; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """What the kernel does to a process that has no memory left, and `kill -9`."""
        self.end(signal.SIGKILL)

    def wait(self) -> int:
        """Until the daemon ends by itself; its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def ask(self, word: str, **arguments: Any) -> dict[str, Any]:
        """One request to the daemon, as the command line makes it, without the start of a process."""
        return call(word, socket=self.socket, **arguments)

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself."""
        return self.ask("status")

    def command(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run `xdpchain`; what it printed, errors first."""
        done = subprocess.run(
            [str(SCRIPTS / "xdpchain"), *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        text = done.stderr + done.stdout
        assert done.returncode == code, f"{' '.join(arguments)} ended with {done.returncode}, not {code}:\n{text}"
        return text

    def data(self, *arguments: str, code: int = 0) -> Any:
        """Run `xdpchain ... --json`."""
        return json.loads(self.command(*arguments, "--json", code=code))

    def hang_up(self) -> list[dict[str, Any]]:
        """Send SIGHUP and wait for the end of the reload; what was logged meanwhile."""
        before = len(self.events())
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        until(lambda: any(event["event"] in ENDS_OF_APPLY for event in self.events()[before:]), self.last_words)
        self.status()  # answered after all of the reload's events
        return self.events()[before:]

    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-2000:]

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What the daemon logged since its start."""
        with self.log.open("rb") as log:
            log.seek(self._read_to)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                if line.startswith(b"{"):
                    self._events.append(json.loads(line))
        return [event for event in self._events if not name or event["event"] == name]

    def close(self) -> None:
        """End the daemon if it lives, and take the datapath away."""
        if self.running:
            self.kill()
        if self.root.is_dir():
            self.command("unload", "--yes")


def _is_ready(manager: socket.socket) -> bool:
    try:
        return b"READY=1" in manager.recv(4096)
    except TimeoutError:
        return False


@contextlib.contextmanager
def node(base: Path, bpffs: Path, plugins: Path, cache: Path) -> Iterator[Node]:
    """A node that is closed at the end."""
    one = Node(base, bpffs, plugins, cache)
    try:
        yield one
    finally:
        one.close()


def until(condition: Callable[[], object], explain: Callable[[], str] = str, patience_s: float = PATIENCE_S) -> float:
    """Wait for something to become true; how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + patience_s, explain()
        time.sleep(0.002)
    return time.monotonic() - began


def node_file(
    chains: Mapping[str, list[str]], instances: Mapping[str, Mapping[str, Any]], *, metrics: str = "off", on_error: str = "pass"
) -> str:
    """The text of a node's file."""
    lines = ["[node]", f'metrics = "{metrics}"', f'on_error = "{on_error}"']
    for interface, chain in chains.items():
        lines += ["", f'[interface."{interface}"]', f"chain = {json.dumps(list(chain))}"]
    for name, table in instances.items():
        lines += ["", f"[function.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"
