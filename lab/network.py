# SPDX-License-Identifier: Apache-2.0
"""
The lab's network: client, node and server, each a network namespace, joined by veth pairs.

::

    client eth0 ---- clients  node  servers ---- eth0 server

The node routes between its two interfaces, and runs xdpchaind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from xdpchain.testing.namespace import End, Namespace

from lab.node import START_S, Node

KEPT = Path("/run/xdpchain-demo.json")
"""Where a lab that was left up says what belongs to it."""
PORT = 80
REPOSITORY = Path(__file__).resolve().parent.parent


@attrs.frozen
class Seen:
    """What a client saw: how many connections ended how, and in how many seconds all of them had begun."""

    counts: Mapping[str, int]
    seconds: float

    @classmethod
    def of(cls, client: subprocess.Popen[str]) -> Self:
        """What it says at its end."""
        said = json.loads(client.communicate()[0])
        return cls(said["seen"], said["seconds"])


class Lab:
    """The network and what runs in it. Use it as a context: everything is taken away at the end, whatever happens, unless `keep` is set."""

    def __init__(self, node_file: str) -> None:
        self.keep = False
        self.folder = Path(tempfile.mkdtemp(prefix="xdpchain-demo-"))
        self.bpffs, self.cache = self.folder / "bpffs", self.folder / "cache"
        self._namespaces: list[Namespace] = []
        self._pids: list[int] = []
        try:
            self.bpffs.mkdir()
            subprocess.run(["mount", "-t", "bpf", "bpf", str(self.bpffs)], check=True)
            self.client, middle, self.server = (self._namespace(label) for label in ("client", "node", "server"))
            near_client, self.client_end = middle.connect(self.client, "clients", "eth0")
            near_server, self.server_end = middle.connect(self.server, "servers", "eth0")
            self._route(self.client, near_client, self.server_end)
            self._route(self.server, near_server, self.client_end)
            for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                middle.run("sh", "-c", f"echo 1 > /proc/sys/{setting}")
            self.node = Node(middle, self.folder / "node", self.bpffs / "xdpchain", self.cache, node_file)
            self._run(self.server, sys.executable, "-m", "lab.web", "serve", str(PORT))
            self._wait_for_server()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"http://{self.server_end.ipv4}:{PORT}/"

    def load(self, *arguments: str) -> Seen:
        """Let the client open connections to the server."""
        return Seen.of(self.start_load(*arguments))

    def start_load(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, beside what happens next."""
        command = (sys.executable, "-m", "lab.web", "load", self.url, *arguments)
        return self.client.start(*command, cwd=REPOSITORY, stdout=subprocess.PIPE)

    def _namespace(self, label: str) -> Namespace:
        self._namespaces.append(Namespace(label))
        return self._namespaces[-1]

    def _route(self, namespace: Namespace, gateway: End, target: End) -> None:
        namespace.run("ip", "route", "add", "default", "via", gateway.ipv4)
        namespace.run("ip", "-6", "route", "add", "default", "via", gateway.ipv6)

    def _run(self, namespace: Namespace, *command: str) -> None:
        process = namespace.start(*command, cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._pids.append(process.pid)

    def _wait_for_server(self) -> None:
        began = time.monotonic()
        while self.load("--connections", "1").counts != {"ok": 1}:
            if time.monotonic() - began > START_S:
                raise RuntimeError("the web server does not answer")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.keep:
            pids = [*self._pids, *filter(None, [self.node.pid])]
            left = {"folder": str(self.folder), "namespaces": [one.name for one in self._namespaces], "pids": pids}
            KEPT.write_text(json.dumps(left))
        else:
            self.close()

    def close(self) -> None:
        """Take everything away."""
        for namespace in self._namespaces:
            namespace.close()
        _remove(self.folder)


def stop_kept() -> bool:
    """Take away a lab that was left up; False where there is none."""
    if not KEPT.exists():
        return False
    left: Mapping[str, Any] = json.loads(KEPT.read_text())
    for pid in left["pids"]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for name in left["namespaces"]:
        subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)
    _remove(Path(left["folder"]))
    KEPT.unlink()
    return True


def _remove(folder: Path) -> None:
    subprocess.run(["umount", str(folder / "bpffs")], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
