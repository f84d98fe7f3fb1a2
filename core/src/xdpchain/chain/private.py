# SPDX-License-Identifier: Apache-2.0
"""
A chain in private: the real programs and maps of an interface's chain, attached to nothing and pinned nowhere.

Frames are sent through it with BPF_PROG_TEST_RUN; which hops a frame passed is read off the hops' own counters. `xdpchain trace` and the
fixtures of `xdpchain.testing` are built on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.libbpf import test_run
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.instance import Instance, make_instance, write, writes_between
from xdpchain.chain.model import Count, Frame, Interface, Place, Wiring
from xdpchain.chain.plan import want
from xdpchain.chain.snapshot import read_counts, verdict_at
from xdpchain.chain.sources import Sources, Units
from xdpchain.chain.transaction import Transaction
from xdpchain.chain.wiring import Generation, Hop, build_generation
from xdpchain.config import NodeConfig
from xdpchain.errors import ConfigError, KernelError, Problem
from xdpchain.function import Hook, Verdict, Write

END_OF_CHAIN = "end_of_chain"
"""The reason when no function has decided: the end of the chain is PASS."""

_ROOM = 1024
"""How much a frame may grow on its way, in bytes."""
_MIN_FRAME = 14
_INTERFACE = Interface(1, "")


class PrivateChain:
    """
    The chain that `config` has for the interface named `interface`, which need not exist, and is of that `kind` (as `ip -details link` names it).

    Raises:
        ConfigError: no chain is configured for that name.
        XdpchainError: as `Engine.apply`.
    """

    def __init__(self, config: NodeConfig, interface: str, compiler: Compiler, kind: str = "") -> None:
        settings = config.interface_for(interface)
        if settings is None:
            names = ", ".join(one.pattern for one in config.interfaces) or "none"
            raise ConfigError((Problem(("interface", interface), "no chain is configured for this interface", f"configured are: {names}"),))
        sources = Sources({name: config.instances[name] for name in settings.chain}, Units())
        wanted = want(attrs.evolve(config, interfaces=(settings,)), [attrs.evolve(_INTERFACE, name=interface, kind=kind)], sources.codes)
        artifacts, _ = sources.compile(compiler, settings.chain, ())
        self._instances: dict[str, Instance] = {}
        for name in settings.chain:
            one = config.instances[name]
            self._instances[name] = make_instance(name, one.function, one.config, sources.codes[name], artifacts[name], None, Transaction())
        self._generations = {place.hook: self._build(place, wiring) for place, wiring in wanted.wirings.items() if place.interface}
        self._seen = {hop.counts.fd: dict(hop.counts.items_raw()) for one in self._generations.values() for hop in one.hops}
        self._index = 0

    def _build(self, place: Place, wiring: Wiring) -> Generation:
        private = attrs.evolve(wiring, mode="auto")
        return build_generation(place, 1, private, self._instances, None, Transaction())

    @property
    def maps(self) -> Mapping[str, Mapping[str, KernelMap]]:
        """The maps of each instance."""
        return {name: instance.maps for name, instance in self._instances.items()}

    def configure(self, instance: str, config: Any) -> None:
        """Lead an instance to another config, as an apply would; raises `PluginError` or `KernelError` and leaves everything as it was."""
        transaction = Transaction()
        one = self._instances[instance]
        try:
            write(one, writes_between(one, config), transaction)
        except BaseException:
            transaction.roll_back()
            raise
        self._instances[instance] = attrs.evolve(one, config=config)

    def carry_out(self, instance: str, writes: Iterable[Write], *, method: str = "upkeep") -> int:
        """Carry out writes on an instance, as `Engine.carry_out`."""
        return write(self._instances[instance], writes, None, method=method)

    def counts(self, instance: str, hook: Hook = Hook.XDP) -> tuple[Count, ...]:
        """What a hop has counted so far; nothing where the instance has no program on that hook."""
        hops = self._generations[hook].hops if hook in self._generations else ()
        return next((_counts(hop) for hop in hops if hop.instance.name == instance), ())

    def program(self, hook: Hook = Hook.XDP) -> int:
        """The descriptor of the first program of a hook, for benchmarks."""
        return self._generations[hook].head.fd

    def send(self, frame: bytes, *, egress: bool = False) -> Frame:
        """
        Send one frame through the chain: XDP and then, if it passes, TC ingress; or TC egress alone.

        State (windows, tables, counters) stays from frame to frame.
        """
        index, self._index = self._index, self._index + 1
        path: list[str] = []
        packet = frame
        hooks = (Hook.TC_EGRESS,) if egress else (Hook.XDP, Hook.TC_INGRESS)
        decided = (Verdict.PASS, "", END_OF_CHAIN)
        for hook in (hook for hook in hooks if hook in self._generations):
            if len(packet) < _MIN_FRAME:
                return Frame(index, Verdict.PASS, "", "", path, packet, "shorter than an Ethernet header: no hook sees it")
            try:
                _, packet, _ = test_run(self._generations[hook].head.fd, packet, room=len(packet) + _ROOM)
            except KernelError as error:
                return Frame(index, Verdict.ABORT, "", "", path, packet, error.message)
            steps = self._steps(hook)
            path.extend(instance for instance, _, _ in steps)
            instance, verdict, reason = steps[-1]
            if verdict is not Verdict.NEXT:
                decided = (verdict, instance, reason)
            if verdict not in {Verdict.NEXT, Verdict.PASS}:
                break
        return Frame(index, *decided, path, packet)

    def _steps(self, hook: Hook) -> list[tuple[str, Verdict, str]]:
        """What the last frame added to the counters: one step for each hop that it passed. Compared as they are: most are as before."""
        steps = []
        for hop in self._generations[hook].hops:
            before, now = self._seen[hop.counts.fd], dict(hop.counts.items_raw())
            self._seen[hop.counts.fd] = now
            changed = [key for key, value in now.items() if value != before[key]]
            if not changed:
                break
            verdict, reason = verdict_at(hop.counts.schema.key.unpack(changed[-1]), hop.instance.function.reasons)
            steps.append((hop.instance.name, verdict, reason))
        return steps


def _counts(hop: Hop) -> tuple[Count, ...]:
    return read_counts(hop.counts, hop.instance.function.reasons)
