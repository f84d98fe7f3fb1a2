# SPDX-License-Identifier: Apache-2.0
"""Real servers, real clients, and a witness: a tracepoint program of the tests' own that counts what the kernel establishes."""

from __future__ import annotations

import contextlib
import errno
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from xdpchain import Hook, KernelFunction, Map, MapKind, Program, Role, u32, u64
from xdpchain.bpf import libbpf
from xdpchain.sockets import tcp_sockets
from xdpchain.testing import Namespace, Node
from xdpchain_maxconn import Maxconn

PORT = 80
PATIENCE_S = 30.0
_BACKLOG = 4096
_RST_AT_CLOSE = struct.pack("=ii", 1, 0)

WITNESS_C = """
#include "xdpchain.h"

BPF_TABLE("array", u32, u64, witness_counts, BY_SCHEMA);	/* now, most ever, opened; of connections to port 80 */

static __always_inline verdict witness(struct xdp_md *ctx, struct packet *packet)
{
	return next(NO_REASON);
}

static __always_inline int witness_state(struct witness_state_event *event)
{
	u32 now_key = 0, most_key = 1, opened_key = 2;
	u64 *now, *most, *opened, net = 0, cookie = 0, count;

	bpf_probe_read_kernel(&net, sizeof(net), (void *)(event->skaddr + SOCK_NET));
	bpf_probe_read_kernel(&cookie, sizeof(cookie), (void *)(net + NET_COOKIE));
	if (event->sport != 80 || event->protocol != IPPROTO_TCP || cookie != own_netns())
		return 0;
	now = witness_counts.lookup(&now_key);
	most = witness_counts.lookup(&most_key);
	opened = witness_counts.lookup(&opened_key);
	if (!now || !most || !opened)
		return 0;
	if (event->oldstate == 3 && event->newstate == 1) {
		__sync_fetch_and_add(opened, 1);
		count = __sync_fetch_and_add(now, 1) + 1;
		for (int i = 0; i < 8; i++) {
			u64 old = *(volatile u64 *)most;

			if ((s64)count <= (s64)old || __sync_val_compare_and_swap(most, old, count) == old)
				break;
		}
	} else if (event->newstate == 7 && event->oldstate != 3 && event->oldstate != 10 && event->oldstate != 2 && event->oldstate != 7) {
		__sync_fetch_and_add(now, -1);
	}
	return 0;
}
"""


@attrs.frozen
class NoConfig:
    """No keys."""


class Witness(KernelFunction[NoConfig]):
    """Counts the connections to port 80 without a table of them, and remembers the most that there ever were."""

    api = 1
    name = "witness"
    summary = "counts"
    config = NoConfig
    programs = (
        Program(Hook.XDP, "witness"),
        Program(
            Hook.TRACEPOINT,
            "witness_state",
            event="sock:inet_sock_set_state",
            fields=("skaddr", "oldstate", "newstate", "sport", "protocol"),
        ),
    )
    offsets = {"SOCK_NET": "sock.__sk_common.skc_net", "NET_COOKIE": "net.net_cookie"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        type(self).source = folder / "witness.bpf.c"
        self.source.write_text(WITNESS_C)

    def maps(self, config: NoConfig) -> Sequence[Map]:
        return (Map(name="witness_counts", kind=MapKind.ARRAY, key=u32, value=u64, capacity=3, role=Role.STATE, help="counts"),)


class Server:
    """Accepts whatever comes to some ports, holds it, and closes what its client closes."""

    def __init__(self, namespace: Namespace, ports: Iterable[int] = (PORT,)) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self.open: set[socket.socket] = set()
        self.accepted = 0
        self.listeners: list[socket.socket] = []
        with namespace.entered():
            for port in ports:
                listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ)
                self.listeners.append(listener)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if one in self.listeners:
                    self._accept(one)
                else:
                    self._read(one)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                one, _ = listener.accept()
                one.setblocking(False)
                self.open.add(one)
                self.accepted += 1
                self._selector.register(one, selectors.EVENT_READ)

    def _read(self, one: socket.socket) -> None:
        try:
            if one.recv(4096):
                return
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self.drop(one)

    def drop(self, one: socket.socket) -> None:
        self._selector.unregister(one)
        self.open.discard(one)
        one.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for one in (*self.open, *self.listeners):
            one.close()
        self._selector.close()


