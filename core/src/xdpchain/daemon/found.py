# SPDX-License-Identifier: Apache-2.0
"""The next hops that instances asked for, put together without a look at each of thousands of addresses where few of them are new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

import attrs

from xdpchain.config import InterfaceConfig, NodeConfig
from xdpchain.function import NextHop, NextHops

Address = IPv4Address | IPv6Address
Asked = Mapping[str, frozenset[Address]]
"""What each instance asked for."""


@attrs.frozen(eq=False)
class Found:
    """
    The next hops that each instance asked for, as they were at one moment.

    `of` has them by instance, as it sees them; `all` together, and `new` those of them that the kernel was asked for now. `interfaces` are the chains that
    they were seen from; `heard` is how much had been heard of changes before the oldest of them was looked up.
    """

    of: Mapping[str, NextHops] = attrs.field(factory=dict)
    all: NextHops = attrs.field(factory=dict)
    new: NextHops = attrs.field(factory=dict)
    interfaces: tuple[InterfaceConfig, ...] = ()
    heard: int = -1


def put_together(config: NodeConfig, asked: Asked, before: Found, new: NextHops, heard: int) -> Found:
    """What was asked for: `new`, and for the rest what was found before."""
    wanted = frozenset[Address]().union(*asked.values())
    together = _replaced(before.all, wanted, new)
    same = before.interfaces == config.interfaces
    of = {}
    for name, addresses in asked.items():
        seen = before.of.get(name, {}) if same else {}
        missing = addresses.difference(seen) | addresses.intersection(new)
        of[name] = _replaced(seen, addresses, _seen_by(config, name, missing, together))
    return Found(of, together, new, config.interfaces, heard)


def _replaced(before: NextHops, wanted: frozenset[Address], new: NextHops) -> dict[Address, NextHop]:
    """What is wanted of those before, and the new ones. Sets and dicts are taken whole: the hash of an address is computed in Python."""
    now = dict(before)
    for address in now.keys() - wanted:
        del now[address]
    now.update(new)
    return now


def _seen_by(config: NodeConfig, name: str, addresses: Iterable[Address], hops: NextHops) -> NextHops:
    """The next hops with `here` as it is for one instance. Hops that are one object stay one: most addresses have the same."""
    chains: dict[str, bool] = {"": False}
    seen: dict[int, NextHop] = {}
    found = {}
    for address in addresses:
        hop = hops[address]
        if id(hop) not in seen:
            if hop.interface not in chains:
                settings = config.interface_for(hop.interface)
                chains[hop.interface] = settings is not None and name in settings.chain
            seen[id(hop)] = attrs.evolve(hop, here=chains[hop.interface])
        found[address] = seen[id(hop)]
    return found
