# SPDX-License-Identifier: Apache-2.0
"""The config handler against the kernel's tables: packets may see any prefix of its writes, and a daemon may be killed between any two."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from xdpchain import Delete, Duration, MACAddress, Move, NextHop, Port, Put, Role, Run, XdpchainError
from xdpchain_elb import Backend, Elb, ElbConfig, SourceRoute, Vip
from xdpchain_elb.check import problems
from xdpchain_elb.shape import GONE, UP

from plugins.elb.tests.kept import LIMITS, NOTHING, Kept

BACKENDS4, BACKENDS6 = [f"10.0.0.{number}" for number in range(1, 6)], [f"fc00::{number}" for number in range(1, 4)]
MACS = [MACAddress(bytes.fromhex("0200000000a1")), MACAddress(bytes.fromhex("0200000000a2"))]
SOURCES = (ip_address("10.0.13.37"), ip_address("fc00:2307::1337"))

KILLS = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make a failing example smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pools(addresses: list[str], **fixed: Any) -> st.SearchStrategy[tuple[Backend, ...]]:
    """Some of the backends; the id of each is its place, so that ids change hands where pools differ."""

    @st.composite
    def drawn(draw: st.DrawFn) -> tuple[Backend, ...]:
        chosen = draw(st.lists(st.sampled_from(addresses), unique=True, max_size=4))
        weights = [draw(st.sampled_from([0, 1, 1, 3])) for _ in chosen]
        marks = [draw(st.sampled_from([{}, {}, {}, {"drain": True}, {"down": True}])) for _ in chosen]
        return tuple(
            Backend(address=ip_address(address), weight=weight, server_id=place, **mark, **fixed)
            for place, (address, weight, mark) in enumerate(zip(chosen, weights, marks, strict=True), 1)
        )

    return drawn()


ROUTES = st.one_of(
    st.just(()),
    st.builds(
        lambda prefixes, backend: (SourceRoute(name="eu", prefixes=tuple(map(ip_network, prefixes)), backend=backend),),
        st.lists(st.sampled_from(["198.51.100.0/24", "198.51.0.0/16", "203.0.113.7/32"]), min_size=1, unique=True),
        pools(BACKENDS4).map(lambda backends: tuple(attrs.evolve(one, server_id=None) for one in backends)),
    ),
)
VIPS = [
    st.builds(
        Vip,
        address=st.just(ip_network("10.200.1.1")),
        port=st.just(Port(443)),
        protocol=st.just("tcp"),
        options=st.sampled_from([(), ("server-id",), ("no-source-port",), ("no-tracking",)]),
        encapsulation=st.sampled_from([None, "gue", "ipip"]),
        backend=pools(BACKENDS4),
        source=ROUTES,
    ),
    st.builds(
        Vip,
        address=st.just(ip_network("10.200.1.1")),
        port=st.just(Port(0)),
        protocol=st.just("udp"),
        options=st.sampled_from([(), ("quic",), ("udp-migration",)]),
        backend=pools(BACKENDS4),
    ),
    st.builds(
        Vip,
        address=st.just(ip_network("10.201.0.0/16")),
        port=st.sampled_from([Port(0), Port(80)]),
        protocol=st.just("tcp"),
        backend=pools(BACKENDS4),
    ),
    st.builds(Vip, address=st.just(ip_network("fc00:1::1")), port=st.just(Port(53)), protocol=st.just("udp"), backend=pools(BACKENDS6)),
]


@st.composite
def configs(draw: st.DrawFn, *, common: bool = True) -> ElbConfig:
    """A valid config; with `common` also what holds for all VIPs varies."""
    vips = [draw(vip) for vip in VIPS if draw(st.booleans())]
    keys: dict[str, Any] = {"next_hop": MACS[0]}
    if common and draw(st.integers(0, 3)) == 0:
        keys["next_hop"] = draw(st.sampled_from(MACS))
        keys["ring"] = draw(st.sampled_from(["maglev-v2", "maglev"]))
        keys["gue_port"] = draw(st.sampled_from([Port(6080), Port(6081)]))
        keys["hold_tcp"] = draw(st.sampled_from([Duration(900_000_000_000), Duration(1_000_000_000)]))
    config = ElbConfig(vip=tuple(vips), source=SOURCES, **keys, **LIMITS)
    assert [] == list(problems(config))
    return config


def vip(*backends: str, **keys: Any) -> Vip:
    made = tuple(Backend(address=ip_address(address)) for address in backends)
    return Vip(**{"address": ip_network("10.200.1.1"), "port": Port(443), "protocol": "tcp", "backend": made, **keys})


def config(*vips: Vip, **keys: Any) -> ElbConfig:
    return ElbConfig(**{"source": SOURCES, "next_hop": MACS[0], "vip": vips, **keys, **LIMITS})


def fresh_content(kept: Kept, wanted: ElbConfig) -> Any:
    """What tables hold that never held anything else."""
    kept.empty()
    kept.lead(None, wanted)
    return kept.content()


@KILLS
@given(st.lists(configs(), min_size=2, max_size=3))
def test_after_each_single_write_packets_find_only_what_is_complete(kept: Kept, sequence: list[ElbConfig]) -> None:
    kept.empty()
    old = NOTHING
    for new in sequence:
        for one in kept.writes(old, new):
            kept.carry_out([one])
            kept.assert_consistent(known_hops=True)
        old = new

    got = kept.content()
    assert fresh_content(kept, sequence[-1]) == got


@KILLS
@given(configs(), configs(), configs(), st.data())
def test_a_start_after_a_kill_between_any_two_writes_ends_in_the_same_content(
    kept: Kept, old: ElbConfig, new: ElbConfig, other: ElbConfig, data: st.DataObject
) -> None:
    kept.empty()
    kept.lead(None, old)
    writes = kept.writes(old, new)
    kept.carry_out(writes[: data.draw(st.integers(0, len(writes)))])
    wanted = data.draw(st.sampled_from([old, new, other]))
    for one in kept.writes(None, wanted):
        kept.carry_out([one])
        kept.assert_consistent(known_hops=True)
    got = kept.content()

    assert [] == kept.writes(None, wanted)
    assert fresh_content(kept, wanted) == got


@KILLS
@given(configs(), configs())
def test_numbers_stay_as_long_as_what_they_name(kept: Kept, old: ElbConfig, new: ElbConfig) -> None:
    kept.empty()
    kept.lead(None, old)
    before = kept.members()
    kept.lead(old, new)
    after = kept.members()

    assert {key: before[key] for key in before.keys() & after.keys()} == {key: after[key] for key in before.keys() & after.keys()}
    assert len(after) == len(set(after.values()))
    assert [] == kept.writes(new, new)
    assert [] == kept.writes(None, new)


def test_a_change_of_one_vip_writes_nothing_about_the_others(kept: Kept) -> None:
    steady = vip("10.0.0.1", "10.0.0.2", port=Port(80))
    old, new = config(steady, vip("10.0.0.1", "10.0.0.2")), config(vip("10.0.0.1", "10.0.0.3"), steady)
    kept.lead(None, old)
    names = {pool["name"]: number for number, pool in kept.maps["elb_pools"].items() if pool["name"]}
    untouched = kept.members()
    kept.lead(old, new)

    assert {key: number for key, number in untouched.items() if "10.0.0.3" not in key[1]}.items() >= {
        key: number for key, number in kept.members().items() if key in untouched
    }.items()
    assert names == {pool["name"]: number for number, pool in kept.maps["elb_pools"].items() if pool["name"]}
    assert 1 == sum(isinstance(one, Run) for one in kept.writes(new, old))


def test_a_vip_that_moves_within_the_config_changes_nothing(kept: Kept) -> None:
    one, other = vip("10.0.0.1"), vip("10.0.0.2", port=Port(80))
    kept.lead(None, config(one, other))

    assert [] == kept.writes(config(one, other), config(other, one))
    assert [] == kept.writes(None, config(other, one))


def test_services_go_first_and_come_last(kept: Kept) -> None:
    old, new = config(vip("10.0.0.1")), config(vip("10.0.0.1", port=Port(80)))
    kept.lead(None, old)
    writes = kept.writes(old, new)
    services = [number for number, one in enumerate(writes) if isinstance(one, Put | Delete) and one.map == "elb_services"]

    assert ["elb_gates", "elb_services"] == [one.map for one in writes[:2] if not isinstance(one, Run)]
    assert isinstance(writes[1], Delete)
    assert max(number for number, one in enumerate(writes) if isinstance(one, Run)) < services[-1]


def test_a_member_that_is_removed_is_gone_before_the_ring_is_made(kept: Kept) -> None:
    old, new = config(vip("10.0.0.1", "10.0.0.2")), config(vip("10.0.0.1"))
    kept.lead(None, old)
    (member,) = [number for (_, address), number in kept.members().items() if address.endswith("a00:2")]
    key, writes = member.to_bytes(4, "little"), kept.writes(old, new)
    states = [number for number, one in enumerate(writes) if isinstance(one, Put) and (one.map, one.key) == ("elb_states", key)]
    runs = [number for number, one in enumerate(writes) if isinstance(one, Run)]

    assert len(states) == len(runs) == 1
    assert states[0] < runs[0]
    assert runs[0] < next(number for number, one in enumerate(writes) if isinstance(one, Move))


def test_a_number_that_is_given_again_has_another_incarnation_and_no_counts(kept: Kept) -> None:
    old, new = config(vip("10.0.0.1")), config(vip("10.0.0.1", port=Port(444)))
    kept.lead(None, old)
    (number,) = kept.members().values()
    states = kept.maps["elb_states"]
    was = states.get(number)
    # all others were given more often, so this one is next
    kept.carry_out([Put("elb_states", other, 1000 << 2) for other in range(1, states.schema.capacity) if other != number])
    kept.carry_out([Put("elb_stats", number, {"packets": 5, "bytes": 5, "flows": 5})])
    kept.lead(old, NOTHING)
    kept.lead(NOTHING, new)

    assert [number] == list(kept.members().values())
    now = states.get(number)
    assert (UP, UP) == (was & 3, now & 3)
    assert was >> 2 < now >> 2
    assert {0} == {count["packets"] for count in kept.maps["elb_stats"].get(number)}


def test_a_backend_that_is_down_with_udp_migration_comes_back_as_another_incarnation(kept: Kept) -> None:
    def table(*, down: bool) -> ElbConfig:
        backends = tuple(Backend(address=ip_address(address), down=down and address == BACKENDS4[0]) for address in BACKENDS4)
        return config(Vip(address=ip_network("10.200.1.1"), port=Port(53), protocol="udp", options=("udp-migration",), backend=backends))

    kept.lead(None, table(down=False))
    (member,) = [number for (_, address), number in kept.members().items() if address.endswith("a00:1")]
    before = kept.maps["elb_states"].get(member)
    kept.lead(table(down=False), table(down=True))
    while_down = kept.maps["elb_states"].get(member)
    kept.lead(table(down=True), table(down=False))
    after = kept.maps["elb_states"].get(member)

    assert (UP, GONE, UP) == (before & 3, while_down & 3, after & 3)
    assert before >> 2 < after >> 2


def test_other_outer_headers_stand_on_the_other_side(kept: Kept) -> None:
    old, new = config(vip("10.0.0.1")), config(vip("10.0.0.1", encapsulation="ipip"))
    kept.lead(None, old)
    kept.lead(old, new)
    (member,) = kept.members().values()
    overheads = [kept.maps["elb_members"].get(2 * member + side)["overhead"] for side in (0, 1)]

    assert [28, 20] == overheads
    assert 0 == sum(isinstance(one, Run) for one in kept.writes(new, old))


def test_all_backends_can_be_replaced_by_others_though_the_tables_are_full(kept: Kept) -> None:
    def full(network: int) -> ElbConfig:
        backends = [f"10.{network}.0.{number}" for number in range(1, 17)]
        return config(*(vip(*backends, port=Port(port)) for port in range(1, 5)))

    kept.lead(None, full(1))
    assert LIMITS["max_members"] == len(kept.members())
    for network in (2, 3, 4):
        kept.lead(full(network - 1), full(network))
    got = kept.content()

    assert fresh_content(kept, full(4)) == got


@pytest.mark.parametrize("last", ["elb_states", "elb_build", "elb_rings"])
def test_a_start_with_the_old_config_after_a_kill_in_the_middle_of_a_new_ring_makes_the_old_one_again(kept: Kept, last: str) -> None:
    old, new = config(vip("10.0.0.1", "10.0.0.2")), config(vip("10.0.0.2", "10.0.0.3"))
    kept.lead(None, old)
    writes = kept.writes(old, new)
    ends = [number for number, one in enumerate(writes, 1) if last == (one.entry if isinstance(one, Run) else one.map)]
    kept.carry_out(writes[: ends[-1]])
    kept.lead(None, old)
    got = kept.content()

    assert fresh_content(kept, old) == got


def test_a_config_without_room_is_refused_before_anything_is_written(kept: Kept) -> None:
    routes = tuple(SourceRoute(name=str(number), prefixes=(ip_network(f"10.{number}.0.0/16"),)) for number in range(17))

    with pytest.raises(XdpchainError, match="no room for another VIP or source route") as caught:
        kept.writes(None, config(vip("10.0.0.1", source=routes)))

    assert "max_vips" in caught.value.hint


def test_a_new_backend_has_its_next_hop_before_a_ring_names_it(kept: Kept) -> None:
    wanted = config(vip("10.0.0.1"), next_hop="auto")
    hop = NextHop("eth0", mac=bytes.fromhex("0200000000a7"), mtu=9000, here=True)

    writes = list(Elb().configure_with_hops(None, wanted, kept.maps, {ip_address("10.0.0.1"): hop}))

    names = [one.entry if isinstance(one, Run) else one.map for one in writes]
    assert names.index("elb_hops") < names.index("elb_build")
    kept.carry_out(writes)
    assert [int.from_bytes(hop.mac or b"", "little") | 9000 << 48] == [word for _, word in kept.maps["elb_hops"].items() if word]


def test_tables_that_speak_of_each_other_are_kept_together(kept: Kept) -> None:
    def families(**keys: Any) -> dict[str, str]:
        return {one.name: one.family for one in Elb().maps(ElbConfig(**{**LIMITS, **keys})) if one.role is Role.STATE}

    (family,) = set(families().values())

    assert {family} == set(families(flow_table=2048).values())
    for setting in ("max_vips", "max_backends", "max_members"):
        assert family not in families(**{setting: LIMITS[setting] + 1}).values()


def test_next_hops_that_the_routes_said_stay_over_a_restart(kept: Kept) -> None:
    wanted = config(vip("10.0.0.1"))
    kept.lead(None, wanted)
    (backend,) = [number for number, hop in kept.maps["elb_hops"].items() if hop]
    hop = kept.maps["elb_hops"].get(backend) & (1 << 48) - 1 | 9000 << 48
    kept.carry_out([Put("elb_hops", backend, hop)])

    assert [] == kept.writes(None, wanted)
    kept.lead(None, attrs.evolve(wanted, mtu=1400))
    assert 1400 == kept.maps["elb_hops"].get(backend) >> 48
