# SPDX-License-Identifier: Apache-2.0
"""Packets that somebody else encapsulates than the balancer, and hosts that look at where packets come from."""

from __future__ import annotations

import socket

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from lab.site import WEB, Site
from lab.site_client import Client
from tests.dsr.test_traffic import FAMILIES, WORKLOADS
from tests.dsr.witness import reasons
from tests.helpers.node import until

GUE = 6080
NUMBER = 5


def send_encapsulated(site: Site, sender: socket.socket, number: int, family: int, source_port: int) -> None:
    """A SYN to the VIP of a workload in GUE, as the sender's own datagrams."""
    workload = site.workloads[number]
    vip, client = site.vip(workload, family), "198.51.100.7" if family == 4 else "2001:db8:c::7"
    inner: Packet = IP(src=client, dst=vip) if family == 4 else IPv6(src=client, dst=vip)
    for _ in range(NUMBER):
        sender.sendto(bytes(inner / TCP(sport=source_port, dport=WEB, flags="S")), (workload.address(family), GUE))


@WORKLOADS
@FAMILIES
def test_what_a_stranger_encapsulates_is_dropped_and_counted(site: Site, number: int, family: int) -> None:
    agents = (site.hv1, "tap-vm"), (site.hv1, "veth-box"), (site.host, "eth0")
    namespace, interface = agents[number]
    before = reasons(site, namespace, interface)
    with site.client.entered():
        sender = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with sender:
        send_encapsulated(site, sender, number, family, 7)

    until(
        lambda: reasons(site, namespace, interface).get("strange_source", 0) == before.get("strange_source", 0) + NUMBER,
        lambda: f"{before} became {reasons(site, namespace, interface)}",
        patience_s=10,
    )
    assert reasons(site, namespace, interface).get("delivered", 0) == before.get("delivered", 0)


@FAMILIES
def test_a_workload_cannot_speak_for_the_balancer(site: Site, family: int) -> None:
    before = reasons(site, site.hv1, "tap-vm")
    there = reasons(site, site.hv1, "veth-box")
    end = site.end(site.balancer)
    source, target = (end.ipv4, site.box.ipv4) if family == 4 else (end.ipv6, site.box.ipv6)
    outer: Packet = IP(src=source, dst=target) if family == 4 else IPv6(src=source, dst=target)
    vip, client = site.vip(site.box, 4), "198.51.100.7"
    packet = bytes(outer / UDP(sport=7, dport=GUE) / IP(src=client, dst=vip) / TCP(sport=7, dport=WEB, flags="S"))
    with site.vm.namespace.entered():
        sender = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with sender:
        for _ in range(NUMBER):
            sender.sendto(packet, (target, 0))

    until(
        lambda: reasons(site, site.hv1, "tap-vm").get("spoofed", 0) == before.get("spoofed", 0) + NUMBER,
        lambda: f"{before} became {reasons(site, site.hv1, 'tap-vm')}",
        patience_s=10,
    )
    assert there == reasons(site, site.hv1, "veth-box")


def test_answers_pass_a_host_that_checks_the_way_back(site: Site, client: Client) -> None:
    """rp_filter = 1: what comes from a workload with the VIP as source would not be routed back there."""
    for guest in (site.vm, site.box):
        site.hv1.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{guest.name}/rp_filter")
    try:
        for guest in (site.vm, site.box):
            assert {"ok": 20} == client.run("short", site.vip(guest, 4), port=WEB, number=20).counts
            assert {"ok": 1} == client.run("transfer", site.vip(guest, 4), port=WEB, down=1_000_000).counts
    finally:
        for guest in (site.vm, site.box):
            site.hv1.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{guest.name}/rp_filter")
