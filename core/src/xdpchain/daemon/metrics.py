# SPDX-License-Identifier: Apache-2.0
"""
The metrics: families that are read from the kernel when somebody scrapes, in OpenMetrics naming and base units.

What a family's numbers mean is in its help text; `docs/operating.md` lists them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from xdpchain.chain.engine import Engine
from xdpchain.chain.model import PlaceStatus, Snapshot
from xdpchain.daemon.asking import Asker
from xdpchain.daemon.node import ORIGINS, Node
from xdpchain.function import MapReader, Verdict
from xdpchain.plugins import Plugins
from xdpchain.schema import Role, Scalar, Struct

Family = CounterMetricFamily | GaugeMetricFamily

MAX_STATS_KEYS = 1024
"""elements of one `stats` map that become samples; a scrape must stay bounded"""

_COUNTED = ("interface", "hook", "instance", "verdict", "reason")
_INTERFACE_STATES = ("attached", "waiting", "blocked")


class NodeCollector(Collector):
    """Collects the metrics of a node. Reads only, so it may run in any thread."""

    def __init__(self, node: Node, engine: Engine, plugins: Plugins) -> None:
        self._node = node
        self._engine = engine
        self._plugins = plugins
        self._asker = Asker(engine, node.failures)

    def collect(self) -> Iterator[Family]:
        """All families, each once."""
        snapshot = self._engine.snapshot()
        families: dict[str, Family] = {}
        for family in itertools.chain(packets(snapshot), maps(snapshot), self._applies(), interfaces(snapshot), self._warnings()):
            families[family.name] = family
        for instance in snapshot.instances:
            try:
                for family in self._of_instance(instance.name):
                    _merge(families, family)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's code may raise anything, and the others' metrics go on
                self._node.failures.tell(instance.name, "metrics", error)
        yield from families.values()

    def _applies(self) -> Iterator[Family]:
        applies = self._node.applies
        family = CounterMetricFamily(
            "xdpchain_applies",
            "Attempts to apply a configuration: applied, refused (errors in the files), or failed and taken back.",
            labels=["result"],
        )
        for result in ("applied", "refused", "failed"):
            family.add_metric([result], getattr(applies, result))
        yield family
        if applies.last_applied:
            text = "When a configuration was applied last, in seconds since 1970."
            yield GaugeMetricFamily("xdpchain_config_last_apply_timestamp_seconds", text, value=applies.last_applied)
        text = (
            "What runs: the node's file (file), another one (other_file), what a rollback or a start with a bad file fell back to, nothing."
        )
        origin = GaugeMetricFamily("xdpchain_config_origin", text, labels=["origin"])
        for one in ORIGINS:
            origin.add_metric([one.replace(" ", "_")], float(one == self._node.running.origin))
        yield origin
        broken = len(self._plugins.broken)
        yield GaugeMetricFamily("xdpchain_plugins_broken", "Plugins that were left out because they are broken.", value=broken)

    def _warnings(self) -> Iterator[Family]:
        text = "What an instance warns of now, a number of sentences; `xdpchain status` has them."
        family = GaugeMetricFamily("xdpchain_warnings", text, labels=["instance"])
        for instance, warnings in self._asker.warnings().items():
            family.add_metric([instance], len(warnings))
        yield family

    def _of_instance(self, name: str) -> Iterator[Family]:
        config = self._node.config
        one = config.instances.get(name) if config else None
        if one is None:
            return
        readers = self._engine.maps(name)
        for reader in readers.values():
            if reader.schema.role is Role.STATS:
                yield from stats(name, reader)
        for metric in one.function.metrics(one.config, readers):
            labels = sorted({"instance"}.union(*(sample for sample, _ in metric.samples)))
            family = _FAMILIES[metric.kind](metric.name.removesuffix("_total"), metric.help, labels=labels)
            for sample, value in metric.samples:
                family.add_metric([str({"instance": name, **sample}.get(label, "")) for label in labels], float(value))
            yield family


def packets(snapshot: Snapshot) -> Iterator[Family]:
    """What the hops counted, and the generation of each chain."""
    total = CounterMetricFamily("xdpchain_packets", "Packets by the verdict of each instance and its reason.", labels=_COUNTED)
    size = CounterMetricFamily("xdpchain_bytes", "Bytes of the packets in xdpchain_packets_total.", labels=_COUNTED)
    failures = CounterMetricFamily(
        "xdpchain_hop_failures",
        "Packets for which the jump to the next hop failed after this instance (empty: from the dispatcher); on_error decided about them.",
        labels=("interface", "hook", "instance"),
    )
    generation = GaugeMetricFamily("xdpchain_generation", "Number of the wiring that carries traffic.", labels=("interface", "hook"))
    for place in snapshot.places:
        where = [place.interface, place.place.hook.value]
        for hop in place.hops:
            for count in hop.counts:
                if count.verdict is not Verdict.BROKEN:
                    labels = [*where, hop.instance, count.verdict.name.lower(), count.reason]
                    total.add_metric(labels, count.packets)
                    size.add_metric(labels, count.bytes)
            if not place.place.program:
                failures.add_metric([*where, hop.instance], sum(c.packets for c in hop.counts if c.verdict is Verdict.BROKEN))
        if not place.place.program:
            failures.add_metric([*where, ""], place.broken)
            generation.add_metric(where, place.generation)
    yield from (total, size, failures, generation)


def maps(snapshot: Snapshot) -> Iterator[Family]:
    """Fill levels."""
    entries = GaugeMetricFamily("xdpchain_map_entries", "Elements in a map.", labels=("instance", "map"))
    capacity = GaugeMetricFamily("xdpchain_map_capacity", "Elements that a map can hold.", labels=("instance", "map"))
    for status in (status for instance in snapshot.instances for status in instance.maps):
        if status.entries is not None:
            entries.add_metric([status.instance, status.name], status.entries)
            capacity.add_metric([status.instance, status.name], status.capacity)
    yield from (entries, capacity)


def interfaces(snapshot: Snapshot) -> Iterator[Family]:
    """One sample with the value 1 for the state that an interface is in, 0 for the others."""
    text = "Whether the chain of an interface or pattern is attached, waits for it, or is blocked by something that is attached there."
    family = GaugeMetricFamily("xdpchain_interface_state", text, labels=("interface", "state"))
    states = {**{place.interface: "attached" for place in _on_interfaces(snapshot)}, **dict.fromkeys(snapshot.waiting, "waiting")}
    for name, state in {**states, **dict.fromkeys(snapshot.blocked, "blocked")}.items():
        for one in _INTERFACE_STATES:
            family.add_metric([name, one], float(one == state))
    yield family


def stats(instance: str, reader: MapReader) -> Iterator[Family]:
    """A `stats` map: each number in its value is a counter, summed over CPUs."""
    schema = reader.schema
    fields = schema.value.fields if isinstance(schema.value, Struct) else {"": schema.value}
    names = [name for name, kind in fields.items() if isinstance(kind, Scalar)]
    families = {
        name: CounterMetricFamily("_".join(filter(None, ("xdpchain", schema.name, name))), schema.help, labels=("instance", "key"))
        for name in names
    }
    for key, value in itertools.islice(reader.items(), MAX_STATS_KEYS):
        values = value if schema.kind.per_cpu else [value]
        for name, family in families.items():
            family.add_metric([instance, _label(key)], sum(one[name] if name else one for one in values))
    yield from families.values()


def _on_interfaces(snapshot: Snapshot) -> Iterable[PlaceStatus]:
    return (place for place in snapshot.places if not place.place.program)


def _label(key: Any) -> str:
    if isinstance(key, Mapping):
        return ",".join(f"{name}={_label(value)}" for name, value in key.items())
    return key.hex() if isinstance(key, bytes) else str(key)


def _merge(families: dict[str, Family], family: Family) -> None:
    """Put the samples of several instances of a function into one family."""
    there = families.setdefault(family.name, family)
    if there is family:
        return
    if there.type != family.type:
        raise ValueError(f"metric {family.name} is a {there.type} already, not a {family.type}")
    there.samples.extend(family.samples)


_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
