# SPDX-License-Identifier: Apache-2.0
"""A chain under test: loaded from a document, attached to nothing, driven packet by packet."""

from __future__ import annotations

import functools
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import attrs

from xdpchain.bpf.libbpf import test_run
from xdpchain.chain.model import Frame
from xdpchain.chain.private import END_OF_CHAIN, PrivateChain
from xdpchain.config import NodeConfig, loads
from xdpchain.errors import ConfigError
from xdpchain.function import CHAIN_HOOKS, Hook, KernelFunction, Metric, NextHops, Sockets, Table, Verdict, Write
from xdpchain.packets.notation import dissect, frame_of
from xdpchain.plugins import load_plugins

if TYPE_CHECKING:
    from scapy.packet import Packet

    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.bpf.maps import KernelMap

Document = str | Mapping[str, Any]
"""a node: TOML text, or what it would be parsed to"""
Functions = Iterable[KernelFunction[Any]]


class LoadChain(Protocol):
    """The fixture `load_chain`."""

    def __call__(self, document: Document, interface: str = "eth0", functions: Functions | None = None) -> LoadedChain: ...


@attrs.frozen
class Result:
    """
    What a chain did with one packet.

    `function` is the instance that decided (empty at the end of the chain, with the reason "end_of_chain"), `reason` empty where it gave
    none, `path` the instances that the packet reached, `sent` the frame as it went in, `packet` as it leaves.
    """

    verdict: Verdict
    reason: str
    function: str
    path: tuple[str, ...]
    sent: bytes
    packet: bytes

    @property
    def scapy(self) -> Packet:
        """The frame as it leaves, in scapy's layers."""
        return dissect(self.packet)


