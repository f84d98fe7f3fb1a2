# SPDX-License-Identifier: Apache-2.0
"""What the connections' tests stand on: the network without a balancer. It works, and it would show what a balancer does wrong."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lab.balance import CLIENTS, VIPS, Balance
from lab.balance_driver import Driver
from tests.helpers.node import until

NUMBER = 2000


def test_connections_past_the_balancer_hold(balance: Balance, driver: Driver) -> None:
    balance.send_vips_past_the_balancer(balance.backends[0])

    assert {"b1": NUMBER} == driver.open(NUMBER, VIPS)
    assert {"b1": 40} == driver.probe(40, VIPS, up=50_000, down=50_000)

    report = driver.report()

    assert {"b1": NUMBER} == report.holds
    assert {} == report.broken


def test_connections_that_come_to_another_backend_are_seen_to_break(balance: Balance, driver: Driver) -> None:
    balance.send_vips_past_the_balancer(balance.backends[0])
    driver.open(100, VIPS)
    balance.send_vips_past_the_balancer(balance.backends[1])

    assert {"b1 reset": 100} == driver.report().broken
    assert {"b2": 40} == driver.probe(40, VIPS)


def inner(family: int) -> Packet:
    if family == 4:
        return IP(src=CLIENTS[0], dst=VIPS[0]) / TCP(sport=999, dport=8080, flags="S")
    return IPv6(src=CLIENTS[-1], dst=VIPS[-1]) / TCP(sport=999, dport=8080, flags="S")


@pytest.mark.parametrize("family", [4, 6])
def test_a_backend_takes_off_every_outer_header_and_refuses_a_wrong_checksum(balance: Balance, family: int) -> None:
    backend = balance.backends[0]
    outer: Packet = IP(src="10.1.1.1", dst=backend.ipv4) if family == 4 else IPv6(src="2001:db8::1", dst=backend.ipv6)
    packets = [outer / packet for packet in (inner(4), inner(6))]
    packets += [outer / UDP(sport=1, dport=6080) / Raw(bytes(packet)) for packet in (inner(4), inner(6))]
    packets += [outer / UDP(sport=1, dport=6080, chksum=1) / Raw(bytes(inner(4)))]
    with balance.balancer.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for packet in packets:
            wire.send(bytes(Ether(src=balance.balancer_end.mac, dst=balance.router_end.mac) / packet))

    until(
        lambda: {"ipip": 2, "gue": 2, "bad udp": 1} == backend.decapsulator.seen(), lambda: str(backend.decapsulator.seen()), patience_s=5
    )
