# SPDX-License-Identifier: Apache-2.0
"""A real daemon for tests, with everything of its own below one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from xdpchain.cli import main

START_S = 60.0


class Daemon:
    """`xdpchaind` with its files below `base` and its pins on `bpffs`; `plugins` is where its plugins are, `cache` may be shared."""

    def __init__(self, base: Path, bpffs: Path, plugins: Path, cache: Path) -> None:
        self.base = base
        self.file = base / "etc" / "node.toml"
        self.root = bpffs / "xdpchain"
        self.socket = base / "run" / "control.sock"
        self.log = base / "log"
        self.file.parent.mkdir(exist_ok=True)
        paths = {"CONFIG": self.file, "ROOT": self.root, "STATE": base / "state", "CACHE": cache, "SOCKET": self.socket}
        python_path = os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, **{f"XDPCHAIN_{name}": str(path) for name, path in paths.items()}, "PYTHONPATH": python_path}
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, text: str) -> None:
        """Write the node's file."""
        self.file.write_text(text)

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it serves clients."""
        self.spawn()
        if ready:
            self.wait_for(lambda: self.events("ready"))

    def spawn(self, *under: str) -> None:
        """Start it, by another command if one is given."""
        self.log.write_text("")
        command = [*under, sys.executable, "-c", "from xdpchain.daemon.main import main; main()"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, stdin=subprocess.DEVNULL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(START_S)
        self.process = None
        return code

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it logged."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not name or line["event"] == name]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until something is true; the daemon must live meanwhile."""
        until = time.monotonic() + START_S
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """Run `xdpchain` in this process; what it printed (both streams)."""
        done = CliRunner(env=self.environment).invoke(main, arguments, prog_name="xdpchain")
        assert done.exit_code == code, "".join(traceback.format_exception(done.exception)) if done.exception else done.output
        return done.output

    def data(self, *arguments: str, code: int = 0) -> Any:
        """Run `xdpchain ... --json`."""
        return json.loads(self.cli(*arguments, "--json", code=code))
