# SPDX-License-Identifier: Apache-2.0
"""
The engine: holds what runs, and carries out plans as transactions.

Everything that can fail happens before anything that packets can notice: compile, create maps, first config, load, link. Then chains are
attached, configs written and generations flipped; a failure there is undone in reverse. What is no longer needed is let go last, after a
grace period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.grace import wait_grace_period
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.anchor import Anchor, adopt_anchor, holds
from xdpchain.chain.instance import Instance, make_instance, write, writes_between
from xdpchain.chain.model import Action, Interface, Kind, Place, Plan, Snapshot, Wiring
from xdpchain.chain.observe import interface_name
from xdpchain.chain.pins import Pins
from xdpchain.chain.place import Chain, attach_chain, rewire_chain
from xdpchain.chain.plan import Running, Wanted, make_plan, want
from xdpchain.chain.snapshot import take_snapshot
from xdpchain.chain.sources import Sources, Units
from xdpchain.chain.transaction import Transaction
from xdpchain.config import InstanceConfig, NodeConfig
from xdpchain.errors import InterfaceError, XdpchainError
from xdpchain.function import Hook, NextHops, Write


@attrs.frozen
class State:
    """What runs. Replaced as a whole by each apply, so that readers in other threads always see one consistent state."""

    instances: Mapping[str, Instance] = attrs.field(factory=dict)
    chains: Mapping[Place, Chain] = attrs.field(factory=dict)
    names: Mapping[int, str] = attrs.field(factory=dict)
    waiting: tuple[str, ...] = ()
    blocked: Mapping[str, str] = attrs.field(factory=dict)


class Engine:
    """
    The chains of one node, under one directory of a bpffs.

    Its methods are synchronous and not meant for several threads at once, but for `snapshot` and `maps`.
    """

    def __init__(self, root: Path, compiler: Compiler) -> None:
        self.config: NodeConfig | None = None
        self.pins = Pins(root)
        self._compiler = compiler
        self._units = Units()
        self._state: State | None = None

    def plan(self, config: NodeConfig, present: Sequence[Interface]) -> Plan:
        """What `apply` would do now. Reads only."""
        state = self._state or self._adopted()
        wanted = want(config, present, Sources(config.instances, self._units).codes)
        return self._plan(state, wanted, present)

    def apply(
        self, config: NodeConfig, present: Sequence[Interface], *, blocked_ok: bool = False, hops: Mapping[str, NextHops] | None = None
    ) -> Plan:
        """
        Make the node run `config`, all or nothing; returns the plan that was carried out.

        Args:
            config: what shall run.
            present: the interfaces that there are.
            blocked_ok: go on without the interfaces on which a chain cannot be attached (a daemon that starts, an interface that
                appears), and name them in the plan. Without it they are an error.
            hops: the next hops that instances want to know, by their names, as far as they are known.

        Raises:
            XdpchainError: nothing was changed; what could not be taken back, if anything, is in `details`.
        """
        first = self._state is None
        self.pins.prepare()
        state = self._state or self._adopted()
        sources = Sources(config.instances, self._units)
        wanted = want(config, present, sources.codes)
        plan = self._plan(state, wanted, present)
        if plan.blocked and not blocked_ok:
            name, who = next(iter(plan.blocked.items()))
            raise InterfaceError(f"{name}: {who}", hint="or take the interface out of the config")
        if plan or first:
            transaction = Transaction()
            try:
                state, plan = self._carry_out(state, plan, wanted, sources, transaction, hops or {}, blocked_ok=blocked_ok)
            except BaseException as error:
                failed = transaction.roll_back()
                if failed and isinstance(error, XdpchainError):
                    error.details = "\n".join((error.details, "could not be taken back:", *failed)).strip()
                raise
        self._state = attrs.evolve(state, names=wanted.names, waiting=plan.waiting, blocked=plan.blocked)
        self.config = config
        if plan or first:
            self._let_go(plan)
        return plan

    def _plan(self, state: State, wanted: Wanted, present: Sequence[Interface]) -> Plan:
        running = Running(
            {name: instance.config for name, instance in state.instances.items()},
            {name: instance.code for name, instance in state.instances.items()},
            {place: chain.wiring for place, chain in state.chains.items() if place not in wanted.wirings or holds(chain.anchor)},
            {place: chain.anchor.mode for place, chain in state.chains.items()},
        )
        return make_plan(wanted, running, _blocked(wanted, running, present))

    def _carry_out(
        self,
        state: State,
        plan: Plan,
        wanted: Wanted,
        sources: Sources,
        transaction: Transaction,
        hops: Mapping[str, NextHops],
        *,
        blocked_ok: bool,
    ) -> tuple[State, Plan]:
        by_kind: dict[Kind, list[Action]] = {kind: [a for a in plan.actions if a.kind is kind] for kind in Kind}
        wired = [*by_kind[Kind.ATTACH], *by_kind[Kind.REWIRE]]
        made = [action.instance for kind in (Kind.MAKE, Kind.REPLACE) for action in by_kind[kind]]
        artifacts, dispatchers = sources.compile(self._compiler, made, (action.place.hook for action in wired if action.place))

        instances = {name: instance for name, instance in state.instances.items() if name in wanted.instances}
        for name in made:
            one: InstanceConfig = wanted.instances[name]
            code, known = wanted.codes[name], hops.get(name, {})
            instances[name] = make_instance(name, one.function, one.config, code, artifacts[name], self.pins, transaction, known)
        changes = []
        for action in by_kind[Kind.CONFIGURE]:
            changed = attrs.evolve(instances[action.instance], config=wanted.instances[action.instance].config)
            changes.append((changed, writes_between(instances[action.instance], changed.config, hops.get(action.instance, {}))))
            instances[action.instance] = changed
        rewired = [
            rewire_chain(state.chains[place], wiring, instances, dispatchers[place.hook], wanted.names, self.pins, transaction)
            for place, wiring in _targets(by_kind[Kind.REWIRE])
        ]

        chains = {place: chain for place, chain in state.chains.items() if place in wanted.wirings}
        blocked = dict(plan.blocked)
        for place, wiring in _targets(by_kind[Kind.ATTACH]):
            attempt = Transaction()
            try:
                chains[place] = attach_chain(place, wiring, instances, dispatchers[place.hook], wanted.names, self.pins, attempt)
            except InterfaceError as error:
                attempt.roll_back()
                if not blocked_ok:
                    raise
                blocked[wanted.names[place.interface]] = f"{error.message}; {error.hint}"
                chains.pop(place, None)
            else:
                transaction.absorb(attempt)
        for changed, writes in changes:
            write(changed, writes, transaction)
        for flip in rewired:
            chain = flip()
            chains[chain.anchor.place] = chain
        for action in by_kind[Kind.DETACH]:
            if action.place:
                state.chains[action.place].anchor.hold.detach()
        return State(instances, chains), attrs.evolve(plan, blocked=blocked)

    def _let_go(self, plan: Plan) -> None:
        """Release what the new state does not use, when no packet can be in it any more."""
        if any(action.kind in {Kind.REWIRE, Kind.DETACH, Kind.REPLACE} for action in plan.actions):
            wait_grace_period()
        self.pins.keep_only(self._live_pins())

    def _live_pins(self) -> list[Path]:
        state = self._state or State()
        pins = [path for instance in state.instances.values() for path in instance.pins]
        for chain in state.chains.values():
            pins.extend(chain.pins)
        return pins

    def _adopted(self) -> State:
        """What an earlier daemon left on the pins."""
        anchors: list[Anchor] = []
        for place in self.pins.places():
            anchor = adopt_anchor(place, self.pins)
            if anchor is not None:
                anchors.append(anchor)
        return State(chains={anchor.place: Chain(anchor, None) for anchor in anchors})

    def snapshot(self) -> Snapshot:
        """What runs and what it counted. May be called from any thread."""
        state = self._state or State()
        return take_snapshot(state.chains, state.instances, state.names, state.waiting, state.blocked)

    def maps(self, instance: str) -> Mapping[str, KernelMap]:
        """The maps of a running instance. Raises KeyError where there is none of that name."""
        return (self._state or State()).instances[instance].maps

    def carry_out(self, instance: str, writes: Iterable[Write], *, method: str = "upkeep") -> int:
        """
        Carry out writes on a running instance that no apply asks for; returns how many. Nothing is taken back when one fails.

        Args:
            instance: its name.
            writes: what to do.
            method: which method of the function answered with them, for errors.

        Raises:
            KeyError: there is no such instance.
            XdpchainError: a write cannot be carried out; those before it have been.
        """
        return write((self._state or State()).instances[instance], writes, None, method=method)

    def close(self) -> None:
        """Let go of everything. The datapath stays: the pins hold it."""
        self._state = None
        self.config = None


def unload(root: Path) -> list[str]:
    """Take the datapath away: detach every chain and remove every pin under `root`. Returns in words what was there. Needs no daemon."""
    pins = Pins(root)
    words = []
    for place in pins.places():
        anchor = adopt_anchor(place, pins)
        if anchor is not None:
            anchor.hold.detach()
            words.append(f"detached {place.program or f'{interface_name(place.interface)} {place.hook.value}'}")
    pinned = sum(1 for _ in pins.everything())
    pins.remove_tree()
    if pinned:
        words.append(f"removed {pinned} pins under {root}")
    return words


def _targets(actions: Sequence[Action]) -> list[tuple[Place, Wiring]]:
    return [(action.place, action.wiring) for action in actions if action.place and action.wiring]


def _blocked(wanted: Wanted, running: Running, present: Sequence[Interface]) -> dict[Place, str]:
    """The XDP places that wait for a chain while somebody else's program is there."""
    blocked = {}
    for interface in present:
        place = Place(Hook.XDP, interface.index)
        if place in wanted.wirings and place not in running.wirings and interface.xdp_programs:
            mode, number = next(iter(interface.xdp_programs.items()))
            blocked[place] = f"another XDP program (id {number}, {mode}) is attached there; it is never replaced: detach it"
    return blocked
