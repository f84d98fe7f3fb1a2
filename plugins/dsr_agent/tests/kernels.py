# SPDX-License-Identifier: Apache-2.0
"""What the tests between real kernels share: a load balancer that is a thread, settings of namespaces, and what kernels count."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from xdpchain.testing import End, Namespace

from plugins.dsr_agent.tests.packets import GUE_PORT, PORT, VIP4, VIP6, WORKLOAD_PORT

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
PATIENCE_S = 60.0
VIPS = {4: VIP4, 6: VIP6}
KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


def wrong_checksums(namespace: Namespace) -> dict[str, int]:
    """What its kernel has counted."""
    lines = namespace.run("cat", "/proc/net/snmp").stdout.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind, *fields = names.split()
        found |= {f"{kind}{field}": int(value) for field, value in zip(fields, values.split()[1:], strict=True) if "CsumErrors" in field}
    for line in namespace.run("cat", "/proc/net/snmp6").stdout.splitlines():
        name, value = line.split()
        if "CsumErrors" in name:
            found[name] = int(value)
    return {name: value for name, value in found.items() if value}


@contextlib.contextmanager
def balancer(client: Namespace, workload: End) -> Iterator[list[int]]:
    """What the client sends to a VIP goes to the workload's address in GUE, variant 1; gives the lengths of what did not fit."""
    with client.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("=16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
        senders = {family: socket.socket(kind, socket.SOCK_DGRAM) for family, kind in KINDS.items()}
    senders[4].setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    senders[6].setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    too_long: list[int] = []

    def carry() -> None:
        with contextlib.suppress(OSError):  # the interface is gone
            while packet := os.read(tun, 65_536):
                family = packet[0] >> 4
                if packet[slice(16, 20) if family == 4 else slice(24, 40)] != ip_address(VIPS[family]).packed:
                    continue  # the interface speaks for itself, too
                try:
                    senders[family].sendto(packet, (workload.ipv4 if family == 4 else workload.ipv6, GUE_PORT))
                except OSError:
                    too_long.append(len(packet))

    thread = threading.Thread(target=carry)
    try:
        client.run("ip", "link", "set", "tun0", "up")
        thread.start()
        yield too_long
    finally:
        client.run("ip", "link", "delete", "tun0")
        if thread.ident:
            thread.join()
        for one in senders.values():
            one.close()
        os.close(tun)


def document(end: End | None = None, client: End | None = None, **keys: Any) -> dict[str, Any]:
    """The node's file, without services as long as nobody is there."""
    services = [
        {"vip": vip, "port": PORT, "protocol": protocol, "workload": end.ipv4 if family == 4 else end.ipv6, "backend_port": WORKLOAD_PORT}
        for family, vip in VIPS.items()
        for protocol in ("tcp", "udp")
        if end
    ]
    accept_from = [client.ipv4, client.ipv6] if client else ["10.0.0.1"]
    table = {"accept_from": accept_from, "service": services, "flow_table": 1024, **keys}
    return {"interface": {"veth0": {"chain": ["dsr_agent"]}}, "function": {"dsr_agent": table}}


def setting(namespace: Namespace, name: str, value: int) -> None:
    """Write one below /proc/sys/net."""
    namespace.run("sh", "-c", f"echo {value} > /proc/sys/net/{name}")


@contextlib.contextmanager
def beside(action: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread meanwhile; what it raises is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 whatever it is, the test fails with it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    for error in errors:
        raise error
