# SPDX-License-Identifier: Apache-2.0
"""
The operator's guide, done: its node files are written, its commands run on a real node, and their output is what the page shows.

Numbers and widths of columns may differ, and a line of `...` stands for any lines.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.docs.markdown import ROOT, Block, blocks
from tests.helpers.node import SCRIPTS, Node, node

GUIDE = ROOT / "docs" / "operating.md"
TRAFFIC = "<!-- traffic -->"
FILE = "/etc/xdpchain/node.toml"
_NUMBERS = r"(?:\d[\d.]*%?(?: (?:d|h|min|s|B|kB|MB)\b)* *)+"


@pytest.fixture
def here(namespaces: None, tmp_path: Path, bpffs: Path, cache: Path) -> Iterator[Node]:
    """A node with an interface `eth0`, whose other end is `wire`; not started yet."""
    subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire"], check=True)
    for name in ("eth0", "wire"):
        # nothing but what the test sends
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    with node(tmp_path, bpffs, tmp_path / "plugins", cache) as one:
        yield one
    subprocess.run(["ip", "link", "del", "eth0"], check=True)


def test_the_guide_shows_what_happens(here: Node) -> None:
    for block in blocks(GUIDE):
        if block.info == "toml node.toml":
            here.configure(block.text)
        elif block.info == "console run":
            if TRAFFIC in _before(block):
                _burst()
            for command, expected in _steps(block):
                printed = _run(here, command)
                assert re.fullmatch(_pattern(expected), _plain(printed)), f"{block}: {command}\n{printed}"


def _before(block: Block) -> str:
    """The few lines above a block."""
    return "\n".join(block.page.read_text(encoding="utf-8").splitlines()[max(0, block.line - 4) : block.line])


def _steps(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a block with what it prints."""
    for step in re.split(r"^# ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = step.partition("\n")
        yield command, output


def _run(here: Node, command: str) -> str:
    """Run a command as the page has it; the daemon is started as the service manager would."""
    if command.startswith("systemctl enable --now"):
        here.start()
        return ""
    environment = {**here.environment, "PATH": f"{SCRIPTS}:{here.environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command.replace(FILE, str(here.file))],
        env=environment,
        cwd=GUIDE.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.replace(str(here.file), FILE).replace(str(here.root), "/sys/fs/bpf/xdpchain")


def _plain(text: str) -> str:
    """Text without what differs from run to run: numbers, the blanks between columns, empty lines at the end."""
    lines = [re.sub(r"\s+", " ", re.sub(_NUMBERS, "#", line)).strip() for line in text.rstrip().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _pattern(expected: str) -> str:
    return "".join(r"(?:.*\n)+?" if line == "..." else re.escape(f"{line}\n") for line in _plain(expected).splitlines())


def _burst() -> None:
    """New connections to ports of the example: more than its rules let in, all within a moment."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("wire", 0))
        for port, count in ((80, 1500), (22, 40)):
            syn = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / IP(dst="192.0.2.1") / TCP(dport=port, flags="S"))
            for _ in range(count):
                wire.send(syn)
