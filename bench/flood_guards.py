# SPDX-License-Identifier: Apache-2.0
"""What stands against a flood: ratelimit, and for comparison what the kernel brings along, with the same rate, burst and size of table."""

from __future__ import annotations

import contextlib
import enum
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine, unload
from xdpchain.config import loads
from xdpchain.netlink import list_interfaces
from xdpchain.testing.namespace import Netns
from xdpchain_ratelimit import Ratelimit

from bench.flood_lab import PORT, Lab, Programs
from bench.node import bpffs

RATE, BURST = 9, 3
"""A source's own limit: so many a minute, and so many at once."""
_TABLE = 131_072
_KEPT_S = 600
"""How long a source is remembered: longer than between two measurements, or it would begin anew in each."""
_SHARED_PLENTY, _SHARED_SCARCE = 1_000_000, 1000
KNOWN, UNKNOWN = "64k sources", "any source"

_HASHLIMIT = (
    f"iptables -t raw -A PREROUTING -p tcp --dport {PORT} --syn -m hashlimit --hashlimit-name flood --hashlimit-mode srcip "
    f"--hashlimit-above {RATE}/minute --hashlimit-burst {BURST} "
    f"--hashlimit-htable-size {_TABLE // 2} --hashlimit-htable-max {_TABLE} --hashlimit-htable-expire {_KEPT_S * 1000} -j DROP"
)
_METER = f"""
table netdev flood {{
  set sources {{
    type ipv4_addr
    size {_TABLE}
    flags dynamic,timeout
    timeout {_KEPT_S}s
  }}
  chain ingress {{
    type filter hook ingress device eth0 priority 0
    tcp dport {PORT} tcp flags & (syn|ack) == syn add @sources {{ ip saddr limit rate over {RATE}/minute burst {BURST} packets }} drop
  }}
}}
"""


class Kind(enum.Enum):
    """What a guard is there for."""

    BARE = "the cost of the flood itself"
    OURS = "ratelimit"
    THEIRS = "what ratelimit is compared with"


@attrs.frozen
class Guard:
    """What stands against a flood, in a lab of its own."""

    kind: Kind
    name: str
    flood: str
    lab: Lab

    @property
    def case(self) -> str:
        return f"{self.name}, {self.flood}"


def guards(stack: contextlib.ExitStack, compiler: Compiler, folder: Path) -> Iterator[Guard]:
    """All of them, each with its server; what is not installed is left out, and said so."""
    netns, programs = stack.enter_context(Netns()), Programs(compiler)
    bare = Lab(netns, programs, 0xFFFF)
    bare.drop_all()
    yield Guard(Kind.BARE, "bare XDP_DROP", KNOWN, bare)

    for flood, hosts, action, rate in ((KNOWN, 0xFFFF, "drop", _SHARED_PLENTY), (UNKNOWN, 0x1FFFFFFF, "syn-cookie", _SHARED_SCARCE)):
        lab = Lab(netns, programs, hosts)
        lab.serve()
        _ratelimit(stack, lab, compiler, folder / action, action, rate)
        yield Guard(Kind.OURS, f"ratelimit {action}", flood, lab)
        for name, command, put in (("iptables hashlimit", "iptables", _iptables), ("nftables meter", "nft", _nftables)):
            if not shutil.which(command):
                print(f"flood: {command} is not installed: no comparison with {name}, {flood}", file=sys.stderr)
                continue
            lab = Lab(netns, programs, hosts)
            lab.serve()
            put(lab)
            yield Guard(Kind.THEIRS, name, flood, lab)


def _ratelimit(stack: contextlib.ExitStack, lab: Lab, compiler: Compiler, folder: Path, action: str, rate: int) -> None:
    own = {"rate": RATE, "window": "1m", "burst": BURST}
    rule = {"ports": [PORT], "rate": rate, "window": "1s", "action": action, "per_source": own}
    document = {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": {"sources": _TABLE, "rule": [rule]}}}
    if action == "syn-cookie":
        lab.node.run("sh", "-c", "echo 2 > /proc/sys/net/ipv4/tcp_syncookies")
    folder.mkdir()
    root = stack.enter_context(bpffs(folder)) / "xdpchain"
    engine = Engine(root, compiler)
    stack.callback(unload, root)
    stack.callback(engine.close)
    with lab.node.entered():
        engine.apply(loads(document, {"ratelimit": Ratelimit()}), list_interfaces())


def _iptables(lab: Lab) -> None:
    lab.poll()
    lab.node.run(*_HASHLIMIT.split())


def _nftables(lab: Lab) -> None:
    lab.poll()
    lab.node.run("nft", "-f", "-", input=_METER)
