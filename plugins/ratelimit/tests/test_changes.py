# SPDX-License-Identifier: Apache-2.0
"""Changes of a config under way: the right limit on every port after each single write, and windows that outlive what does not concern them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from xdpchain import Delete, Map, MapReader, PortRange, Put, Struct, Write
from xdpchain.testing import LoadedChain, RunNode, Verdict
from xdpchain_ratelimit import Ratelimit, RatelimitConfig, Rule
from xdpchain_ratelimit.config import MAX_RULES
from xdpchain_ratelimit.ports import each

from plugins.ratelimit.tests.conftest import Limiter


def syn(chain: LoadedChain, port: int) -> Verdict:
    return chain.send(IP(src="192.0.2.1", dst="192.0.2.2") / TCP(dport=port, flags="S")).verdict


def test_a_new_rate_and_new_rules_leave_what_a_window_has_counted(limiter: Limiter, long_window: str) -> None:
    web, mail = {"ports": [80], "rate": 2}, {"ports": [25], "rate": 1}
    chain = limiter(web, window=long_window)
    assert [syn(chain, 80) for _ in range(3)] == [Verdict.PASS, Verdict.PASS, Verdict.DROP]

    chain.configure("ratelimit", {"window": long_window, "rule": [mail, {**web, "rate": 3}]})

    assert [syn(chain, 80) for _ in range(2)] == [Verdict.PASS, Verdict.DROP]
    assert [syn(chain, 25) for _ in range(2)] == [Verdict.PASS, Verdict.DROP]

    chain.configure("ratelimit", {"window": long_window, "rule": [mail, {**web, "rate": 1}]})
    assert syn(chain, 80) is Verdict.DROP


def test_a_rule_that_is_gone_limits_nothing_and_begins_anew_when_it_comes_back(limiter: Limiter, long_window: str) -> None:
    web, mail = {"ports": [80], "rate": 1}, {"ports": [25], "rate": 1}
    chain = limiter(web, mail, window=long_window)
    assert [syn(chain, 80) for _ in range(2)] == [Verdict.PASS, Verdict.DROP]

    chain.configure("ratelimit", {"window": long_window, "rule": [mail]})
    assert [syn(chain, 80) for _ in range(2)] == [Verdict.PASS, Verdict.PASS]

    chain.configure("ratelimit", {"window": long_window, "rule": [mail, web]})
    assert [syn(chain, 80) for _ in range(2)] == [Verdict.PASS, Verdict.DROP]


def test_show_and_metrics_tell_each_limit_by_its_ports(limiter: Limiter, long_window: str) -> None:
    chain = limiter({"ports": [80, 443, "8000-8001"], "rate": 4}, {"ports": [25], "rate": 1}, window=long_window)
    for _ in range(5):
        syn(chain, 443)

    (table,) = chain.status("ratelimit")
    assert table.rows == [("80,443,8000-8001", 4, long_window, 4.0, 4, 1), ("25", 1, long_window, 0.0, 0, 0)]

    connections, used = chain.metrics("ratelimit")
    labels = {"ports": "80,443,8000-8001", "window": long_window}
    assert ({**labels, "result": "admitted"}, 4) in list(connections.samples)
    assert ({**labels, "result": "limited"}, 1) in list(connections.samples)
    assert (labels, 1.0) in list(used.samples)


class Memory:
    """The maps of one instance as dicts: what a sequence of writes makes of them, with no kernel to wait for."""

    class Reader:
        def __init__(self, schema: Map) -> None:
            self.schema = schema
            self.content: dict[Any, Any] = {}

        def get(self, key: Any) -> Any | None:
            return self.content.get(key)

        def get_many(self, keys: Sequence[Any]) -> list[Any | None]:
            return [self.content.get(key) for key in keys]

        def blob(self) -> bytes:
            raise AssertionError("ratelimit reads its maps by their keys")

        def inner(self, key: Any) -> MapReader | None:
            raise AssertionError("ratelimit has no map of maps")

        def items(self) -> Iterator[tuple[Any, Any]]:
            return iter(self.content.items())

        def __len__(self) -> int:
            return len(self.content)

    def __init__(self) -> None:
        self.maps: Mapping[str, Memory.Reader] = {one.name: self.Reader(one) for one in Ratelimit().maps(config({}))}

    def write(self, one: Write) -> None:
        assert isinstance(one, Put | Delete)
        reader = self.maps[one.map]
        assert 0 <= one.key < reader.schema.capacity
        if isinstance(one, Put):
            reader.schema.value.pack(one.value)
            reader.content[one.key] = one.value
        else:
            fields = reader.schema.value.fields if isinstance(reader.schema.value, Struct) else None
            reader.content[one.key] = dict.fromkeys(fields, 0) if fields else 0

    def limit_of(self, port: int) -> tuple[int, int, int] | None:
        """What the program finds for a port: rate, window, and the id of the window that it counts in."""
        place = self.maps["rl_ports"].get(port)
        if not place:
            return None
        limit = self.maps["rl_rules"].get(place)
        assert limit is not None
        assert limit["window_ns"], "a port leads to a limit that is not there"
        window = self.maps["rl_windows"].get(limit["window"])
        assert window is not None
        assert window["id"], "a limit leads to a window that is not there"
        return limit["rate"], limit["window_ns"], window["id"]


PORTS = range(12)
SECOND = 1_000_000_000


def config(owners: Mapping[int, int], rates: tuple[int, ...] = (1,) * 4, windows: tuple[int, ...] = (SECOND,) * 4) -> RatelimitConfig:
    """A config in which `owners` says for each port which of four rules it is in."""
    groups = [[port for port, owner in owners.items() if owner == index] for index in range(4)]
    rules = [
        Rule(ports=tuple(PortRange(port, port) for port in group), rate=rate, window=window)  # type: ignore[arg-type]
        for group, rate, window in zip(groups, rates, windows, strict=True)
        if group
    ]
    return RatelimitConfig(rule=tuple(rules) or (Rule(ports=(PortRange(99, 99),), rate=1),))  # type: ignore[arg-type]


configs = st.builds(
    config,
    st.dictionaries(st.sampled_from(PORTS), st.integers(0, 3)),
    st.tuples(*[st.integers(1, 3)] * 4),
    st.tuples(*[st.sampled_from([SECOND, 2 * SECOND])] * 4),
)


def expected(one: RatelimitConfig) -> dict[int, tuple[int, int]]:
    return {port: (rule.rate, one.window_of(rule)) for rule in one.rule for port in each(rule.ports)}


@settings(max_examples=300)
@given(st.lists(configs, min_size=2, max_size=6))
def test_after_each_single_write_every_port_has_its_old_limit_or_its_new_one(sequence: list[RatelimitConfig]) -> None:
    memory = Memory()
    olds: list[RatelimitConfig | None] = [None, *sequence]
    for old, new in zip(olds, sequence, strict=False):
        before = expected(old) if old else {}
        for one in list(Ratelimit().configure(old, new, memory.maps)):
            memory.write(one)
            for port in PORTS:
                limit = memory.limit_of(port)
                assert (limit and limit[:2]) in {before.get(port), expected(new).get(port)}
        for port in PORTS:
            limit = memory.limit_of(port)
            assert (limit and limit[:2]) == expected(new).get(port)


@given(configs, configs)
def test_windows_stay_where_they_are_while_their_rule_is_there_through_changes_and_restarts(
    first: RatelimitConfig, second: RatelimitConfig
) -> None:
    for restart in (False, True):
        memory = Memory()
        for one in list(Ratelimit().configure(None, first, memory.maps)):
            memory.write(one)
        words = {}
        for place, window in memory.maps["rl_windows"].items():
            window["word"] = words[window["id"]] = 1000 + place
        if restart:
            for name in ("rl_ports", "rl_rules"):
                memory.maps[name].content.clear()
        for one in list(Ratelimit().configure(None if restart else first, second, memory.maps)):
            memory.write(one)

        now = {window["id"]: window["word"] for _, window in memory.maps["rl_windows"].items() if window["id"]}
        assert len(now) == len(second.rule)
        assert all(word == words.get(key, 0) for key, word in now.items())


@given(configs)
def test_nothing_is_written_for_the_same_config(one: RatelimitConfig) -> None:
    memory = Memory()
    for write in list(Ratelimit().configure(None, one, memory.maps)):
        memory.write(write)

    assert list(Ratelimit().configure(one, one, memory.maps)) == []


def test_as_many_rules_as_there_may_be_can_be_exchanged_in_part_and_whole() -> None:
    def many(first: int) -> RatelimitConfig:
        ports = range(first, first + MAX_RULES)
        return RatelimitConfig(rule=tuple(Rule(ports=(PortRange(port, port),), rate=port + 1) for port in ports))  # type: ignore[arg-type]

    memory = Memory()
    steps = [many(first) for first in (0, 700, 1400, 2100, 2800, 1900, 9000, 9001)]
    for old, new in zip([None, *steps], steps, strict=False):
        for write in list(Ratelimit().configure(old, new, memory.maps)):
            memory.write(write)
        found = {port: memory.limit_of(port) for port in expected(new)}
        assert {port: limit and limit[:2] for port, limit in found.items()} == expected(new)
        assert len({limit and limit[2] for limit in found.values()}) == MAX_RULES


def test_windows_outlive_the_daemon_and_what_is_new_when_it_comes_back(node: RunNode, long_window: str) -> None:
    def document(*rules: Mapping[str, Any]) -> dict[str, Any]:
        return {"interface": {"eth0": {"chain": ["ratelimit"]}}, "function": {"ratelimit": {"window": long_window, "rule": rules}}}

    web, mail = {"ports": [80], "rate": 2}, {"ports": [25], "rate": 1}
    running = node(document(web), [Ratelimit()])
    windows = running.maps("ratelimit")["rl_windows"]
    place, window = next((place, window) for place, window in windows.items() if window["id"])
    windows.put(place, {**window, "word": 12345})

    running._engine.close()
    running.apply(document(mail, {**web, "rate": 5}))

    after = running.maps("ratelimit")["rl_windows"]
    assert after is not windows
    assert after.get(place) == {**window, "word": 12345}
    assert sum(1 for _, one in after.items() if one["id"]) == 2
