# SPDX-License-Identifier: Apache-2.0
"""
A site: a load balancer, hypervisors with agents, and workloads that know of neither.

::

                       balancer eth0 (ratelimit -> maxconn -> elb)
                          |
    client eth0 -- uplink router -- eth0 hv1 -- tap-vm ---- eth0 vm     a machine behind a tap
                          | |  |         hv1 -- veth-box -- eth0 box    a container behind a veth
                          | |  +--- eth0 hv2                            where workloads may move to
                          | +------ eth0 host                           an application on the host

Requests come by way of the balancer: it sends them back over the cable on which they came, encapsulated for the workload's own address. Answers go
from the hypervisor or host to the router, and to the client. Each node is an xdpchaind with a file of its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from xdpchain.testing.namespace import End, Namespace

from lab.node import Node
from lab.workload import REPOSITORY, Application, Container, Guest, Machine, Workload

SHARED = ("10.200.1.1", "2001:db8:200::1")
"""VIPs that all workloads serve together, at WEB and TALK."""
WEB, TALK, DNS = 80, 81, 53
SHARED_PORT, TALK_PORT, OWN_PORT = 8080, 8081, 8082
"""Where workloads serve: for the shared VIPs, where those of TALK say who they are (`lab.balance_traffic`), and for their own over TCP and UDP."""
PATIENCE_S = 60.0

_BALANCER_FILE = """\
[node]
metrics = "off"

[interface.eth0]
chain = ["ratelimit", "maxconn", "elb"]

[[function.ratelimit.rule]]
ports = [80, 81]
rate = 100000

[[function.maxconn.limit]]
max = 100000

[function.elb]
source = ["{ipv4}", "{ipv6}"]
vips = "vips"
"""
_AGENT_FILE = """\
[node]
metrics = "off"

{interfaces}
[function.dsr_agent]
accept_from = {accept_from}
services = "services"
"""
_ON_A_HYPERVISOR = """\
[interface."tap-*"]
chain = ["dsr_agent"]

[interface."veth-*"]
chain = ["dsr_agent"]
"""
_ON_A_HOST = """\
[interface.eth0]
chain = ["dsr_agent"]
side = "network"       # what is at the other end of this veth is the router
"""
IPIP_SOURCES = ("172.16.0.0/16", "100::/64")
"""outer sources of a balancer that sends IP in IP"""


def own_vip(number: int, family: int) -> str:
    """The VIP that the workload of that number serves alone."""
    return f"10.200.2.{number}" if family == 4 else f"2001:db8:200:2::{number}"


def at_port(address: str, port: int) -> str:
    """An address with a port, as text."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@attrs.frozen
class Choice:
    """
    How a site runs.

    Attributes:
        elb: more keys of the balancer.
        crossed: whether IPv4 packets travel in IPv6 and the other way round.
        drained: workloads that get no new flows of the shared VIPs.
        absent: workloads that do not serve them at all.
    """

    elb: Mapping[str, Any] = attrs.field(factory=dict)
    crossed: bool = False
    drained: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()


