# SPDX-License-Identifier: Apache-2.0
"""The metrics' names, labels and forms, made of what an engine may say, and served over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from xdpchain import Map, MapKind, Role, Struct, u32, u64
from xdpchain.chain.model import Count, HopStatus, InstanceStatus, MapStatus, Place, PlaceStatus, Snapshot
from xdpchain.daemon import exporter, metrics
from xdpchain.daemon.exporter import Exporter
from xdpchain.function import Hook, MapReader, Verdict

SNAPSHOT = Snapshot(
    places=(
        PlaceStatus(
            Place(Hook.XDP, 3),
            "eth0",
            "native",
            7,
            "pass",
            (
                HopStatus(
                    "a",
                    1,
                    (Count(Verdict.NEXT, "", 10, 1000), Count(Verdict.DROP, "rate_exceeded", 2, 120), Count(Verdict.BROKEN, "", 4, 0)),
                ),
                HopStatus("b", 2, (Count(Verdict.PASS, "", 6, 600),)),
            ),
            ("a", "b"),
            broken=5,
        ),
    ),
    instances=(
        InstanceStatus(
            "a", "f", "code", (MapStatus("a", "f_flows", "lru_hash", "state", 12, 100), MapStatus("a", "f_x", "array", "config", None, 1))
        ),
    ),
    waiting=("tap*",),
    blocked={"eth1": "somebody"},
)


def samples(families: Iterator[Any]) -> dict[tuple[str, ...], float]:
    """Sample values by name and label values."""
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_packets_are_counted_by_verdict_and_reason_and_failures_apart() -> None:
    found = samples(metrics.packets(SNAPSHOT))

    assert found == {
        ("xdpchain_packets_total", "eth0", "xdp", "a", "next", ""): 10,
        ("xdpchain_packets_total", "eth0", "xdp", "a", "drop", "rate_exceeded"): 2,
        ("xdpchain_packets_total", "eth0", "xdp", "b", "pass", ""): 6,
        ("xdpchain_bytes_total", "eth0", "xdp", "a", "next", ""): 1000,
        ("xdpchain_bytes_total", "eth0", "xdp", "a", "drop", "rate_exceeded"): 120,
        ("xdpchain_bytes_total", "eth0", "xdp", "b", "pass", ""): 600,
        ("xdpchain_hop_failures_total", "eth0", "xdp", "a"): 4,
        ("xdpchain_hop_failures_total", "eth0", "xdp", "b"): 0,
        ("xdpchain_hop_failures_total", "eth0", "xdp", ""): 5,
        ("xdpchain_generation", "eth0", "xdp"): 7,
    }


def test_fill_levels_leave_out_maps_that_are_always_full() -> None:
    assert samples(metrics.maps(SNAPSHOT)) == {("xdpchain_map_entries", "a", "f_flows"): 12, ("xdpchain_map_capacity", "a", "f_flows"): 100}


def test_an_interface_is_in_one_state() -> None:
    found = samples(metrics.interfaces(SNAPSHOT))

    assert {key[1:] for key, value in found.items() if value} == {("eth0", "attached"), ("tap*", "waiting"), ("eth1", "blocked")}
    assert len(found) == 9


@attrs.frozen
class Reader:
    """A map that holds what a test says."""

    schema: Map
    content: dict[Any, Any]

    def items(self) -> Iterator[tuple[Any, Any]]:
        return iter(self.content.items())

    def get(self, key: Any) -> Any:
        return self.content.get(key)

    def get_many(self, keys: Sequence[Any]) -> list[Any]:
        return [self.content.get(key) for key in keys]

    def blob(self) -> bytes:
        raise NotImplementedError

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        raise NotImplementedError

    def inner(self, key: Any) -> MapReader | None:
        return None

    def __len__(self) -> int:
        return len(self.content)


def stats_map(value: Any, kind: MapKind = MapKind.PERCPU_ARRAY) -> Map:
    return Map(name="f_seen", kind=kind, key=u32, value=value, capacity=10, role=Role.STATS, help="seen")


def test_a_stats_map_is_summed_over_cpus_field_by_field() -> None:
    reader = Reader(stats_map(Struct("s", {"udp": u64, "tcp": u64})), {0: [{"udp": 1, "tcp": 10}, {"udp": 2, "tcp": 20}]})

    assert samples(metrics.stats("i", reader)) == {("xdpchain_f_seen_udp_total", "i", "0"): 3, ("xdpchain_f_seen_tcp_total", "i", "0"): 30}


def test_a_stats_map_of_plain_numbers_has_no_field_in_its_name() -> None:
    reader = Reader(stats_map(u64, MapKind.HASH), {8: 5, 9: 6})

    assert samples(metrics.stats("i", reader)) == {("xdpchain_f_seen_total", "i", "8"): 5, ("xdpchain_f_seen_total", "i", "9"): 6}


class Fixed(Collector):
    """The families of the snapshot; `fail` makes them raise."""

    fail = False

    def collect(self) -> Iterator[Any]:
        if self.fail:
            raise RuntimeError("no")
        yield from metrics.packets(SNAPSHOT)
        yield from metrics.maps(SNAPSHOT)
        yield from metrics.interfaces(SNAPSHOT)


def test_the_openmetrics_form_is_accepted_by_its_parser() -> None:
    text = Exporter(Fixed()).text("application/openmetrics-text; version=1.0.0").decode()

    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"xdpchain_packets", "xdpchain_generation", "xdpchain_map_entries"} <= names
    assert text.endswith("# EOF\n")


def test_a_registry_accepts_the_collector() -> None:
    CollectorRegistry().register(Fixed())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(port: int, request: str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = (await reader.read()).decode()
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return answer


def serving(*requests: str, collector: Collector | None = None) -> list[str]:
    async def run() -> list[str]:
        server, port = Exporter(collector or Fixed()), free_port()
        await server.listen(f"127.0.0.1:{port}")
        async with asyncio.timeout(10):
            answers = [await get(port, request) for request in requests]
        await server.close()
        return answers

    return asyncio.run(run())


def test_a_scrape_gets_the_form_that_it_asks_for() -> None:
    plain, openmetrics = serving(
        "GET /metrics HTTP/1.1\r\n\r\n", "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    )

    assert plain.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain")
    assert 'xdpchain_packets_total{hook="xdp",instance="a",interface="eth0",reason="",verdict="next"} 10.0' in plain
    assert "Content-Type: application/openmetrics-text" in openmetrics
    assert openmetrics.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", "200 OK"),
        ("GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("\r\n\r\n", "405 Method Not Allowed"),
    ],
)
def test_other_requests_are_answered_too(request_text: str, status: str) -> None:
    (answer,) = serving(request_text)

    assert answer.startswith(f"HTTP/1.1 {status}\r\n")


def test_a_head_that_does_not_end_is_cut_off_and_the_next_is_served() -> None:
    endless, fine = serving("GET /" + "x" * 3 * exporter.REQUEST_BYTES, "GET /metrics HTTP/1.1\r\n\r\n")

    assert endless == ""
    assert "200 OK" in fine


def test_a_collector_that_raises_is_an_error_of_the_scrape_only() -> None:
    failing = Fixed()
    failing.fail = True

    (answer,) = serving("GET /metrics HTTP/1.1\r\n\r\n", collector=failing)

    assert answer.startswith("HTTP/1.1 500 ")


def test_a_port_that_is_taken_is_a_problem_and_no_end() -> None:
    async def run() -> tuple[str, str]:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = f"127.0.0.1:{other.getsockname()[1]}"
            server = Exporter(Fixed())
            await server.listen(address)
            problem, listening = server.problem, server.address
        # the address is free now: asked again, it is served
        await server.listen(address)
        assert (server.problem, server.address) == ("", address)
        await server.close()
        return problem, listening

    problem, address = asyncio.run(run())

    assert "in use" in problem
    assert address == "off"


def test_the_address_follows_the_configuration() -> None:
    async def run() -> None:
        server, first, second = Exporter(Fixed()), free_port(), free_port()
        await server.listen(f"127.0.0.1:{first}")
        await server.listen(f"127.0.0.1:{second}")
        assert "200 OK" in await get(second)
        with pytest.raises(ConnectionRefusedError):
            await get(first)
        await server.listen("off")
        with pytest.raises(ConnectionRefusedError):
            await get(second)
        await server.close()

    asyncio.run(run())
