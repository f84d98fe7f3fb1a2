# SPDX-License-Identifier: Apache-2.0
"""A small load balancer for tests of single packets, and where it sends them."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import IP
from scapy.packet import Packet
from xdpchain.config import loads
from xdpchain.testing import LoadChain, LoadedChain, Result, Verdict
from xdpchain.testing.frames import link_of
from xdpchain_elb import Elb, ElbConfig

from plugins.elb.tests.documents import SOURCES, backends, vip
from plugins.elb.tests.packets import NEXT_HOP, VIP4, VIP6, assert_valid

SERVERS = tuple(f"10.0.0.{number}" for number in range(1, 9))
PORT = 443
SMALL = {"max_vips": 8, "max_backends": 16, "max_members": 128, "flow_table": 1024}


def load_balancer(
    load_chain: LoadChain, servers: tuple[str, ...] = SERVERS, addresses: tuple[str, ...] = (VIP4, VIP6), **keys: Any
) -> LoadedChain:
    """
    VIPs for TCP and UDP, all with the same backends.

    Args:
        load_chain: the fixture.
        servers: the backends.
        addresses: of the VIPs.
        keys: `port` and `options` of the VIPs, or other keys of the instance.
    """
    port, options = keys.pop("port", PORT), keys.pop("options", [])
    vips = [
        vip(address, port, protocol, backend=backends(*servers), options=options) for address in addresses for protocol in ("tcp", "udp")
    ]
    return balancer_of(load_chain, *vips, **keys)


def balancer_of(load_chain: LoadChain, *vips: dict[str, Any], **keys: Any) -> LoadedChain:
    """These VIPs; `keys` are other keys of the instance."""
    return load_chain(document(*vips, **keys), functions=[Elb()])


def lead(chain: LoadedChain, *vips: dict[str, Any], **keys: Any) -> None:
    """Lead a balancer to these VIPs, as an apply does."""
    chain.configure("elb", table(*vips, **keys))


def config_of(*vips: dict[str, Any], **keys: Any) -> ElbConfig:
    """The config with these VIPs, as the core reads it."""
    config: ElbConfig = loads(document(*vips, **keys), {"elb": Elb()}).instances["elb"].config
    return config


def document(*vips: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A node with one balancer."""
    return {"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": table(*vips, **keys)}}


def table(*vips: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """What `[function.elb]` holds."""
    return {**SMALL, "source": SOURCES, "next_hop": NEXT_HOP, "mtu": 1500, **keys, "vip": vips}


def outcome(result: Result) -> tuple[Verdict, str]:
    """The verdict and the reason."""
    return result.verdict, result.reason


def passed(result: Result) -> bool:
    """Whether a packet went on as it came."""
    return (result.verdict, result.reason, result.packet) == (Verdict.PASS, "end_of_chain", result.sent)


def server_of(chain: LoadedChain, packet: Packet, reason: str) -> str:
    """The IPv4 backend to which a packet goes in a valid frame, for this reason; what is inside is as it was."""
    result = chain.send(packet)

    assert (Verdict.TX, reason) == (result.verdict, result.reason)
    assert_valid(result.packet)
    assert result.packet.endswith(result.sent[link_of(result.sent)[0] :])

    server: str = result.scapy[IP].dst
    return server
