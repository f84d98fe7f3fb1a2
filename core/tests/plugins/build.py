# SPDX-License-Identifier: Apache-2.0
"""Builds tiny plugin distributions: a module, its BPF source, and the dist-info that the import system finds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

LIMITER = """
import attrs
import xdpchain
from xdpchain import Delete, Hook, Map, MapKind, Metric, Program, Put, Reason, Role, Struct, Table, option, u32, u64
from pathlib import Path


@attrs.frozen(kw_only=True)
class Config:
    ports: tuple[xdpchain.Port, ...] = option(default=(), help="UDP ports whose packets are dropped.")
    room: int = option(default=16, min=1, help="Ports that fit.")


class NAME(xdpchain.KernelFunction[Config]):
    api = 1
    name = "NAME"
    summary = "drops UDP packets to listed ports"
    source = Path(__file__).with_name("NAME.bpf.c")
    config = Config
    programs = (Program(Hook.XDP, "NAME"),)
    reasons = (Reason("listed", "the port is listed"),)

    def maps(self, config):
        return (
            Map(name="NAME_ports", kind=MapKind.HASH, key=u32, value=u32, capacity=config.room, role=Role.CONFIG, help="listed ports"),
            Map(name="NAME_seen", kind=MapKind.PERCPU_ARRAY, key=u32, value=Struct("seen", {"udp": u64, "other": u64}), capacity=1,
                role=Role.STATS, help="packets seen"),
        )

    def configure(self, old, new, maps):
        gone = set(old.ports if old else ()) - set(new.ports)
        return [*(Delete("NAME_ports", port) for port in gone), *(Put("NAME_ports", port, 1) for port in new.ports)]

    def metrics(self, config, maps):
        return [Metric("xdpchain_NAME_listed_ports", "gauge", "Ports that are listed.", [({}, float(len(config.ports)))])]

    def status(self, config, maps):
        return [Table(("port",), [(port,) for port in config.ports], "listed")]


@xdpchain.hookimpl
def xdpchain_functions():
    return [NAME()]
"""

LIMITER_C = """
/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#include "xdpchain.h"

struct seen { u64 udp; u64 other; };

BPF_TABLE("hash", u32, u32, NAME_ports, BY_SCHEMA);
BPF_TABLE("percpu_array", u32, struct seen, NAME_seen, BY_SCHEMA);

static __always_inline verdict NAME(struct xdp_md *ctx, struct packet *packet)
{
	u32 zero = 0, port;
	struct seen *seen = NAME_seen.lookup(&zero);

	if (!seen)
		return next(NO_REASON);
	if (!packet->udp) {
		seen->other++;
		return next(NO_REASON);
	}
	seen->udp++;
	port = bpf_ntohs(packet->udp->dest);
	if (NAME_ports.lookup(&port))
		return drop(LISTED);
	return next(NO_REASON);
}
"""


def make_plugin(
    folder: Path, name: str = "limiter", python: str = LIMITER, c: str = LIMITER_C, *, entry: str = "", version: str = "1.0"
) -> None:
    """Write a distribution NAME-dist with the module NAME into a folder; NAME in the texts becomes its name."""
    folder.mkdir(exist_ok=True, mode=0o755)
    (folder / f"{name}.py").write_text(python.replace("NAME", name))
    (folder / f"{name}.bpf.c").write_text(c.replace("NAME", name))
    info = folder / f"{name}_dist-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[xdpchain]\n{name} = {entry or name}\n")


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Plugins of a folder are found by this process, and forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
