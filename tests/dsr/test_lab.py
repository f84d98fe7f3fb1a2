# SPDX-License-Identifier: Apache-2.0
"""What the other tests stand on: the site would show what an agent does wrong."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lab.capture import largest_frame
from lab.site import OWN_PORT, Site
from lab.site_client import Client
from tests.dsr.test_traffic import FAMILIES
from tests.dsr.witness import Checksums
from tests.helpers.node import until


@FAMILIES
def test_a_wrong_checksum_is_seen_by_the_client(the_site: Site, family: int) -> None:
    hypervisor, client = the_site.end(the_site.hv1), the_site.end(the_site.client)
    source = the_site.vm.address(family)
    network: Packet = IP(src=source, dst=client.ipv4) if family == 4 else IPv6(src=source, dst=client.ipv6)
    frame = bytes(Ether(src=hypervisor.mac, dst=the_site.router_end(the_site.hv1).mac) / network / TCP(chksum=0xBAD, flags="SA"))
    checksums = Checksums([the_site.client])
    with the_site.hv1.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(frame)

    until(checksums.wrong, lambda: "nobody noticed", patience_s=5)


@pytest.mark.parametrize("name", ["vm", "box"])
def test_workloads_leave_segments_whole_for_their_hypervisor(site: Site, client: Client, name: str) -> None:
    guest = getattr(site, name)
    with largest_frame(site.hv1, guest.name) as largest:
        assert {"ok": 1} == client.run("transfer", guest.ipv4, port=OWN_PORT, down=10_000_000).counts

        assert largest() > 10 * 1514
