# SPDX-License-Identifier: Apache-2.0
"""Changes of a config under way: the right limit on every port after each single write, and windows that outlive what does not concern them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from xdpchain import Delete, IPNetwork, Map, PortRange, Put, Write
from xdpchain.testing import LoadedChain, RunNode, Verdict
from xdpchain_ratelimit import Ratelimit, RatelimitConfig, Rule
from xdpchain_ratelimit.config import MAX_RULES
from xdpchain_ratelimit.ports import each
from xdpchain_ratelimit.shape import window_id
from xdpchain_ratelimit.tables import ALL_PORTS, ANYWHERE, EXACT, PREFIXES, list_key, target_key

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

    table, why = chain.status("ratelimit")
    assert table.rows == [
        ("any", "80,443,8000-8001", "tcp", 4, long_window, None, 4.0, 4, 1),
        ("any", "25", "tcp", 1, long_window, None, 0.0, 0, 0),
    ]
    assert why.rows == [("any", "80,443,8000-8001", "tcp", "rate_exceeded", 1)]

    connections, outcomes, used = chain.metrics("ratelimit")
    labels = {"ports": "80,443,8000-8001", "window": long_window}
    assert ({**labels, "result": "admitted"}, 4) in list(connections.samples)
    assert ({**labels, "result": "limited"}, 1) in list(connections.samples)
    assert (labels, 1.0) in list(used.samples)
    assert ({**labels, "reason": "rate_exceeded"}, 1) in list(outcomes.samples)


class Memory:
    """The maps of one instance as dicts: what a sequence of writes makes of them, with no kernel to wait for."""

    class Reader:
        def __init__(self, schema: Map) -> None:
            self.schema = schema
            self.content: dict[Any, Any] = {}

        def get(self, key: Any) -> Any | None:
            return self.content.get(key)

        def items(self) -> Iterator[tuple[Any, Any]]:
            return iter(self.content.items())

        def __len__(self) -> int:
            return len(self.content)

    def __init__(self) -> None:
        self.maps: Mapping[str, Any] = {one.name: self.Reader(one) for one in Ratelimit().maps(config({}))}

    def write(self, one: Write) -> None:
        assert isinstance(one, Put | Delete)
        reader = self.maps[one.map]
        kind, is_array = reader.schema.value, reader.schema.kind.is_array
        assert not is_array or 0 <= one.key < reader.schema.capacity
        if isinstance(one, Put):
            reader.content[one.key] = kind.unpack(kind.pack(one.value))
        elif is_array:
            reader.content[one.key] = kind.unpack(bytes(kind.size))
        else:
            reader.content.pop(one.key, None)

    def limit_of(self, port: int) -> tuple[int, int, int] | None:
        """What the program finds for a port: rate, window, and the id of the window that it counts in."""
        return self.limit_at(self.maps["rl_ports"].get(port))

    def limit_at(self, place: int | None) -> tuple[int, int, int] | None:
        if not place:
            return None
        limit = self.maps["rl_rules"].get(place)
        assert limit is not None
        assert limit["shared"]["span"], "a port leads to a limit that is not there"
        window = self.maps["rl_windows"].get(limit["window"])
        assert window is not None
        assert window["id"], "a limit leads to a window that is not there"
        return limit["shared"]["most"], limit["shared"]["span"], window["id"]

    def limit_for(self, address: IPv4Address | IPv6Address, port: int) -> tuple[int, int, int] | None:
        """What the program finds for a SYN."""
        gates = self.maps["rl_gates"].get(0) or 0
        for one, open_gates in ((port, gates), (None, gates >> ALL_PORTS)):
            for length in range(address.max_prefixlen, -1, -1):
                network = ip_network((address, length), strict=False)
                gate = EXACT if length == address.max_prefixlen else PREFIXES
                name, key = target_key(network, "tcp", one)
                if open_gates & gate and self.maps[name].get(key):
                    return self.limit_at(self.maps[name].get(key))
            name, key = target_key(None, "tcp", one)
            if open_gates & ANYWHERE and self.maps[name].get(key):
                return self.limit_at(self.maps[name].get(key))
        return None


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
    return {port: (rule.rate, one.window_of(rule)) for rule in one.rule for port in each(rule.ports or ())}


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
            for name in ("rl_ports", "rl_rules", "rl_gates"):
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


NETWORKS = [ip_network(one) for one in ("192.0.2.1", "192.0.2.0/24", "192.0.0.0/16", "2001:db8::1", "2001:db8::/32")]
ADDRESSES = [
    ip_address(one) for one in ("192.0.2.1", "192.0.2.9", "192.0.9.9", "198.51.100.1", "2001:db8::1", "2001:db8::9", "2001:db9::1")
]
GROUPS: Sequence[tuple[int, ...] | None] = ((1, 2), (3,), (2, 4), None)


def somewhere(targets: Sequence[tuple[tuple[IPNetwork, ...], int, Mapping[IPNetwork, int]]]) -> RatelimitConfig:
    """A config with a rule for each destination and group of ports that no rule has yet."""
    rules, taken = list[Rule](), set[tuple[IPNetwork | None, int | None]]()
    for rate, (networks, group, lists) in enumerate(targets, 1):
        ports = GROUPS[group]
        names = {(network, port) for network in networks or (None,) for port in ports or (None,)}
        if names & taken:
            continue
        taken |= names
        ranges = tuple(PortRange(port, port) for port in ports) if ports else None  # type: ignore[arg-type]
        allow, deny = (tuple(network for network, verdict in lists.items() if verdict == wanted) for wanted in (1, 2))
        rules.append(Rule(destination=networks, ports=ranges, rate=rate, allow=allow, deny=deny))
    return RatelimitConfig(rule=tuple(rules) or (Rule(ports=(PortRange(99, 99),), rate=1),))  # type: ignore[arg-type]


def owner(one: RatelimitConfig, address: IPv4Address | IPv6Address, port: int) -> int | None:
    """The rate of the rule that a SYN belongs to."""
    best: tuple[tuple[bool, int], int] | None = None
    for rule in one.rule:
        if rule.ports is not None and port not in each(rule.ports):
            continue
        for network in rule.destination or (None,):
            if network is None or address in network:
                rank = (rule.ports is not None, -1 if network is None else network.prefixlen)
                best = max(best or (rank, rule.rate), (rank, rule.rate))
    return best and best[1]


places = st.builds(
    somewhere,
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(NETWORKS), unique=True, max_size=3).map(tuple),
            st.integers(0, len(GROUPS) - 1),
            st.dictionaries(st.sampled_from(NETWORKS), st.sampled_from([1, 2]), max_size=3),
        ),
        max_size=4,
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(places, min_size=2, max_size=4))
def test_after_any_changes_the_rule_with_the_port_and_the_longest_destination_decides(sequence: list[RatelimitConfig]) -> None:
    memory = Memory()
    olds: list[RatelimitConfig | None] = [None, *sequence]
    for old, new in zip(olds, sequence, strict=False):
        for one in list(Ratelimit().configure(old, new, memory.maps)):
            memory.write(one)
        for address in ADDRESSES:
            for port in range(1, 6):
                limit = memory.limit_for(address, port)
                assert owner(new, address, port) == (limit and limit[0])
        wanted: dict[bytes, int] = {}
        numbers = {window["id"]: place for place, window in memory.maps["rl_windows"].items() if window["id"]}
        for rule in new.rule:
            wanted |= {list_key(numbers[window_id(new, rule)], network): verdict for network, verdict in rule.listing.prefixes.items()}
        assert wanted == memory.maps["rl_lists"].content


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


def test_of_lists_with_thousands_of_prefixes_the_difference_alone_is_written() -> None:
    def listed(numbers: range, *, allow: Sequence[IPNetwork] = ()) -> RatelimitConfig:
        deny = tuple(ip_network((0x0A000000 + (number << 8), 24)) for number in numbers)
        return RatelimitConfig(rule=(Rule(ports=(PortRange(80, 80),), rate=1, allow=tuple(allow), deny=deny),))  # type: ignore[arg-type]

    memory = Memory()
    first, second = listed(range(5000)), listed(range(3, 5002), allow=[ip_network("10.0.1.0/24")])
    for write in list(Ratelimit().configure(None, first, memory.maps)):
        memory.write(write)

    writes = list(Ratelimit().configure(first, second, memory.maps))

    (place,) = (place for place, window in memory.maps["rl_windows"].items() if window["id"])
    assert {(type(one), one.key) for one in writes if isinstance(one, Put | Delete)} == {
        *((Put, list_key(place, ip_network(one))) for one in ("10.0.1.0/24", "10.19.136.0/24", "10.19.137.0/24")),
        *((Delete, list_key(place, ip_network(one))) for one in ("10.0.0.0/24", "10.0.2.0/24")),
    }
    assert len(writes) == 5