class Site:
    """
    The network and its nodes, not started yet.

    Args:
        namespace: makes a namespace and removes it at the end, e.g. the fixture `netns`.
        folder: for the nodes' files.
        bpffs: where they pin.
        cache: compiled functions.
    """

    def __init__(self, namespace: Callable[[str], Namespace], folder: Path, bpffs: Path, cache: Path) -> None:
        self._folder, self._bpffs, self._cache = folder, bpffs, cache
        labels = ("client", "router", "balancer", "hv1", "hv2", "host")
        self.client, self.router, self.balancer, self.hv1, self.hv2, self.host = spaces = [namespace(label) for label in labels]
        for one in spaces:
            _settings(one)
        self._near = {one.name: self._uplink(one, label) for one, label in zip(spaces, labels, strict=True) if one is not self.router}
        self.vm = Machine("tap-vm", _settings(namespace("vm")), "172.20.0.11", "fd20::11")
        self.box = Container("veth-box", _settings(namespace("box")), "172.20.0.12", "fd20::12")
        self.application = Application("app", self.end(self.host))
        self.workloads: Sequence[Workload] = (self.vm, self.box, self.application)
        self.nodes = {one.name: self._node(one, label) for one, label in zip(spaces[2:], labels[2:], strict=True)}
        self.balancer_node = self.nodes[self.balancer.name]
        self.choice = Choice()
        for vip in (*SHARED, "10.200.2.0/24", "2001:db8:200:2::/64"):
            self._route(vip, self.balancer)
        for guest in (self.vm, self.box):
            guest.make_port(self.hv1)
            self.route_to(guest)

    def end(self, namespace: Namespace) -> End:
        """The end of a namespace's cable to the router."""
        return self._near[namespace.name][1]

    def router_end(self, namespace: Namespace) -> End:
        """The router's end of that cable."""
        return self._near[namespace.name][0]

    def vip(self, workload: Workload, family: int) -> str:
        """The VIP that a workload serves alone."""
        return own_vip(self.workloads.index(workload) + 1, family)

    def close(self) -> None:
        """End what is no process of a namespace's."""
        self.vm.close()

    # What is configured.

    def configure(self) -> None:
        """Write the files of all nodes, with the workloads where they are."""
        end = self.end(self.balancer)
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.choice.elb.items())
        self.balancer_node.file.write_text(_BALANCER_FILE.format(ipv4=end.ipv4, ipv6=end.ipv6) + more)
        self.balancer_node.file.with_name("vips").write_text(self._vips())
        for one in (self.hv1, self.hv2, self.host):
            self.configure_agent(one)

    def configure_agent(self, namespace: Namespace) -> None:
        """Write the files of an agent."""
        end = self.end(self.balancer)
        text = _AGENT_FILE.format(
            interfaces=_ON_A_HOST if namespace is self.host else _ON_A_HYPERVISOR,
            accept_from=json.dumps([end.ipv4, end.ipv6, *IPIP_SOURCES]),
        )
        file = self.nodes[namespace.name].file
        file.write_text(text)
        file.with_name("services").write_text(self.services(namespace))

    def services(self, namespace: Namespace, *more: Workload) -> str:
        """The file of services for an agent: of what is there, and of workloads that are still to come."""
        here = [one for one in self.workloads if (one.at if isinstance(one, Guest) else one.namespace) is namespace]
        return "".join(f"{line}\n" for one in dict.fromkeys((*here, *more)) for line in self._services(one))

    def put_services(self, namespace: Namespace, *more: Workload) -> None:
        """Give an agent its services anew, as a control plane does."""
        self.nodes[namespace.name].put("dsr_agent", "services", self.services(namespace, *more))

    def _vips(self) -> str:
        lines = []
        for number, family in ((number, family) for number in range(len(self.workloads) + 1) for family in (4, 6)):
            shared = [one for one in self.workloads if one.name not in self.choice.absent]
            backends = self.workloads[number - 1 : number] if number else shared
            vip = own_vip(number, family) if number else SHARED[family == 6]
            named = [f"    {self._endpoint(one, family)}{' drain' if one.name in self.choice.drained else ''}" for one in backends]
            lines += [f"vip {at_port(vip, WEB)} tcp", *named]
            if not number:
                lines += [f"vip {at_port(vip, TALK)} tcp", *named]
            else:  # any port, and none is hashed: fragments find their way
                lines += [f"vip {at_port(vip, 0)} udp options=no-source-port", *named]
        return "\n".join(lines) + "\n"

    def _services(self, workload: Workload) -> list[str]:
        lines = []
        for family in (4, 6):
            shared, own, address = SHARED[family == 6], self.vip(workload, family), workload.address(family)
            endpoint = f" endpoint={self._endpoint(workload, family)}" if self.choice.crossed else ""
            lines += [
                f"vip {at_port(shared, WEB)} tcp {at_port(address, SHARED_PORT)}{endpoint}",
                f"vip {at_port(shared, TALK)} tcp {at_port(address, TALK_PORT)}{endpoint}",
                f"vip {at_port(own, WEB)} tcp {at_port(address, OWN_PORT)}{endpoint}",
                f"vip {at_port(own, DNS)} udp {at_port(address, OWN_PORT)}{endpoint}",
            ]
        return lines

    def _endpoint(self, workload: Workload, family: int) -> str:
        """Where the balancer sends packets of a family to: the workload's address of it, or of the other one."""
        return workload.address(10 - family if self.choice.crossed else family)

    # What runs.

    def start(self) -> None:
        """Start all nodes, and plug the workloads in when their agents are there."""
        self.configure()
        first, *others = (self.nodes[one.name] for one in (self.hv1, self.hv2, self.host))
        self.balancer_node.spawn()
        first.start()  # it compiles for the others
        for one in others:
            one.spawn()
        for one in (*others, self.balancer_node):
            one.wait_until_ready()
        for guest in (self.vm, self.box):
            self._await_agent(guest)
            guest.plug()

    def node_of(self, workload: Workload) -> Node:
        """The node whose agent serves a workload."""
        return self.nodes[((workload.at if isinstance(workload, Guest) else None) or workload.namespace).name]

    def plug_in(self, guest: Guest, hypervisor: Namespace) -> None:
        """Make a port for a guest that has none, and plug it in when the agent is there."""
        guest.make_port(hypervisor)
        self._await_agent(guest)
        guest.plug()

    def restore(self) -> None:
        """Have all as it was at the start: daemons that were ended, workloads that were moved, backends that are drained."""
        for one in self.nodes.values():
            if not one.running:
                one.start()
        for guest in (self.vm, self.box):
            if guest.at is not self.hv1:
                self.move(guest, self.hv1)
        if self.choice != Choice():
            self.choose(Choice())

    def choose(self, choice: Choice) -> None:
        """Have all nodes run another choice."""
        self.choice = choice
        self.configure()
        for one in self.nodes.values():
            one.ask("apply")

    def drain(self, *names: str) -> None:
        """Give no new flows to these workloads, and to the others again."""
        self.choice = attrs.evolve(self.choice, drained=frozenset(names))
        self.balancer_node.put("elb", "vips", self._vips())

    def move(self, guest: Guest, target: Namespace) -> None:
        """Move a workload to another hypervisor, whose agent knows its services before it is there, and nothing of its flows."""
        source = guest.at
        assert source is not None
        self.put_services(target, guest)
        if isinstance(guest, Container):
            source.run("ip", "link", "set", guest.name, "down")
        guest.make_port(target)
        self._await_agent(guest, left=source)
        guest.plug()
        self.route_to(guest)
        self.put_services(source)

    def _await_agent(self, guest: Guest, left: Namespace | None = None) -> None:
        """Until the agent is on a workload's port, and that of the hypervisor that it left is not any more."""
        assert guest.at is not None
        end = time.monotonic() + PATIENCE_S
        while not self._agent_is_on(guest.at, guest.name) or (left and self._agent_is_on(left, guest.name)):
            if time.monotonic() > end:
                raise RuntimeError(f"no agent came to {guest.name}: {self.nodes[guest.at.name].last_words()}")
            time.sleep(0.02)

    def _agent_is_on(self, namespace: Namespace, interface: str) -> bool:
        places = self.nodes[namespace.name].ask("status")["places"]
        return len([place for place in places if place["interface"] == interface]) == 2

    def _node(self, namespace: Namespace, label: str) -> Node:
        return Node(namespace, self._folder / label, self._bpffs / f"site-{label}", self._cache, "")

    # The network.

    @staticmethod
    def prepare(namespace: Namespace) -> Namespace:
        """Make a namespace fit for the site."""
        return _settings(namespace)

    def join(self, namespace: Namespace, label: str) -> End:
        """Join another namespace with the router, whose end is as that towards a host; its end of the cable."""
        end = self._uplink(namespace, label)[1]
        self.router.accept_xdp_tx(label)
        return end

    def _uplink(self, namespace: Namespace, label: str) -> tuple[End, End]:
        router, end = self.router.connect(namespace, "uplink" if label == "client" else label, "eth0")
        for gateway in (router.ipv4, router.ipv6):
            _ip(namespace, "route", "add", "default", "via", gateway)
        if label in {"balancer", "host"}:
            self.router.accept_xdp_tx(label)
        return router, end

    def _route(self, target: str, namespace: Namespace) -> None:
        end = self.end(namespace)
        _ip(self.router, "route", "replace", target, "via", end.ipv6 if ":" in target else end.ipv4)

    def route_to(self, guest: Guest) -> None:
        """Have the router send what is for a workload to where it is."""
        assert guest.at is not None
        for address in (guest.ipv4, guest.ipv6):
            self._route(address, guest.at)

    def route_vip_past_the_balancer(self, workload: Workload, vip: str) -> None:
        """Have the router send what is for a VIP to the workload's hypervisor, as a plain packet."""
        self._route(vip, workload.at if isinstance(workload, Guest) and workload.at else workload.namespace)

    def bytes_to(self, namespace: Namespace) -> int:
        """How many bytes the router has sent on the cable to a namespace."""
        return self._statistics(namespace)["tx"]

    def bytes_from(self, namespace: Namespace) -> int:
        """How many bytes the router has received on the cable to a namespace."""
        return self._statistics(namespace)["rx"]

    def _statistics(self, namespace: Namespace) -> Mapping[str, int]:
        name = self.router_end(namespace).interface
        shown = json.loads(self.router.run("ip", "-json", "-statistics", "link", "show", name).stdout)
        return {way: shown[0]["stats64"][way]["bytes"] for way in ("rx", "tx")}


