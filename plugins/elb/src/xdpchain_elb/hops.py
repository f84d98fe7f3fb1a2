# SPDX-License-Identifier: Apache-2.0
"""The next hops of the backends: what `elb_hops` holds, 6 bytes MAC address and 2 bytes MTU of the way."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from xdpchain import IPAddress, Maps, NextHop, NextHops, Put, Write

from xdpchain_elb.config import ElbConfig
from xdpchain_elb.had import find
from xdpchain_elb.shape import shape_of

USUAL_MTU = 1500
"""of a way that nobody has told about yet"""
_MAX_MTU = 0xFFFF
_MAC = (1 << 48) - 1


def destinations(config: ElbConfig) -> dict[bytes, IPAddress]:
    """The addresses of all backends, each once, by their 16 bytes."""
    return {seat.packed: seat.address for vip in config.all_vips for pool in shape_of(vip).pools for seat in pool.seats}


def follow(config: ElbConfig, hops: NextHops, maps: Maps) -> Iterator[Write]:
    """The hops that are not what the routes and neighbours say."""
    addresses = destinations(config)
    numbers = find(maps, ((0, packed) for packed in addresses))
    there = hops_of(maps)
    for (_, packed), number in numbers.items():
        hop = hop_of(config, hops.get(addresses[packed], NextHop()))
        if there[number] != hop:
            yield Put("elb_hops", number, hop)


def hops_to_correct(config: ElbConfig, backends: Iterable[int], maps: Maps) -> Iterator[Write]:
    """The hops of backends that are not what the config gives. The MTU that the routes said stays, where the config leaves it to them."""
    hop = hop_of(config, NextHop())
    if not hop:
        return
    there = hops_of(maps)
    for number in backends:
        same_mtu = there[number] >> 48 == config.mtu if config.mtu else there[number] >> 48
        if there[number] & _MAC != hop & _MAC or not same_mtu:
            yield Put("elb_hops", number, hop)


def hops_of(maps: Maps) -> array[int]:
    """The hops by backend; 0: not known."""
    hops = array("Q")
    hops.frombytes(maps["elb_hops"].blob())
    return hops


def hop_of(config: ElbConfig, hop: NextHop) -> int:
    """The word of a backend in `elb_hops`; 0: packets to it are dropped."""
    followed = hop.mac if hop.here else None
    mac = followed if config.next_hop == "auto" else config.next_hop
    if mac is None:
        return 0
    mtu = config.mtu or min(hop.mtu, _MAX_MTU) or USUAL_MTU
    return int.from_bytes(mac, "little") | mtu << 48