class Bed:
    """A node under `maxconn` with a server, and its clients."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.server = Server(node.namespace)
        self.clients: list[socket.socket] = []
        self._more: list[Callable[[], None]] = [self.server.close]

    def close(self) -> None:
        for one in self.clients:
            one.close()
        for close in self._more:
            close()

    def dial(self, count: int = 1, *, family: int = socket.AF_INET, port: int = PORT) -> list[socket.socket]:
        """Begin to open connections; nothing is waited for."""
        address = self.node.end.ipv4 if family == socket.AF_INET else self.node.end.ipv6
        fresh = []
        with self.node.client_namespace.entered():
            for _ in range(count):
                one = socket.socket(family, socket.SOCK_STREAM)
                one.setblocking(False)
                code = one.connect_ex((address, port))
                assert code in {errno.EINPROGRESS, 0}, errno.errorcode[code]
                fresh.append(one)
        self.clients += fresh
        return fresh

    def hang_up(self, clients: Iterable[socket.socket], *, reset: bool = False) -> None:
        """Close connections: by FIN, or by RST."""
        for one in clients:
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_AT_CLOSE)
            self.clients.remove(one)
            one.close()

    def established(self, port: int = PORT) -> int:
        """How many connections to a port the kernel has."""
        with self.node.namespace.entered():
            return sum(1 for one in tcp_sockets().tcp if one.local_port == port and one.state not in {2, 3, 10})

    def sweep(self) -> int:
        """What the daemon does every few seconds."""
        return self.node.sweep("maxconn")

    def warnings(self) -> Iterable[str]:
        """What `xdpchain status` warns of."""
        return Maxconn().warnings(self.config, self.node.maps("maxconn"))

    def drift(self, index: int = 0) -> int:
        """What sweeps have repaired."""
        value: int = self.row(index)["drift"]
        return value

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Let the tracepoint's events be lost: the dispatcher leads nowhere."""
        chain = self._tracepoint("maxconn-mc_state")
        assert chain.generation is not None
        root = chain.anchor.dispatcher.root
        libbpf.map_delete(root.fd, bytes(4))
        try:
            yield
        finally:
            root.point(chain.generation.head)

    def _tracepoint(self, program: str) -> Any:
        state = self.node._engine._state
        assert state is not None
        (chain,) = (chain for place, chain in state.chains.items() if place.program == program)
        return chain

    def missed(self) -> int:
        """
        How many events the kernel has kept from the witness.

        It runs no program of a tracepoint while one runs already on that CPU (an interrupt has come in the middle of it), and none while
        user space writes to a map there.
        """
        return int(libbpf.prog_info(self._tracepoint("witness-witness_state").anchor.dispatcher.program.fd).recursion_misses)

    def agree(self, expected: Sequence[int], seen: Sequence[int]) -> None:
        """Fail unless numbers are as expected, as far as the kernel has told of all that happened."""
        missed = self.missed()
        assert all(abs(one - other) <= missed for one, other in zip(expected, seen, strict=True)), (expected, seen, missed)

    def witnessed(self, now: int, highest: int, opened: int) -> None:
        """Fail unless the witness saw so many connections."""
        self.agree((now, highest, opened), self.witness)

    def apply(self, *limits: Mapping[str, Any], **keys: Any) -> None:
        """Make other limits run."""
        chains = {"eth0": {"chain": ["maxconn", "witness"]}}
        self.node.apply({"interface": chains, "function": {"maxconn": {**keys, "limit": list(limits)}}})

    def syn(self, host: int, source_port: int, port: int = PORT) -> None:
        """Send a SYN from an address of the client's network that nobody has: its handshake stays half done."""
        end, client = self.node.end, self.node.client
        source = f"{client.ipv4.rpartition('.')[0]}.{host}"
        self.node.namespace.run("ip", "neighbour", "replace", source, "lladdr", client.mac, "dev", end.interface)
        frame = Ether(src=client.mac, dst=end.mac) / IP(src=source, dst=end.ipv4) / TCP(sport=source_port, dport=port, flags="S")
        with self.node.client_namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((client.interface, 0))
            raw.send(bytes(frame))

    def count(self, index: int = 0) -> int:
        """How many connections the first limit has, or another one."""
        value: int = self.row(index)["open"]
        return value

    def row(self, index: int = 0) -> dict[str, Any]:
        """A row of `xdpchain show maxconn`."""
        (table,) = Maxconn().status(self.config, self.node.maps("maxconn"))
        return dict(zip(table.columns, table.rows[index], strict=True))

    @property
    def config(self) -> Any:
        config = self.node._engine.config
        assert config is not None
        return config.instances["maxconn"].config

    @property
    def witness(self) -> tuple[int, int, int]:
        """
        What the kernel has established: now, at most at any time, in all.

        As far as the witness was told (`missed`): one that has missed that connections opened may have fewer than none.
        """
        counts = dict(self.node.maps("witness")["witness_counts"].items())
        return _signed(counts[0]), counts[1], counts[2]


class Churn:
    """Clients that open and close connections as fast as they can, each of them one at a time, in a thread of their own."""

    def __init__(self, namespace: Namespace, targets: Sequence[tuple[int, str]], clients: int, seed: int) -> None:
        self.opened = self.refused = self.given_up = 0
        self._namespace, self._targets, self._clients = namespace, targets, clients
        self._choose = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        until: dict[socket.socket, float] = {}
        with self._namespace.entered():
            while not self._stop.is_set():
                while len(until) < self._clients:
                    family, address = self._choose.choice(self._targets)
                    one = socket.socket(family, socket.SOCK_STREAM)
                    one.setblocking(False)
                    if one.connect_ex((address, PORT)) not in {0, errno.EINPROGRESS}:
                        one.close()
                        break
                    selector.register(one, selectors.EVENT_WRITE)
                    until[one] = time.monotonic() + 0.3
                for key, _ in selector.select(0.01):
                    self._settled(key.fileobj, selector, until)
                self._hang_up(selector, until)
        for one in until:
            one.close()
        selector.close()

    def _settled(self, one: Any, selector: selectors.BaseSelector, until: dict[socket.socket, float]) -> None:
        selector.unregister(one)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.refused += 1
            del until[one]
            one.close()
            return
        self.opened += 1
        until[one] = time.monotonic() + self._choose.random() * 0.05
        if self._choose.random() < 0.5:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_AT_CLOSE)

    def _hang_up(self, selector: selectors.BaseSelector, until: dict[socket.socket, float]) -> None:
        now = time.monotonic()
        for one in [one for one, end in until.items() if end <= now]:
            if one in selector.get_map():
                selector.unregister(one)
                self.given_up += 1
            del until[one]
            one.close()


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def until(condition: Callable[[], object], explain: Callable[[], object] = str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.01)
