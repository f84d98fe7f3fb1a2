# SPDX-License-Identifier: Apache-2.0
"""Namespaces and nodes for tests: made, joined, and gone afterwards, whatever happened."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from xdpchain import Hook, KernelFunction, Program, option
from xdpchain.errors import ConfigError
from xdpchain.testing import Namespace, Netns, RunNode, Verdict
from xdpchain.testing.namespace import Netns as Factory

TIMEOUT_S = 2.0
MIRROR = """
#include "xdpchain.h"
static __always_inline verdict mirror(struct xdp_md *ctx, struct packet *packet)
{
	return packet->udp ? tx(NO_REASON) : next(NO_REASON);
}
"""


@attrs.frozen(kw_only=True)
class MirrorConfig:
    unused: int = option(default=0, help="Nothing.")


class Mirror(KernelFunction[MirrorConfig]):
    api = 1
    name = "mirror"
    summary = "sends UDP back as it is"
    config = MirrorConfig
    programs = (Program(Hook.XDP, "mirror"),)

    def __init__(self, source: Path) -> None:
        self.source = source  # type: ignore[misc]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    source = tmp_path_factory.mktemp("mirror") / "mirror.bpf.c"
    source.write_text(MIRROR)
    return Mirror(source)


DOCUMENT: dict[str, Any] = {"interface": {"eth0": {"chain": ["mirror"]}}}


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def names() -> set[str]:
    return {line.split()[0] for line in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.splitlines()}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_connected_namespaces_reach_each_other_at_once(netns: Netns, family: str) -> None:
    client, server = netns("client"), netns("server")
    _, there = client.connect(server)
    with server.entered():
        listener = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)

    with listener, client.entered():
        socket.create_connection((getattr(there, family), 80), timeout=TIMEOUT_S).close()


def test_several_pairs_have_addresses_of_their_own(netns: Netns) -> None:
    one, two = netns(), netns()
    ends = [*one.connect(two), *one.connect(two, "eth1", "eth1")]

    assert len({end.ipv4 for end in ends}) == len({end.ipv6 for end in ends}) == len({end.mac for end in ends}) == 4


def test_checksums_are_whole_on_the_wire_unless_asked_otherwise(netns: Netns) -> None:
    one, two = netns(), netns()
    for number, offload in enumerate((False, True)):
        here, there = one.connect(two, f"eth{number}", f"eth{number}", checksum_offload=offload)
        with two.entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            wire.bind((there.interface, 0x0800))
        with wire, one.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            wire.settimeout(TIMEOUT_S)
            sender.sendto(b"hello", (there.ipv4, 9))
            packet = Ether(wire.recv(2000))
        right = packet.copy()
        del right[UDP].chksum

        assert (IP(bytes(right[IP]))[UDP].chksum == packet[UDP].chksum) is not offload, here


def test_what_runs_inside_sees_the_namespace_and_the_mounts_outside(netns: Netns, tmp_path: Path) -> None:
    namespace = netns("inside")

    output = namespace.run("sh", "-c", f"ip -o link; ls {tmp_path.parent}").stdout

    assert output.count(": lo:") == 1
    assert tmp_path.name in output


def test_a_command_that_fails_is_shown_with_its_output(netns: Netns) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        netns().run("sh", "-c", "echo no such thing >&2; exit 3")


def test_a_thread_is_back_where_it_was_after_an_error_inside(netns: Netns) -> None:
    before, namespace = here(), netns()

    def fail() -> None:
        with namespace.entered():
            raise RuntimeError(here())

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert caught.value.args != (before,)
    assert here() == before


def test_namespaces_and_their_processes_are_gone_afterwards_even_after_a_failure() -> None:
    made: list[Namespace] = []
    sleepers: list[subprocess.Popen[str]] = []

    def fail() -> None:
        with Factory() as netns:
            made.append(netns("doomed"))
            sleepers.append(made[0].start("sleep", "1000"))
            raise RuntimeError(names())

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert made[0].name in caught.value.args[0]
    assert made[0].name not in names()
    assert sleepers[0].returncode is not None


def test_a_node_runs_its_chain_on_real_packets(node: RunNode, mirror: Mirror) -> None:
    running = node(DOCUMENT, [mirror])
    with running.client_namespace.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        wire.bind((running.client.interface, 0x0800))
    frame = bytes(Ether(src=running.client.mac, dst=running.end.mac) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(dport=7) / b"echo")

    with wire:
        wire.settimeout(TIMEOUT_S)
        wire.send(frame)

        assert wire.recv(2000) == frame
    (place,) = running.snapshot().places
    assert place.in_kernel == ("mirror",)
    assert (Verdict.TX, 1) in {(count.verdict, count.packets) for count in place.hops[0].counts}


def test_a_node_that_is_changed_runs_the_change(node: RunNode, mirror: Mirror) -> None:
    running = node(DOCUMENT, [mirror])

    running.apply({"interface": {"eth0": {"chain": ["mirror", "again"]}}, "function": {"again": {"plugin": "mirror"}}})

    assert running.snapshot().places[0].in_kernel == ("mirror", "again")


def test_nothing_of_a_node_is_left_even_if_it_does_not_start(compiler: Any, mirror: Mirror, tmp_path: Path) -> None:
    from xdpchain.testing.node import Node

    def state() -> tuple[set[str], str]:
        return names(), Path("/proc/self/mounts").read_text()

    before = state()
    folder = tmp_path / "bpffs"
    folder.mkdir()

    with pytest.raises(ConfigError):
        Node({"interface": {"eth0": {"chain": ["no_such"]}}}, [mirror], compiler, folder)
    assert state() == before
    Node(DOCUMENT, [mirror], compiler, folder).close()
    assert state() == before
