# SPDX-License-Identifier: Apache-2.0
"""
The kernel function: what a plugin package ships, and what the core asks of it.

A function is described by data (programs, reasons, map schema) and by pure methods: it never touches the kernel itself. Its config handler
answers with the map writes that lead from the old config to the new one; the core carries them out, and takes them back when an apply fails.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import attrs

from xdpchain.errors import Problem
from xdpchain.schema import Map

API_VERSION = 1
"""The version of this interface. A function states the one it was written for in `KernelFunction.api`."""

ConfigT = TypeVar("ConfigT")


class Verdict(enum.IntEnum):
    """
    What a function says about a packet; the same numbers as in `xdpchain.h`.

    ABORT to REDIRECT are XDP's own actions (linux/bpf.h); NEXT hands the packet on. BROKEN is never returned by a function: the core counts
    it where a hop could not be taken.
    """

    ABORT = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4
    NEXT = 5
    BROKEN = 6


class Hook(enum.Enum):
    """
    Where a program runs. The first three form chains on an interface; a tracepoint is node-wide.

    A routine hangs nowhere: the config handler has it run (`Run`), for work on maps that is the kernel's to do.
    """

    XDP = "xdp"
    TC_INGRESS = "tc_ingress"
    TC_EGRESS = "tc_egress"
    TRACEPOINT = "tracepoint"
    ROUTINE = "routine"


class Side(enum.Enum):
    """
    What is at the other end of an interface: the network, as behind a NIC, or a workload on this machine, as behind a tap or a veth.

    What comes in from the network goes out to the workload: a function that tells the two directions apart has other programs on each side.
    """

    NETWORK = "network"
    WORKLOAD = "workload"


CHAIN_HOOKS = (Hook.XDP, Hook.TC_INGRESS, Hook.TC_EGRESS)


@attrs.frozen
class Program:
    """
    One program: `entry` is the C function of the author, `event` a tracepoint's "category:name".

    An XDP program with `frags` works on packets in several buffers (jumbo frames); a chain uses frags when all of its functions can.
    `fields` names what a tracepoint program reads of its event: the C function gets a `struct ENTRY_event` with these fields, of the sizes
    and at the places that the running kernel has them. A program with a `side` runs on interfaces of that side only.
    """

    hook: Hook
    entry: str
    frags: bool = True
    event: str = ""
    fields: tuple[str, ...] = ()
    side: Side | None = None

    def runs_on(self, side: Side) -> bool:
        """Whether it belongs on interfaces of that side."""
        return self.side in {None, side}


@attrs.frozen
class Reason:
    """A named reason for a verdict: `rate_exceeded` here is `RATE_EXCEEDED` in C and the `reason` label of the metrics."""

    name: str
    help: str


@attrs.frozen
class Put:
    """
    Write `value` at `key`; with `keep`, only where there is no value yet.

    In a map of maps the value is the content of a new inner map, pairs of key and value; packets see the old inner map or the whole new one.
    Keys and values may be given as bytes, packed already.
    """

    map: str
    key: Any
    value: Any
    keep: bool = False


@attrs.frozen
class PutMany:
    """
    Write each of `values` at the key of `keys` that stands at its place: what as many `Put` would do, in this order, at a fraction of their cost.

    Packets may see any part of it. Keys and values may be given as bytes, packed already.
    """

    map: str
    keys: Sequence[Any]
    values: Sequence[Any]


@attrs.frozen
class Delete:
    """Remove `key`; nothing happens where it is not there."""

    map: str
    key: Any


@attrs.frozen
class Move:
    """Put the inner map that stands at `key` of a map of maps at `to` instead, in one step; `key` is empty then."""

    map: str
    key: Any
    to: Any


@attrs.frozen
class Run:
    """
    Run the routine `entry` until it returns 0, at most `most` times; a run that returns anything else is to be continued.

    One run is bounded by the verifier, so long work is done in many, with its state in a map. What a routine writes is not taken back when
    an apply fails: let it write to what no packet sees yet.
    """

    entry: str
    most: int = 1


Write = Put | PutMany | Delete | Move | Run


@attrs.frozen
class NextHop:
    """
    The next hop on the way to an address, as the kernel's routes and neighbours have it.

    `interface` is the name of the interface that packets leave by, empty where there is no route; `gateway` the address whose hardware address
    is `mac`, which is None while it is not known; `mtu` in bytes, of the route or the interface. `here` says whether that interface is one
    whose chain has the instance in it, `problem` in words why there is no interface or no `mac`.
    """

    interface: str = ""
    gateway: IPv4Address | IPv6Address | None = None
    mac: bytes | None = None
    mtu: int = 0
    here: bool = False
    problem: str = ""


NextHops = Mapping[IPv4Address | IPv6Address, NextHop]


class Socket(NamedTuple):
    """
    A TCP socket of this network namespace: its addresses in 16 bytes, IPv4 as ::ffff:a.b.c.d, its ports, and its state.

    `state` has the kernel's number (TCP_ESTABLISHED is 1). A connection that is not accepted by the kernel yet is in TCP_SYN_RECV; what is left
    of one in TIME_WAIT is no socket any more.
    """

    local: bytes
    remote: bytes
    local_port: int
    remote_port: int
    state: int


@attrs.frozen
class Sockets:
    """All TCP sockets of this network namespace. The kernel was asked at `at_ns` of its monotonic clock, and answered within moments."""

    at_ns: int
    tcp: Sequence[Socket]


class MapReader(Protocol):
    """A typed view of one map. Values of per-CPU maps are lists with one value for each CPU."""

    @property
    def schema(self) -> Map: ...

    def get(self, key: Any) -> Any | None: ...

    def get_many(self, keys: Sequence[Any]) -> list[Any | None]: ...

    def blob(self) -> bytes:
        """All values of an array, one after the other as they are in C (no padding between them), in one read."""

    def inner(self, key: Any) -> MapReader | None:
        """The inner map at `key` of a map of maps."""

    def items(self) -> Iterator[tuple[Any, Any]]: ...

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements as they are in C, thousands at a time: keys one after the other, and their values. For those who read very many."""

    def __len__(self) -> int: ...