class LoadedChain:
    """
    A chain with its own programs and maps; nothing is attached or pinned.

    Args:
        document: the node.
        interface: whose chain of the document it is; no such interface need exist.
        functions: the functions that the document may use; those of the installed plugins when None.
        compiler: compiles them.

    Raises:
        XdpchainError: as `xdpchain apply` would.
    """

    def __init__(self, document: Document, interface: str, functions: Functions | None, compiler: Compiler) -> None:
        self._document = tomllib.loads(document) if isinstance(document, str) else document
        self._functions = functions
        self.config = read_document(self._document, functions)
        self._chain = PrivateChain(self.config, interface, compiler)

    def send(self, packet: Packet | bytes, *, egress: bool = False) -> Result:
        """
        Send a packet through XDP and, where it passes, TC ingress; with `egress` through TC egress.

        What a scapy packet leaves open (MAC addresses, sources, an Ethernet header in front) is the same on every machine.
        """
        sent = frame_of(packet)
        frame: Frame = self._chain.send(sent, egress=egress)
        if frame.error:
            raise ValueError(f"the kernel does not take this packet: {frame.error}")
        return Result(frame.verdict, frame.reason, frame.function, tuple(frame.path), sent, frame.packet)

    @property
    def program(self) -> int:
        """The descriptor of the first program at XDP, for test runs of one's own."""
        return self.program_of(Hook.XDP)

    def program_of(self, hook: Hook) -> int:
        """The same for any hook that the chain has programs on."""
        return self._chain.program(hook)

    def repeat(self, frame: bytes, times: int = 1) -> None:
        """Send a frame through XDP again and again, as fast as the kernel can, and look at nothing that comes of it."""
        test_run(self.program, frame, repeat=times)

    def repeat_on_all_cpus(self, frames: Sequence[bytes], times: int) -> int:
        """
        `repeat` each of the frames, in order, on all CPUs that this process may use, at once; returns how many these are.

        Raises:
            RuntimeError: there is but one CPU, which proves nothing, or a run failed.
        """
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise RuntimeError("one CPU proves nothing")
        gate, opener = os.pipe()
        children = []
        for cpu in cpus:
            child = os.fork()
            if child == 0:
                self._repeat_behind(gate, opener, cpu, frames, times)
            children.append(child)
        os.close(gate)
        os.close(opener)
        codes = [os.waitpid(child, 0)[1] for child in children]
        if any(codes):
            raise RuntimeError("a run on one of the CPUs failed")
        return len(cpus)

    def _repeat_behind(self, gate: int, opener: int, cpu: int, frames: Sequence[bytes], times: int) -> NoReturn:
        """One child: waits at the gate, which opens when nobody holds `opener` any more, and ends."""
        code = 1
        try:
            os.close(opener)
            os.sched_setaffinity(0, {cpu})
            os.read(gate, 1)
            for frame in frames:
                self.repeat(frame, times)
            code = 0
        finally:
            os._exit(code)

    @property
    def maps(self) -> Mapping[str, Mapping[str, KernelMap]]:
        """The maps of each instance by name, to read and to write."""
        return self._chain.maps

    def counts(self, instance: str) -> Mapping[tuple[Verdict, str], int]:
        """How many packets an instance answered with each verdict and reason so far, on all of its hooks."""
        total = Counter[tuple[Verdict, str]]()
        for hook in CHAIN_HOOKS:
            for count in self._chain.counts(instance, hook):
                total[count.verdict, count.reason] += count.packets
        return total

    def configure(self, instance: str, table: Mapping[str, Any]) -> None:
        """
        Lead an instance to another config, as an apply does: by what the config handler says is different.

        Args:
            instance: its name.
            table: what `[function.NAME]` shall hold now.

        Raises:
            XdpchainError: everything is as it was.
        """
        tables = self._document.get("function", {})
        plugin = {"plugin": tables[instance]["plugin"]} if "plugin" in tables.get(instance, {}) else {}
        document = {**self._document, "function": {**tables, instance: {**plugin, **table}}}
        config = read_document(document, self._functions)
        self._chain.configure(instance, config.instances[instance].config)
        self._document, self.config = document, config

    def carry_out(self, instance: str, writes: Iterable[Write]) -> int:
        """Carry out writes on an instance; returns how many they were. Raises XdpchainError where one cannot be."""
        return self._chain.carry_out(instance, writes)

    def follow(self, instance: str, hops: NextHops) -> int:
        """Tell an instance the next hops, as the daemon does when they change; returns how many writes its function answered with."""
        one = self.config.instances[instance]
        return self._chain.carry_out(instance, one.function.follow(one.config, hops, self.maps[instance]), method="follow")

    def upkeep(self, instance: str) -> int:
        """Do what is due, as the daemon does each second; returns how many writes that were."""
        one = self.config.instances[instance]
        return self._chain.carry_out(instance, one.function.upkeep(one.config, self.maps[instance]))

    def sweep(self, instance: str, sockets: Sockets) -> int:
        """Tell an instance the sockets that there are, as the daemon does every few seconds; returns how many writes followed."""
        one = self.config.instances[instance]
        writes = one.function.sweep(one.config, sockets, self.maps[instance])
        return self._chain.carry_out(instance, writes, method="sweep")

    def answer(self, instance: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the function answers to a question of one of its commands."""
        one = self.config.instances[instance]
        return one.function.answer(one.config, self.maps[instance], question)

    def warnings(self, instance: str) -> Sequence[str]:
        """What `xdpchain status` would warn of."""
        one = self.config.instances[instance]
        return list(one.function.warnings(one.config, self.maps[instance]))

    def status(self, instance: str) -> Sequence[Table]:
        """What `xdpchain show INSTANCE` would print."""
        one = self.config.instances[instance]
        return one.function.status(one.config, self.maps[instance])

    def metrics(self, instance: str) -> Sequence[Metric]:
        """The metrics that the function itself brings."""
        one = self.config.instances[instance]
        return list(one.function.metrics(one.config, self.maps[instance]))


def read_document(document: Document, functions: Functions | None) -> NodeConfig:
    """A valid node, or a `ConfigError` whose text has all problems: pytest shows nothing else of it."""
    try:
        return loads(document, _by_name(functions))
    except ConfigError as error:
        explained = error if functions is not None else _installed().explain(error)
        for problem in explained.problems:
            explained.add_note(": ".join(filter(None, (".".join(map(str, problem.path)), problem.message, problem.hint))))
        raise explained from None


def _by_name(functions: Functions | None) -> Mapping[str, KernelFunction[Any]]:
    return _installed().functions if functions is None else {function.name: function for function in functions}


_installed = functools.cache(load_plugins)

__all__ = ["END_OF_CHAIN", "Document", "Functions", "LoadChain", "LoadedChain", "Result", "read_document"]
