# SPDX-License-Identifier: Apache-2.0
"""A node of the lab: xdpchaind and its command line in one namespace, with nothing where that of the machine would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xdpchain.cli.client import NotRunningError, call
from xdpchain.testing.namespace import Namespace

START_S = 60.0
BIN = Path(sys.executable).parent


class Node:
    """
    xdpchaind with a node's file; not started yet.

    Args:
        namespace: where it runs.
        folder: for all that it writes.
        root: where it pins, on a BPF file system.
        cache: compiled functions; several nodes may share it.
        node_file: the text of its file.
    """

    def __init__(self, namespace: Namespace, folder: Path, root: Path, cache: Path, node_file: str) -> None:
        self.namespace, self.folder = namespace, folder
        self.file, self.plugins = folder / "node.toml", folder / "plugins"
        self.plugins.mkdir(parents=True)
        self.file.write_text(node_file)
        self._socket, self._log = folder / "control.sock", folder / "daemon.log"
        self.environment = {
            **os.environ,
            "XDPCHAIN_CONFIG": str(self.file),
            "XDPCHAIN_ROOT": str(root),
            "XDPCHAIN_STATE": str(folder / "state"),
            "XDPCHAIN_CACHE": str(cache),
            "XDPCHAIN_SOCKET": str(self._socket),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.plugins), os.environ.get("PYTHONPATH")))),
        }
        self._daemon: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The daemon's, if it runs."""
        return self._daemon.pid if self._daemon else None

    @property
    def running(self) -> bool:
        """Whether the daemon lives."""
        return self._daemon is not None and self._daemon.poll() is None

    def start(self) -> float:
        """Start xdpchaind; returns after how many seconds it answered."""
        began = time.monotonic()
        self.spawn()
        self.wait_until_ready()
        return time.monotonic() - began

    def spawn(self) -> None:
        """Start xdpchaind and do not wait for it."""
        with self._log.open("a") as log:
            command = (str(BIN / "xdpchaind"), "--log-format", "json")
            self._daemon = self.namespace.start(*command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def wait_until_ready(self) -> None:
        """Wait until it answers, which it does when its chains run."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._daemon and self._daemon.poll() is None:
            try:
                self.ask("status")
            except NotRunningError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"xdpchaind did not start:\n{self.last_words()}")

    def ask(self, word: str, **arguments: Any) -> dict[str, Any]:
        """One request to the daemon, as the command line makes it, without the start of a process."""
        return call(word, socket=self._socket, **arguments)

    def put(self, instance: str, key: str, text: str) -> None:
        """Have the file that a key of an instance names exchanged and applied, as a control plane does: `xdpchain put`."""
        self.ask("put", instance=instance, key=key, data=text.encode())

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-3000:] if self._log.exists() else ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop xdpchaind; the chains stay."""
        if self._daemon:
            self._daemon.send_signal(number)
            self._daemon.wait()
            self._daemon = None

    def xdpchain(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.namespace.run(str(BIN / "xdpchain"), *arguments, check=check, env=self.environment)
