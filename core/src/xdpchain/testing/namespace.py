# SPDX-License-Identifier: Apache-2.0
"""Network namespaces for tests, joined by veth pairs; made with `ip` of iproute2, entered with setns(2)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from xdpchain.bpf import libbpf
from xdpchain.bpf.attach import Link, attach_xdp
from xdpchain.bpf.handle import Handle

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_SIOCGIFHWADDR, _SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8927, 0x8946, 0x17
_XDP, _BPF_XDP = 6, 37
_RETURN_PASS = bytes.fromhex("b700000002000000 9500000000000000")
"""`r0 = XDP_PASS; exit`"""
TIMEOUT_S = 60.0
_NUMBERS = itertools.count(1)


@attrs.frozen
class End:
    """One end of a veth pair, with the addresses that it has."""

    namespace: Namespace
    interface: str
    ipv4: str
    ipv6: str
    mac: str


class Namespace:
    """
    A network namespace with loopback up. `name` is what `ip netns` calls it: unique on this machine.

    Commands that are run inside see the same files and mounts as outside (`ip netns exec` would hide bpffs and tracefs).
    """

    def __init__(self, label: str) -> None:
        self.name = f"xdpchain-{os.getpid()}-{next(_NUMBERS)}-{label}"
        self._processes: list[subprocess.Popen[str]] = []
        self._links: list[Link] = []
        _ip("netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Run this thread inside: sockets that it opens and processes that it starts belong to the namespace for good."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def run(self, *command: str, check: bool = True, timeout: float = TIMEOUT_S, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; its output is text in the answer. With `check`, a failure is an error that shows it."""
        with self.entered():
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, **options)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode} in {self.name}:\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command inside and leave it running; it is killed with the namespace."""
        with self.entered():
            process = subprocess.Popen(command, text=True, **options)
        self._processes.append(process)
        return process

    def connect(self, other: Namespace, interface: str = "eth0", peer: str = "eth0", *, checksum_offload: bool = False) -> tuple[End, End]:
        """
        Join two namespaces by a veth pair, up, with addresses of both families at once.

        Args:
            other: the other namespace.
            interface: the name on this side.
            peer: the name on the other side.
            checksum_offload: let packets travel with partial checksums, as veth does by itself. A program that moves or rewrites packets
                is then never found out when it gets a checksum wrong.

        Returns:
            This end and the other one.
        """
        number = next(_NUMBERS)
        _ip("link", "add", interface, "netns", self.name, "type", "veth", "peer", "name", peer, "netns", other.name)
        sides = ((1, self, interface), (2, other, peer))
        # both up before there are addresses: the kernel asks its neighbours at once then, and not a second later
        for _, namespace, name in sides:
            namespace.run("ip", "link", "set", name, "up")
        ends = []
        for host, namespace, name in sides:
            ipv4, ipv6 = f"10.{number // 256 % 256}.{number % 256}.{host}", f"fd00:{number:x}::{host}"
            namespace.run("ip", "address", "add", f"{ipv4}/24", "dev", name)
            namespace.run("ip", "address", "add", f"{ipv6}/64", "dev", name, "nodad")
            if not checksum_offload:
                namespace.disable_checksum_offload(name)
            ends.append(End(namespace, name, ipv4, ipv6, namespace.mac(name)))
        return ends[0], ends[1]

    def mac(self, interface: str) -> str:
        """The MAC address of an interface."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("=16s24x", interface.encode()))
        return answer[18:24].hex(":")

    def disable_checksum_offload(self, interface: str) -> None:
        """What `ethtool -K NAME tx off` does: packets leave with whole checksums."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
            request = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)

    def accept_xdp_tx(self, interface: str) -> None:
        """
        Attach an XDP program that passes everything.

        A veth delivers frames that its peer sends by XDP_TX or redirects only if it has an XDP program itself.
        """
        program = Handle(libbpf.prog_load(_XDP, "pass", _RETURN_PASS, attach_type=_BPF_XDP))
        with self.entered():
            link, _ = attach_xdp(program, socket.if_nametoindex(interface), interface, "native")
        self._links.append(link)

    def close(self) -> None:
        """End what runs inside, and remove the namespace."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._links.clear()
        _ip("netns", "delete", self.name)


class Netns:
    """The fixture `netns`: call it with a label for a new namespace. All of them are removed at the end of the test."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __call__(self, label: str = "ns") -> Namespace:
        namespace = Namespace(label)
        self._stack.callback(namespace.close)
        return namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()


def enter_new_namespaces() -> None:
    """
    Move this process into a network of its own, with nothing in it, and mounts of its own. They end with it, and so does what is left there.

    Raises:
        OSError: it is not root.
    """
    _check(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        # what is mounted from now on is not sent to where we come from; mount by mount, since the root of a chroot is none
        if any(field.startswith("shared:") for field in fields[6 : fields.index("-")]):
            subprocess.run(["mount", "--make-private", fields[4].encode().decode("unicode_escape")], check=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(("ip", *arguments), check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _setns(descriptor: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET), "setns")


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
