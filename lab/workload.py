# SPDX-License-Identifier: Apache-2.0
"""Workloads: a machine behind a tap, a container behind a veth, an application on a host. None of them knows of any virtual address."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Protocol

from xdpchain.testing.namespace import End, Namespace

REPOSITORY = Path(__file__).resolve().parent.parent
GATEWAY4, GATEWAY6, GATEWAY_MAC = "169.254.1.1", "fe80::1", "02:00:00:00:fe:01"
"""What workloads have as their gateway, whichever hypervisor they are at: the host's end of their cable."""
MTU = 1500


class Workload(Protocol):
    """Something that has an address of each family, and serves."""

    name: str
    namespace: Namespace
    ipv4: str
    ipv6: str

    def address(self, family: int) -> str:
        """Its own address, of IP version 4 or 6."""
        ...


class Application:
    """On a host, with the host's addresses."""

    def __init__(self, name: str, end: End) -> None:
        self.name, self.namespace, self.ipv4, self.ipv6 = name, end.namespace, end.ipv4, end.ipv6

    def address(self, family: int) -> str:
        """Its own address, of IP version 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6


class Guest:
    """
    What has a cable to a hypervisor, and can be moved with its addresses to another one, its connections and all.

    Args:
        name: what it is called; so is its interface on hypervisors.
        namespace: its own.
        ipv4: its address.
        ipv6: its address.
    """

    def __init__(self, name: str, namespace: Namespace, ipv4: str, ipv6: str) -> None:
        self.name, self.namespace, self.ipv4, self.ipv6 = name, namespace, ipv4, ipv6
        self.at: Namespace | None = None

    def address(self, family: int) -> str:
        """Its own address, of IP version 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6

    def make_port(self, hypervisor: Namespace) -> None:
        """Make its interface on a hypervisor, which is still down; another one that it had is gone."""
        raise NotImplementedError

    def plug(self) -> None:
        """Let frames pass: its interface is up, and the hypervisor has routes to it."""
        assert self.at is not None
        self.at.run("ip", "link", "set", self.name, "up")
        self.at.run("ip", "address", "replace", f"{GATEWAY4}/32", "dev", self.name)
        self.at.run("ip", "-6", "address", "replace", f"{GATEWAY6}/64", "dev", self.name, "nodad")
        self.at.run("ip", "route", "replace", f"{self.ipv4}/32", "dev", self.name)
        self.at.run("ip", "-6", "route", "replace", f"{self.ipv6}/128", "dev", self.name)

    def _configure_port(self) -> None:
        assert self.at is not None
        self.at.run("ip", "link", "set", self.name, "address", GATEWAY_MAC, "mtu", str(MTU))

    def _configure_inside(self) -> None:
        for family, address, gateway in (("-4", f"{self.ipv4}/32", GATEWAY4), ("-6", f"{self.ipv6}/128", GATEWAY6)):
            nodad = ["nodad"] if family == "-6" else []
            self.namespace.run("ip", family, "address", "add", address, "dev", "eth0", *nodad)
            self.namespace.run("ip", family, "route", "add", "default", "via", gateway, "dev", "eth0", "onlink")


class Container(Guest):
    """Behind a veth. A move takes the host's end along."""

    def make_port(self, hypervisor: Namespace) -> None:
        """Make the cable, or move its end."""
        if self.at is None:
            ends = (
                "link",
                "add",
                self.name,
                "netns",
                hypervisor.name,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                self.namespace.name,
            )
            subprocess.run(("ip", *ends), check=True)
            self.namespace.run("ip", "link", "set", "eth0", "up")
            self.at = hypervisor
            self._configure_port()
            self._configure_inside()
        else:
            self.at.run("ip", "link", "set", self.name, "down")
            self.at.run("ip", "link", "set", self.name, "netns", hypervisor.name)
            self.at = hypervisor


class Machine(Guest):
    """Behind a tap, on which everything is left to the hypervisor that a guest's driver leaves to it."""

    def __init__(self, name: str, namespace: Namespace, ipv4: str, ipv6: str) -> None:
        super().__init__(name, namespace, ipv4, ipv6)
        command = (sys.executable, "-m", "lab.tap", namespace.name, "eth0")
        self._card = namespace.start(*command, cwd=REPOSITORY, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._expect("ready")
        namespace.run("ip", "link", "set", "eth0", "up", "mtu", str(MTU))
        self._configure_inside()

    @property
    def pid(self) -> int:
        """The process that is its card."""
        return self._card.pid

    def make_port(self, hypervisor: Namespace) -> None:
        """Make the tap."""
        self._tell(f"plug {hypervisor.name} {self.name}")
        self.at = hypervisor
        self._configure_port()

    def unplug(self) -> None:
        """Take the tap away."""
        self._tell("unplug")
        self.at = None

    def close(self) -> None:
        """Take the card away."""
        self._card.kill()
        with self._card:
            pass

    def _tell(self, line: str) -> None:
        assert self._card.stdin is not None
        self._card.stdin.write(f"{line}\n")
        self._card.stdin.flush()
        self._expect("ok")

    def _expect(self, word: str) -> None:
        assert self._card.stdout is not None
        if self._card.stdout.readline() != f"{word}\n":
            raise RuntimeError(f"the card of {self.name} has ended")
