# SPDX-License-Identifier: Apache-2.0
"""The config handler: packets may see any prefix of its writes, and a daemon may be killed between any two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdpchain import Delete, Map, Put, PutMany, Write
from xdpchain_dsr_agent import DsrAgent, DsrAgentConfig, Service
from xdpchain_dsr_agent.check import problems
from xdpchain_dsr_agent.shape import BITS, PROTOCOLS, shape_of, sixteen
from xdpchain_dsr_agent.tables import PORT, SERVICE, SETTINGS, TARGET, maps

FEW = 8
SCHEMA = {one.name: one for one in maps(DsrAgentConfig(accept_from=(ip_network("10.0.13.0/24"),), max_services=FEW))}


@attrs.define
class Model:
    """Maps in Python: packed keys and values."""

    maps: dict[str, dict[bytes, bytes]] = attrs.Factory(lambda: {name: {} for name in SCHEMA})
    found: dict[int, Any] = attrs.Factory(dict)
    """what CPUs may remember of the tables, by the generation under which they do"""

    @attrs.frozen
    class Reader:
        """What the handler reads of one map."""

        schema: Map
        elements: Mapping[bytes, bytes]

        def get(self, key: int) -> Any:
            return self.schema.value.unpack(self.elements.get(key.to_bytes(4, "little"), bytes(self.schema.value.size)))

        def blob(self) -> bytes:
            size = self.schema.value.size
            return b"".join(self.elements.get(at.to_bytes(4, "little"), bytes(size)) for at in range(self.schema.capacity))

    def writes(self, old: DsrAgentConfig | None, new: DsrAgentConfig) -> Iterator[Write]:
        readers: Any = {name: Model.Reader(SCHEMA[name], dict(self.maps[name])) for name in SCHEMA}
        for one in list(DsrAgent().configure(old, new, readers)):
            yield from _steps(one)

    def carry_out(self, one: Write) -> None:
        assert isinstance(one, Put | Delete)
        schema = SCHEMA[one.map]
        key = schema.key.pack(one.key)
        if schema.kind.is_array:
            assert int.from_bytes(key, "little") < schema.capacity
        if isinstance(one, Put):
            self.maps[one.map][key] = schema.value.pack(one.value)
            assert len(self.maps[one.map]) <= schema.capacity
        else:
            self.maps[one.map].pop(key, None)

    def lead(self, old: DsrAgentConfig | None, new: DsrAgentConfig) -> int:
        writes = list(self.writes(old, new))
        for one in writes:
            self.carry_out(one)
        return len(writes)

    def place(self, service: Service) -> int | None:
        found = [place for place, packed in self.maps["dsr_services"].items() if SERVICE.unpack(packed)["id"] == shape_of(service).id]
        return int.from_bytes(found[0], "little") if found else None

    def restart(self) -> None:
        """Maps of the config are new, those of the state stay."""
        for name in self.maps:
            if SCHEMA[name].role.value == "config":
                self.maps[name] = {}

    def content(self) -> Any:
        """What packets find, with services in place of numbers."""
        services = {place: {**SERVICE.unpack(packed)} for place, packed in self.maps["dsr_services"].items() if any(packed)}
        named = {name: {key: services[place] for key, place in self.maps[name].items()} for name in ("dsr_targets", "dsr_ports")}
        rest: dict[str, Any] = {name: self.maps[name] for name in ("dsr_accept", "dsr_endpoints")}
        rest["dsr_settings"] = {**SETTINGS.unpack(self.maps["dsr_settings"][bytes(4)]), "generation": "of the places, too"}
        listed = {port: bits for port, bits in self.maps["dsr_listed"].items() if any(bits)}
        return {**named, **rest, "listed": listed, "services": sorted(map(str, services.values()))}

    def assert_consistent(self) -> None:
        """Whatever a packet may find leads to something that is complete."""
        for key, place in self.maps["dsr_targets"].items():
            target = TARGET.unpack(key)
            service = SERVICE.unpack(self.maps["dsr_services"].get(place, bytes(SERVICE.size)))
            named = ("vip", "port", "proto")
            assert {name: target[name] for name in named} == {name: service[name] for name in named}, "a target leads to its service"
            way = {"workload": service["workload"], "port": service["backend_port"], "proto": service["proto"], "zero": 0}
            assert PORT.pack(way) in self.maps["dsr_ports"], "what comes in finds its way back"
        for key, place in self.maps["dsr_ports"].items():
            back, service = PORT.unpack(key), SERVICE.unpack(self.maps["dsr_services"].get(place, bytes(SERVICE.size)))
            assert (back["workload"], back["port"], back["proto"]) == (service["workload"], service["backend_port"], service["proto"])
        called = {TARGET.unpack(key)["endpoint"].packed for key in self.maps["dsr_targets"]}
        listed = {int.from_bytes(port, "little"): bits[0] for port, bits in self.maps["dsr_listed"].items()}
        for key in self.maps["dsr_targets"]:
            service = SERVICE.unpack(self.maps["dsr_services"][self.maps["dsr_targets"][key]])
            bit = {PROTOCOLS[name]: bit for name, bit in BITS.items()}[service["proto"]]
            assert not service["backend_port"] or listed[service["backend_port"]] & bit, "its port is listed"
        assert self.maps["dsr_accept"] or not called
        settings = self.maps["dsr_settings"].get(bytes(4))
        generation = SETTINGS.unpack(settings)["generation"] if settings else 0
        if generation:
            now = {name: dict(self.maps[name]) for name in ("dsr_targets", "dsr_ports", "dsr_accept", "dsr_endpoints")}
            assert now == self.found.setdefault(generation, now), "what was found under a generation is what is there"


def _steps(write: Write) -> Iterator[Write]:
    if isinstance(write, PutMany):
        assert len(write.keys) == len(write.values)
        yield from (Put(write.map, key, value) for key, value in zip(write.keys, write.values, strict=True))
    else:
        yield write


SERVICES = [
    st.builds(
        Service,
        vip=st.sampled_from(["10.200.1.1", "10.200.1.2"]).map(ip_address),
        port=st.sampled_from([443, 80]),
        protocol=st.just(protocol),
        workload=st.just(ip_address(workload)),
        backend_port=st.just(backend),
        endpoint=st.sampled_from([(), (ip_address("10.0.7.1"),), (ip_address("10.0.7.1"), ip_address("fd00::7"))]),
        unknown=st.sampled_from(["snat", "direct", "learn"]),
    )
    for workload, protocol, backend in (
        ("10.1.0.5", "tcp", 8443),
        ("10.1.0.5", "udp", 8443),
        ("10.1.0.6", "tcp", 8443),
        ("10.1.0.5", "tcp", 81),
    )
] + [st.just(Service(vip=ip_address("10.200.1.9"), port=0, workload=ip_address("10.1.0.9")))]


@st.composite
def configs(draw: st.DrawFn) -> DsrAgentConfig:
    services = [draw(one) for one in SERVICES if draw(st.booleans())]
    taken = set[bytes]()
    good: list[Service] = []
    for service in services:
        if taken.isdisjoint(shape_of(service).targets):
            taken.update(shape_of(service).targets)
            good.append(service)
    sources = draw(st.sampled_from([("10.0.13.0/24",), ("10.0.14.0/24", "fc00::/32")]))
    config = DsrAgentConfig(accept_from=tuple(map(ip_network, sources)), service=tuple(good), max_services=FEW)
    assert [] == list(problems(config))
    return config


def fresh_content(config: DsrAgentConfig) -> Any:
    """What tables hold that never held anything else."""
    model = Model()
    model.lead(None, config)
    return model.content()


@given(st.lists(configs(), min_size=2, max_size=4))
def test_after_each_single_write_packets_find_only_what_is_complete(sequence: Sequence[DsrAgentConfig]) -> None:
    model, old = Model(), None
    for new in sequence:
        for one in model.writes(old, new):
            model.carry_out(one)
            model.assert_consistent()
        old = new
        assert fresh_content(new) == model.content()


@given(configs(), configs(), configs(), st.integers(0, 40))
def test_a_daemon_that_is_killed_in_the_middle_finds_its_way(
    old: DsrAgentConfig, new: DsrAgentConfig, then: DsrAgentConfig, at: int
) -> None:
    model = Model()
    model.lead(None, old)
    for number, one in enumerate(model.writes(old, new)):
        if number == at:
            break
        model.carry_out(one)
    places = {service: model.place(service) for service in then.all_services}
    model.restart()
    for one in model.writes(None, then):
        model.carry_out(one)
        model.assert_consistent()

    assert fresh_content(then) == model.content()
    assert places == {service: model.place(service) if place is not None else None for service, place in places.items()}


@given(configs(), configs())
def test_a_service_keeps_its_place_and_an_apply_of_the_same_writes_nothing(old: DsrAgentConfig, new: DsrAgentConfig) -> None:
    model = Model()
    model.lead(None, old)
    places = {shape_of(service).id: model.place(service) for service in old.all_services}
    model.lead(old, new)

    stayed = [service for service in new.all_services if shape_of(service).id in places]
    assert [places[shape_of(service).id] for service in stayed] == [model.place(service) for service in stayed]
    assert 0 == model.lead(new, new)
    assert 0 == model.lead(new, attrs.evolve(new))


def many(count: int, **last: Any) -> DsrAgentConfig:
    services = [Service(vip=ip_address("10.200.1.1"), port=1 + at, workload=ip_address("10.1.0.5")) for at in range(count)]
    services[-1] = attrs.evolve(services[-1], **last)
    return DsrAgentConfig(accept_from=(ip_network("10.0.13.0/24"),), service=tuple(services), max_services=FEW)


def test_one_service_more_or_less_takes_a_handful_of_writes() -> None:
    model = Model()
    model.lead(None, many(FEW - 1))

    around = 3
    """the generation goes, the settings change, the generation comes"""
    assert 5 + around == model.lead(many(FEW - 1), many(FEW)), "stats, service, way back, port, target: the endpoint is there already"
    assert 3 + around == model.lead(many(FEW), many(FEW, unknown="learn")), "its place is what it was; the ways are written again"
    assert 4 + around == model.lead(many(FEW, unknown="learn"), many(FEW - 1))


def test_all_services_may_be_exchanged_at_once_and_the_daemon_killed_in_the_middle() -> None:
    def others(net: int) -> DsrAgentConfig:
        services = [Service(vip=ip_address("10.200.1.1"), port=1 + at, workload=ip_address(f"10.{net}.0.5")) for at in range(FEW)]
        return DsrAgentConfig(accept_from=(ip_network("10.0.13.0/24"),), service=tuple(services), max_services=FEW)

    model = Model()
    model.lead(None, others(1))
    for one in model.writes(others(1), others(2)):
        if isinstance(one, Delete):
            break  # services of both are there now
        model.carry_out(one)
    model.restart()
    model.lead(None, others(3))

    assert fresh_content(others(3)) == model.content()


@pytest.mark.parametrize(
    "service",
    [
        Service(vip=ip_address("10.200.1.1"), port=443, workload=ip_address("10.1.0.5"), backend_port=8443, unknown="learn"),
        Service(vip=ip_address("fd00::1"), port=0, protocol="udp", workload=ip_address("fd01::5"), endpoint=(ip_address("10.0.7.1"),)),
    ],
)
def test_what_is_packed_by_hand_is_what_the_schema_packs(service: Service) -> None:
    shape, proto = shape_of(service), PROTOCOLS[service.protocol]
    vip, workload = sixteen(service.vip), sixteen(service.workload)
    whole = {"vip": ip_address(vip), "workload": ip_address(workload), "id": shape.id, "port": service.port}
    whole |= {
        "backend_port": service.workload_port,
        "proto": proto,
        "unknown": ["snat", "direct", "learn"].index(service.unknown),
        "zero": 0,
    }

    assert SERVICE.pack(whole) == shape.packed
    assert PORT.pack({"workload": ip_address(workload), "port": service.workload_port, "proto": proto, "zero": 0}) == shape.way_back
    (endpoint,) = service.endpoints
    target = {"endpoint": ip_address(sixteen(endpoint)), "vip": ip_address(vip), "port": service.port, "proto": proto, "zero": 0}
    assert (TARGET.pack(target),) == shape.targets
