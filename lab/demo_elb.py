# SPDX-License-Identifier: Apache-2.0
"""The demo's step with a load balancer, in a network of its own: connections that hold while their backends change."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping

from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.testing.namespace import Netns

from lab.balance import CLIENTS, VIPS, Balance
from lab.balance_driver import PORT, Driver, servers
from lab.balance_traffic import ANSWER, QUESTION
from lab.network import Lab
from lab.node import Node
from lab.story import Story, words

CONNECTIONS = 300
BY_HAND = (CLIENTS[0], 30000)
"""one connection that the demo holds itself: where from"""
_TARGETS = (VIPS[0], VIPS[2])
"""one of each IP version"""
_PATIENCE_S = 10.0
_NODE_FILE = """\
[interface.eth0]
chain = ["elb"]

[function.elb]
source = ["{ipv4}", "{ipv6}"]    # outer addresses; the way to each backend is the kernel's
vips = "vips"
"""


class Site:
    """The balancer in its network: its backends by name, and whom its file names."""

    def __init__(self, network: Balance, node: Node) -> None:
        self.network, self.node = network, node
        self._backends = {one.name: one for one in network.backends}

    def write(self, names: Mapping[str, str]) -> str:
        """Write the file of VIPs; `names` are the backends in it with what else it says of them. Its text."""
        lines = []
        for vip in _TARGETS:
            lines.append(f"vip {f'[{vip}]' if ':' in vip else vip}:{PORT} tcp")
            lines += [f"    {self._backends[name].address(6 if ':' in vip else 4)} {more}".rstrip() for name, more in names.items()]
        text = "\n".join(lines) + "\n"
        self.node.file.with_name("vips").write_text(text)
        return text

    def name_of(self, address: str) -> str:
        """Whose address it is."""
        return next(name for name, one in self._backends.items() if address in {one.ipv4, one.ipv6})


def balance(story: Story, lab: Lab) -> None:
    """Backends come, drain and go under live connections."""
    story.step(f"6. A load balancer: backends come, drain and go under {CONNECTIONS} connections")
    with _site(lab) as site, servers(site.network), Driver(site.network.client) as client:
        story.say("client  --  router  --  [eth0] balancer; behind the router b1 .. b4, which answer the client directly")
        story.show(site.node.file.read_text())
        story.say("and the file of VIPs:")
        story.show(site.write({"b1": "", "b2": "", "b3": ""}))
        story.say(f"xdpchaind answers after {site.node.start():.1f} s, the compiler's work included")
        held = client.open(CONNECTIONS, _TARGETS, port=PORT)
        story.say(f"{CONNECTIONS} connections stay open and go on asking: {words(held)}")
        story.claim("all are served, by three backends", true={*held} == {"b1", "b2", "b3"} and sum(held.values()) == CONNECTIONS)
        with _connection(site) as by_hand:
            drained = _server_of(by_hand)
            _drain(story, site, client, held, drained)
            _ask(story, site, by_hand, drained)
            _remove(story, site, client, held, drained)
        story.command(site.node, "show", "elb", until="tracking and next hops")
        site.node.xdpchain("unload", "--yes")


def _drain(story: Story, site: Site, client: Driver, held: Mapping[str, int], drained: str) -> None:
    """One comes, one drains."""
    story.say(f"one more, from {BY_HAND[0]} port {BY_HAND[1]}, is at {drained}; now {drained} drains and b4 comes")
    site.write({**dict.fromkeys(held, ""), drained: "drain", "b4": ""})
    story.command(site.node, "apply")
    report = client.report()
    story.claim("no connection broke or changed its backend", true=report.holds == held and not report.broken)
    others = sorted({*held, "b4"} - {drained})
    fresh = client.probe(CONNECTIONS, _TARGETS, port=PORT)
    story.claim(f"{CONNECTIONS} new ones are at {', '.join(others)}, none at {drained}", true=[*fresh] == others)


def _ask(story: Story, site: Site, by_hand: socket.socket, drained: str) -> None:
    """Where the connection of our own is, by what the node says and by what comes of it."""
    served_by = _server_of(by_hand)
    source = ":".join(map(str, BY_HAND))
    answer = story.command(site.node, "elb", "where", source, f"{VIPS[0]}:{PORT}")
    story.claim(f"{drained} goes on answering the one from {source}", true=site.name_of(answer.split()[0]) == served_by == drained)


def _remove(story: Story, site: Site, client: Driver, held: Mapping[str, int], drained: str) -> None:
    """Another one is taken away: its own connections end, and no others."""
    gone = max({*held} - {drained})
    story.say(f"{gone} is taken away altogether")
    rest = {name: number for name, number in held.items() if name != gone}
    site.write({**dict.fromkeys(rest, ""), drained: "drain", "b4": ""})
    story.command(site.node, "apply")
    report = client.report()
    only_its_own = {what.split()[0] for what in report.broken} == {gone} and sum(report.broken.values()) == held[gone]
    story.claim(
        f"{gone}'s own {held[gone]} connections ended, the other {sum(rest.values())} hold", true=only_its_own and report.holds == rest
    )


@contextlib.contextmanager
def _site(lab: Lab) -> Iterator[Site]:
    """The network with the balancer's daemon, not started yet; all of it goes at the end."""
    with Netns() as netns:
        network = Balance(netns, Compiler(lab.cache), backends=4)
        try:
            end = network.balancer_end
            text = _NODE_FILE.format(ipv4=end.ipv4, ipv6=end.ipv6)
            yield Site(network, Node(network.balancer, lab.folder / "balancer", lab.bpffs / "balancer", lab.cache, text))
        finally:
            network.close()


def _connection(site: Site) -> socket.socket:
    """A connection of our own, from `BY_HAND`."""
    with site.network.client.entered():
        return socket.create_connection((VIPS[0], PORT), timeout=_PATIENCE_S, source_address=BY_HAND)


def _server_of(connection: socket.socket) -> str:
    """Ask on a connection who answers."""
    try:
        connection.sendall(QUESTION.pack(1, 0, 0))
        answer = connection.recv(ANSWER.size, socket.MSG_WAITALL)
    except OSError as error:
        return f"nobody ({error})"
    name: bytes = ANSWER.unpack(answer)[0] if answer else b"nobody"
    return name.rstrip(b"\0").decode()