@contextlib.contextmanager
def serving(workloads: Sequence[Workload]) -> Iterator[None]:
    """Servers on each workload, all of them listening."""
    with contextlib.ExitStack() as stack:
        started = []
        for one in workloads:
            talk, plain = ("lab.balance_traffic", "serve", one.name, str(TALK_PORT)), ("lab.site_traffic", "serve")
            for command in (talk, (*plain, str(SHARED_PORT)), (*plain, str(OWN_PORT))):
                process = one.namespace.start(
                    sys.executable, "-m", *command, cwd=REPOSITORY, stdout=subprocess.PIPE, start_new_session=True
                )
                started.append(stack.enter_context(process))
                stack.callback(process.kill)
        for server in started:
            assert server.stdout is not None
            if server.stdout.readline() != "ready\n":
                raise RuntimeError("a server did not start")
        yield


def _settings(namespace: Namespace) -> Namespace:
    """It may route, what comes in does not always leave by the same interface, and addresses are there at once."""
    lines = [f"echo {value} > /proc/sys/net/{setting}" for setting, value in _SETTINGS.items()]
    namespace.run("sh", "-ec", "\n".join(lines))
    return namespace


_SETTINGS = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/dad_transmits": 0,
    "ipv4/tcp_max_syn_backlog": 65535,
    "core/somaxconn": 65535,
}


def _ip(namespace: Namespace, thing: str, verb: str, address: str, *more: str) -> None:
    family = "-6" if any(":" in one for one in (address, *more)) else "-4"
    namespace.run("ip", family, thing, verb, address, *more)
