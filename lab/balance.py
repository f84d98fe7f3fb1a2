# SPDX-License-Identifier: Apache-2.0
"""
The network of a load balancer that sees one direction only: answers go from the backends straight to the clients.

::

                         balancer eth0 (native XDP)
                            |
    client eth0 ---- uplink router ---- eth0 backend 1 .. N (all have the VIPs, none answers for them on the wire)

The router sends what is for a VIP to the balancer, over the same cable on which the balancer sends it back, for a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing.namespace import End, Namespace

from lab.balance_decap import Decapsulator

VIPS = ("10.200.1.1", "10.200.1.2", "2001:db8:200::1", "2001:db8:200::2")
CLIENTS = (*(f"198.51.100.{number}" for number in range(1, 9)), *(f"2001:db8:c::{number}" for number in range(1, 9)))
"""Addresses of the client, all of them in use at once: more flows than one address has ports."""


@attrs.frozen
class Backend:
    """One backend: its name is what its server answers with."""

    name: str
    namespace: Namespace
    ipv4: str
    ipv6: str
    decapsulator: Decapsulator

    def address(self, family: int) -> str:
        """Its own address, of IP version 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6


class Balance:
    """
    The network, without the balancer's program: that is a matter of who runs a daemon in `balancer`.

    Args:
        namespace: makes a namespace and removes it at the end, e.g. the fixture `netns`.
        compiler: compiles the backends' program.
        backends: how many backends there are.
    """

    def __init__(self, namespace: Callable[[str], Namespace], compiler: Compiler, backends: int) -> None:
        self.client, self.router, self.balancer = (namespace(label) for label in ("client", "router", "balancer"))
        for one in (self.client, self.router, self.balancer):
            _settings(one)
        _write(self.router, "ipv4/ip_forward", "ipv6/conf/all/forwarding")
        self._to_client, client = self.router.connect(self.client, "uplink", "eth0")
        self.router_end, self.balancer_end = self.router.connect(self.balancer, "balancer", "eth0")
        self.router.accept_xdp_tx("balancer")
        _default(self.client, self._to_client)
        _default(self.balancer, self.router_end)
        for address in CLIENTS:
            _ip(self.client, "address", "add", address, "dev", "lo")
            _ip(self.router, "route", "add", address, "via", client.ipv6 if ":" in address else client.ipv4)
        self.send_vips_to(self.balancer_end)
        self.backends: Sequence[Backend] = [self._backend(namespace, compiler, number) for number in range(1, backends + 1)]

    def _backend(self, namespace: Callable[[str], Namespace], compiler: Compiler, number: int) -> Backend:
        name = f"b{number}"
        inside = namespace(name)
        _settings(inside)
        router, end = self.router.connect(inside, name, "eth0")
        _default(inside, router)
        for address in VIPS:
            _ip(inside, "address", "add", address, "dev", "lo")
        return Backend(name, inside, end.ipv4, end.ipv6, Decapsulator(compiler, inside, "eth0"))

    def send_vips_to(self, end: End) -> None:
        """Let the router send what is for a VIP to another neighbour of its own."""
        for address in VIPS:
            _ip(self.router, "route", "replace", address, "via", end.ipv6 if ":" in address else end.ipv4)

    def send_vips_past_the_balancer(self, backend: Backend) -> None:
        """Let the router send what is for a VIP to a backend at once, as plain packets."""
        self.send_vips_to(End(backend.namespace, "eth0", backend.ipv4, backend.ipv6, ""))

    def close(self) -> None:
        """Take the backends' programs away; the namespaces are of whoever made them."""
        for backend in self.backends:
            backend.decapsulator.close()


def _settings(namespace: Namespace) -> None:
    """What comes in here does not always leave by the same interface."""
    for one in ("all", "default"):
        _write(namespace, f"ipv4/conf/{one}/rp_filter", value=0)
    _write(namespace, "core/somaxconn", value=65535)
    _write(namespace, "ipv4/tcp_max_syn_backlog", value=65535)


def _write(namespace: Namespace, *settings: str, value: int = 1) -> None:
    for setting in settings:
        namespace.run("sh", "-c", f"echo {value} > /proc/sys/net/{setting}")


def _default(namespace: Namespace, gateway: End) -> None:
    for address in (gateway.ipv4, gateway.ipv6):
        _ip(namespace, "route", "add", "default", "via", address)


def _ip(namespace: Namespace, thing: str, verb: str, address: str, *more: str) -> None:
    family = "-6" if any(":" in one for one in (address, *more)) else "-4"
    length = [] if "/" in address or address == "default" else [f"{address}/{128 if family == '-6' else 32}"]
    extra = ["nodad"] if thing == "address" and family == "-6" else []
    namespace.run("ip", family, thing, verb, *(length or [address]), *more, *extra)
