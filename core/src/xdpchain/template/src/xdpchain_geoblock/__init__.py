# SPDX-License-Identifier: Apache-2.0
"""geoblock, a function for xdpchain: drops packets that come from listed prefixes."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

import attrs
from xdpchain import (
    Delete,
    Hook,
    IPNetwork,
    KernelFunction,
    Map,
    MapKind,
    Maps,
    Problem,
    Program,
    Put,
    Reason,
    Role,
    Struct,
    Table,
    Write,
    hookimpl,
    ipv6,
    option,
    u32,
    u64,
)

MAX_PREFIXES = 10_000
_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC: the kernel wants it for this kind of map
_MAPPED_BITS, _MAPPED = 96, 0xFFFF << 32  # ::ffff:0:0/96, where the IPv4 addresses are


@attrs.frozen(kw_only=True)
class GeoblockConfig:
    """The keys of `[function.geoblock]`."""

    prefixes: tuple[IPNetwork, ...] = option(default=(), max=MAX_PREFIXES, help="Where packets are dropped that come from.")


class Geoblock(KernelFunction[GeoblockConfig]):
    """Drops packets that come from listed prefixes."""

    api = 1
    name = "geoblock"
    summary = "drops packets that come from listed prefixes"
    source = Path(__file__).parent / "geoblock.bpf.c"
    config = GeoblockConfig
    programs = (Program(Hook.XDP, "geoblock"),)
    reasons = (Reason("blocked", "the source is in a listed prefix"),)

    def maps(self, config: GeoblockConfig) -> Sequence[Map]:
        """The same maps as in the C source."""
        return (
            Map(
                name="geoblock_prefixes",
                kind=MapKind.LPM_TRIE,
                key=Struct("geoblock_prefix", {"length": u32, "address": ipv6}),
                value=u64,
                capacity=MAX_PREFIXES,
                role=Role.CONFIG,
                flags=_NO_PREALLOC,
                help="packets dropped, by prefix",
            ),
        )

    def check(self, config: GeoblockConfig) -> Iterable[Problem]:
        """What the types of the keys cannot say."""
        seen: dict[IPNetwork, int] = {}
        for index, prefix in enumerate(config.prefixes):
            first = seen.setdefault(prefix, index)
            if first != index:
                yield Problem(("prefixes", index), f"{prefix} is there already, as prefixes[{first}]", "remove one of them")

    def configure(self, old: GeoblockConfig | None, new: GeoblockConfig, maps: Maps) -> Iterable[Write]:
        """Only the difference: a prefix that stays keeps its count, and never lets a packet through."""
        before = set(old.prefixes) if old else set()
        for prefix in new.prefixes:
            if prefix not in before:
                yield Put("geoblock_prefixes", _key(prefix), 0)
        for prefix in before.difference(new.prefixes):
            yield Delete("geoblock_prefixes", _key(prefix))

    def status(self, config: GeoblockConfig, maps: Maps) -> Sequence[Table]:
        """For `xdpchain show geoblock`."""
        blocked = maps["geoblock_prefixes"]
        rows = [(str(prefix), blocked.get(_key(prefix))) for prefix in config.prefixes]
        return (Table(("prefix", "packets dropped"), rows),)


def _key(prefix: IPNetwork) -> dict[str, Any]:
    if isinstance(prefix, IPv4Network):
        return {"length": prefix.prefixlen + _MAPPED_BITS, "address": IPv6Address(_MAPPED | int(prefix.network_address))}
    return {"length": prefix.prefixlen, "address": prefix.network_address}


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """What this plugin brings."""
    return [Geoblock()]