Maps = Mapping[str, MapReader]


@attrs.frozen
class Metric:
    """One metric family for the exporter: `kind` is "counter" or "gauge", each sample its labels and value."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


@attrs.frozen
class Table:
    """
    What `xdpchain show INSTANCE` prints: a header and rows of plain values (str, int, float, None).

    Columns named in `counters` only grow: they are shown with their rates. `key` says how many of the first columns name a row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    counters: Sequence[str] = ()
    key: int = 1


class KernelFunction(Generic[ConfigT]):
    """
    A kernel function. Subclass it, fill the class attributes, override the methods that you need, and announce it with `xdpchain_functions`.

    The methods get a valid config and must be pure: no I/O, no state kept in the object. One object serves all instances.
    """

    api: ClassVar[int]
    """the `API_VERSION` that the function was written for"""
    name: ClassVar[str]
    """lower case letters, digits and underscores; the default name of its instance"""
    summary: ClassVar[str]
    """one line for `xdpchain plugins`"""
    source: ClassVar[Path]
    """the BPF C file; it may `#include "..."` files beside it"""
    config: ClassVar[type[Any]]
    """an attrs class; the keys of `[function.NAME]`"""
    programs: ClassVar[Sequence[Program]]
    reasons: ClassVar[Sequence[Reason]] = ()
    offsets: ClassVar[Mapping[str, str]] = {}
    """where members of the running kernel's own structs are: a constant of this name in C for each "struct.member.member" """

    def maps(self, config: ConfigT) -> Sequence[Map]:
        """The map schema; capacities may depend on the config (another capacity means another map)."""
        return ()

    def check(self, config: ConfigT) -> Iterable[Problem]:
        """What is wrong with a config beyond the types of its fields; key paths are relative to the instance's table."""
        return ()

    def configure(self, old: ConfigT | None, new: ConfigT, maps: Maps) -> Iterable[Write]:
        """
        The writes that lead from `old` to `new`, in the order in which they must happen.

        `old` is None for a new instance and after a restart: config maps are empty then, state maps may hold what they held. A generator's writes are
        carried out as they come where all maps are new.
        """
        return ()

    def configure_with_hops(self, old: ConfigT | None, new: ConfigT, maps: Maps, hops: NextHops) -> Iterable[Write]:
        """
        The same with the next hops of `destinations`, as far as they are known, so that what is new need not wait for `follow`.

        The core asks this one; what answers is `configure`, unless a function overrides it.
        """
        return self.configure(old, new, maps)

    def metrics(self, config: ConfigT, maps: Maps) -> Iterable[Metric]:
        """Metrics beyond the core's own (packets and bytes by verdict and reason, fill levels, `stats` maps)."""
        return ()

    def status(self, config: ConfigT, maps: Maps) -> Sequence[Table]:
        """What `xdpchain show INSTANCE` prints."""
        return ()

    def destinations(self, config: ConfigT) -> Iterable[IPv4Address | IPv6Address]:
        """The addresses whose next hops `follow` wants to know."""
        return ()

    def check_next_hops(self, config: ConfigT, hops: NextHops) -> Iterable[Problem]:
        """What is wrong with a config in the light of the routes that there are now. Asked before anything changes, in a running daemon only."""
        return ()

    def follow(self, config: ConfigT, hops: NextHops, maps: Maps) -> Iterable[Write]:
        """The writes that bring the maps in line with the next hops of `destinations`: asked after each apply, and whenever one of them changed."""
        return ()

    def upkeep(self, config: ConfigT, maps: Maps) -> Iterable[Write]:
        """The writes that are due without any change, asked every second by a running daemon."""
        return ()

    def sweep(self, config: ConfigT, sockets: Sockets, maps: Maps) -> Iterable[Write]:
        """
        The writes that bring the maps in line with the sockets that there are: asked after each apply and every few seconds.

        The maps are as they are now, a little later than the sockets.
        """
        return ()

    def warnings(self, config: ConfigT, maps: Maps) -> Iterable[str]:
        """What an operator should know now, a sentence each, for `xdpchain status`."""
        return ()

    def answer(self, config: ConfigT, maps: Maps, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        The answer to a question that a command of the plugin asks (`xdpchain.cli.client.call("ask", instance=..., question=...)`).

        Raises:
            XdpchainError: the question makes no sense; the command's user sees it.
        """
        raise LookupError("this function answers no questions")
