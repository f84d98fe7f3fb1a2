# SPDX-License-Identifier: Apache-2.0
"""What an apply does to packets, pins and maps."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest
from xdpchain.bpf import libbpf
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.tracefs import tracepoint_number
from xdpchain.chain.engine import Engine, unload
from xdpchain.chain.model import Interface, Kind
from xdpchain.chain.observe import observe
from xdpchain.config import MAX_CHAIN
from xdpchain.errors import InterfaceError, KernelError, PluginError, VerifierError
from xdpchain.function import Hook, Verdict

from core.tests.chain.conftest import Configure, Wire
from core.tests.chain.functions import MARK_C, Mark

AB = {"a": {"number": 1}, "b": {"number": 2}}


def pins(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() and path.suffix != ".debug"}


def test_packets_pass_the_functions_in_their_order(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["b", "a"]}, AB), wire.present)

    assert [2, 1] == wire.path()


def test_what_the_kernel_chains_is_what_the_snapshot_says(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["a", "b"]}, AB), wire.present)
    wire.path()
    (place,) = engine.snapshot().places

    assert ("a", "b") == place.in_kernel
    assert [("marked", 1), ("marked", 1)] == [(count.reason, count.packets) for hop in place.hops for count in hop.counts]
    assert 64 == place.hops[0].counts[0].bytes


def test_a_plan_names_every_step_and_changes_nothing(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    plan = engine.plan(config({"near": ["a", "b"]}, AB), wire.present)

    assert [(Kind.MAKE, "a"), (Kind.MAKE, "b"), (Kind.ATTACH, "near xdp")] == [(one.kind, one.subject) for one in plan.actions]
    assert set() == pins(bpffs)
    assert [] == wire.path()


def test_an_unchanged_config_has_an_empty_plan(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["a", "b"]}, AB), wire.present)

    assert not engine.plan(config({"near": ["a", "b"]}, AB), wire.present)


def test_the_longest_chain_runs_to_its_end(engine: Engine, config: Configure, wire: Wire) -> None:
    names = [f"m{number}" for number in range(1, MAX_CHAIN + 1)]
    engine.apply(config({"near": names}, {name: {"number": number} for number, name in enumerate(names, 1)}), wire.present)

    assert list(range(1, MAX_CHAIN + 1)) == wire.path()
    assert 0 == engine.snapshot().places[0].broken


def test_a_config_change_alone_keeps_the_generation(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["a"]}, {"a": {"number": 1}}), wire.present)
    before = engine.snapshot().places[0].hops[0].program_id
    plan = engine.apply(config({"near": ["a"]}, {"a": {"number": 9}}), wire.present)

    assert [Kind.CONFIGURE] == [one.kind for one in plan.actions]
    assert before == engine.snapshot().places[0].hops[0].program_id
    assert [9] == wire.path()


def test_counters_and_state_go_on_through_a_structural_change(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["a"]}, AB), wire.present)
    wire.path()
    engine.apply(config({"near": ["b", "a"]}, AB), wire.present)
    wire.path()
    hops = {hop.instance: hop for hop in engine.snapshot().places[0].hops}

    assert 2 == hops["a"].counts[0].packets
    assert 2 == engine.maps("a")["mark_seen"].get(0)


def test_a_new_engine_takes_over_and_leaves_no_stray_pin(
    engine: Engine, config: Configure, wire: Wire, bpffs: Path, compiler: Compiler
) -> None:
    wanted = config({"near": ["a", "b"]}, AB)
    engine.apply(wanted, wire.present)
    wire.path()
    before = {path for path in pins(bpffs) if "next-" not in path}
    engine.close()

    assert [1, 2] == wire.path()

    successor = Engine(engine.pins.root, compiler)
    plan = successor.apply(wanted, wire.present)

    assert [1, 2] == wire.path()
    assert Kind.ATTACH not in {one.kind for one in plan.actions}
    assert 3 == successor.maps("a")["mark_seen"].get(0)
    assert 3 == successor.snapshot().places[0].hops[0].counts[0].packets
    assert before == {path for path in pins(bpffs) if "next-" not in path}


def test_a_map_of_another_schema_is_not_taken_over(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    engine.apply(config({"near": ["a"]}, {"a": {"number": 1}}), wire.present)
    wire.path()
    plan = engine.apply(config({"near": ["a"]}, {"a": {"number": 1, "capacity": 32}}), wire.present)

    assert [Kind.REPLACE, Kind.REWIRE] == [one.kind for one in plan.actions]
    assert 0 == len(engine.maps("a")["mark_seen"])
    assert 1 == sum("mark_seen" in path for path in pins(bpffs))


def test_a_handler_that_raises_changes_nothing(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    engine.apply(config({"near": ["a"]}, {"a": {"number": 1}}), wire.present)
    before = pins(bpffs)

    with pytest.raises(PluginError, match=r"configure\(\) raised RuntimeError: told to"):
        engine.apply(config({"near": ["b", "a"]}, {"a": {"number": 7}, "b": {"number": 2, "explode": True}}), wire.present)

    assert before == pins(bpffs)
    assert [1] == wire.path()
    assert not engine.plan(config({"near": ["a"]}, {"a": {"number": 1}}), wire.present)


def test_an_attach_that_fails_takes_back_what_was_written_before(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    engine.apply(config({"near": ["a"]}, {"a": {"number": 1}}), wire.present)
    before = pins(bpffs)
    gone = Interface(999_999, "gone0")

    with pytest.raises(InterfaceError, match="gone0"):
        engine.apply(config({"near": ["a", "b"], "gone0": ["a"]}, {"a": {"number": 7}, "b": {}}), [*wire.present, gone])

    assert before == pins(bpffs)
    assert [1] == wire.path()


def test_a_foreign_program_is_reported_and_never_replaced(engine: Engine, config: Configure, wire: Wire) -> None:
    other = libbpf.prog_load(6, "foreign", bytes.fromhex("b7000000010000009500000000000000"), attach_type=37)
    link = libbpf.link_create(other, wire.index, 37, flags=1 << 2)
    occupied = [Interface(wire.index, "near", xdp_programs={"native": 4711})]

    assert link > 0
    with pytest.raises(InterfaceError, match="near: another XDP program"):
        engine.apply(config({"near": ["a"]}, AB), occupied)
    with pytest.raises(InterfaceError, match="near: another XDP program"):
        engine.apply(config({"near": ["a"]}, AB), wire.present)

    plan = engine.apply(config({"near": ["a"]}, AB), occupied, blocked_ok=True)

    assert ["near"] == list(plan.blocked)
    assert wire.path() is None


def test_a_link_that_somebody_detached_is_attached_again(engine: Engine, config: Configure, wire: Wire) -> None:
    wanted = config({"near": ["a"]}, AB)
    engine.apply(wanted, wire.present)
    (pin,) = engine.pins.chains.glob("*/link-*")
    libbpf.link_detach(libbpf.obj_get(str(pin)))
    plan = engine.apply(wanted, wire.present)

    assert Kind.ATTACH in {one.kind for one in plan.actions}
    assert [1] == wire.path()


def test_interfaces_that_come_and_go(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    wanted = config({"near": ["a"], "tap*": ["b"]}, AB)

    assert ("tap*",) == engine.apply(wanted, wire.present).waiting

    subprocess.run(["ip", "tuntap", "add", "tap7", "mode", "tap"], check=True)
    tap = Interface(socket.if_nametoindex("tap7"), "tap7")
    engine.apply(wanted, [*wire.present, tap])

    assert {"near", "tap7"} == {place.interface for place in engine.snapshot().places}

    subprocess.run(["ip", "link", "del", "tap7"], check=True)
    plan = engine.apply(wanted, wire.present)

    assert [Kind.DETACH] == [one.kind for one in plan.actions]
    assert not [path for path in pins(bpffs) if path.startswith(f"xdpchain/chains/{tap.index}-")]
    assert [1] == wire.path()


def test_a_rename_keeps_the_chain_when_the_new_name_has_the_same(engine: Engine, config: Configure, wire: Wire) -> None:
    wanted = config({"n*": ["a"]}, AB)
    engine.apply(wanted, wire.present)

    assert not engine.apply(wanted, [Interface(wire.index, "new")])
    assert ["new"] == [place.interface for place in engine.snapshot().places]


def test_a_rename_to_a_name_without_a_chain_detaches(engine: Engine, config: Configure, wire: Wire) -> None:
    wanted = config({"near": ["a"]}, AB)
    engine.apply(wanted, wire.present)
    engine.apply(wanted, [Interface(wire.index, "other")])

    assert [] == wire.path()
    assert () == engine.snapshot().places


@pytest.fixture(params=["tcx", "clsact"])
def tc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to attach to TC: a kernel before 6.6 answers EINVAL to a tcx link."""
    if request.param == "clsact":
        create = libbpf.link_create
        monkeypatch.setattr(
            libbpf, "link_create", lambda prog, target, kind, **o: -22 if kind in {46, 47} else create(prog, target, kind, **o)
        )
    return str(request.param)


def test_tc_chains_change_are_taken_over_and_go(
    engine: Engine, config: Configure, wire: Wire, compiler: Compiler, tc: str, bpffs: Path
) -> None:
    hooks = {"hooks": {"plugin": "hooks"}, "other": {"plugin": "hooks"}}

    def dropped() -> int:
        place = next(place for place in engine.snapshot().places if place.place.hook is Hook.TC_INGRESS)
        return sum(count.packets for count in place.hops[0].counts if count.verdict is Verdict.DROP)

    for chain, on_error, expected in ((["hooks"], "pass", 1), (["other", "hooks"], "drop", 1), (["hooks"], "pass", 2)):
        engine.apply(config({"near": chain}, hooks, on_error=on_error), wire.present)
        wire.sender.send(udp_frame(2))
        time.sleep(0.01)

        assert {tc} == {place.mode for place in engine.snapshot().places if place.place.hook in {Hook.TC_INGRESS, Hook.TC_EGRESS}}
        assert expected == dropped()

    engine.close()
    engine = Engine(engine.pins.root, compiler)
    plan = engine.apply(config({"near": ["hooks"]}, hooks), wire.present)

    assert Kind.ATTACH not in {one.kind for one in plan.actions}

    wire.sender.send(udp_frame(2))
    time.sleep(0.01)

    assert 3 == dropped()

    engine.apply(config({"near": ["a"]}, AB), wire.present)
    filters = subprocess.run(["tc", "filter", "show", "dev", "near", "ingress"], capture_output=True, text=True, check=False).stdout

    assert "bpf" not in filters
    assert {Hook.XDP} == {place.place.hook for place in engine.snapshot().places}


def test_every_hook_runs_its_program(engine: Engine, config: Configure, wire: Wire, tc: str) -> None:
    engine.apply(config({"near": ["hooks"]}, {"hooks": {"plugin": "hooks"}}), wire.present)
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", "near"], check=True)
    subprocess.run(["ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near"], check=True)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.sendto(b"x", ("192.0.2.2", 3))
        udp.sendto(b"x", ("192.0.2.2", 4))
    for port in (1, 2, 4):
        wire.sender.send(udp_frame(port))
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()):
        places = {place.place.hook: place for place in engine.snapshot().places}
    counts = {hook: {(count.verdict, count.reason): count.packets for count in place.hops[0].counts} for hook, place in places.items()}

    assert set(Hook) - {Hook.ROUTINE} == set(places)
    assert 1 == counts[Hook.XDP][Verdict.DROP, "port_1"]
    assert 1 == counts[Hook.TC_INGRESS][Verdict.DROP, "port_2"]
    assert 1 == counts[Hook.TC_EGRESS][Verdict.DROP, "port_3"]
    assert 0 < sum(engine.maps("hooks")["hooks_events"].get(0) or [])


def udp_frame(port: int) -> bytes:
    ip = bytes.fromhex("4500002100000000401100000a0000010a000002") + b""
    return bytes.fromhex("0200000000010200000000020800") + ip + (1234).to_bytes(2) + port.to_bytes(2) + bytes.fromhex("000d0000") + b"hello"


def test_a_tracepoint_is_found_without_a_mounted_tracefs_or_named() -> None:
    assert not Path("/sys/kernel/tracing/events").exists()
    assert tracepoint_number("sock:inet_sock_set_state") > 0

    with pytest.raises(KernelError, match="tracepoint sock:no_such_event is not to be found"):
        tracepoint_number("sock:no_such_event")


def test_generic_and_native_can_be_chosen_and_changed(engine: Engine, config: Configure, wire: Wire) -> None:
    for mode in ("native", "generic", "auto"):
        engine.apply(config({"near": {"chain": ["a", "b"], "xdp_mode": mode}}, AB), wire.present)

        assert [1, 2] == wire.path()
        assert {"native": "native", "generic": "generic", "auto": "native"}[mode] == engine.snapshot().places[0].mode


def test_a_mode_that_is_there_already_costs_no_gap(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": {"chain": ["a"], "xdp_mode": "auto"}}, AB), wire.present)
    link = next(engine.pins.chains.glob("*/link-*"))
    number = libbpf.link_info(libbpf.obj_get(str(link))).id

    assert "for a moment" in engine.plan(config({"near": {"chain": ["a"], "xdp_mode": "generic"}}, AB), wire.present).actions[0].why
    assert "for a moment" not in engine.plan(config({"near": {"chain": ["a"], "xdp_mode": "native"}}, AB), wire.present).actions[0].why

    engine.apply(config({"near": {"chain": ["a"], "xdp_mode": "native"}}, AB), wire.present)

    assert number == libbpf.link_info(libbpf.obj_get(str(link))).id


def test_a_mode_that_the_driver_lacks_leaves_the_old_mode_running(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": {"chain": ["a"], "xdp_mode": "native"}}, AB), wire.present)

    with pytest.raises(InterfaceError, match="offload"):
        engine.apply(config({"near": {"chain": ["a"], "xdp_mode": "offload"}}, AB), wire.present)

    assert [1] == wire.path()
    assert not engine.plan(config({"near": {"chain": ["a"], "xdp_mode": "native"}}, AB), wire.present)


def test_on_error_changes_without_losing_the_link(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["a", "b"]}, AB), wire.present)
    link = libbpf.link_info(libbpf.obj_get(str(next(engine.pins.chains.glob("*/link-*"))))).id
    engine.apply(config({"near": ["a", "b"]}, AB, on_error="drop"), wire.present)

    assert [1, 2] == wire.path()
    assert link == libbpf.link_info(libbpf.obj_get(str(next(engine.pins.chains.glob("*/link-*"))))).id


@pytest.mark.parametrize(("on_error", "path"), [("pass", [1]), ("drop", None)])
def test_a_hop_that_cannot_be_taken_is_counted_and_follows_on_error(
    engine: Engine, config: Configure, wire: Wire, on_error: str, path: list[int] | None
) -> None:
    engine.apply(config({"near": ["a", "b"]}, AB, on_error=on_error), wire.present)
    (jump,) = engine.pins.chains.glob("*/next-*-0-a")
    libbpf.map_delete(libbpf.obj_get(str(jump)), bytes(4))

    assert path == wire.path()

    counts = engine.snapshot().places[0].hops[0].counts

    assert 1 == next(count.packets for count in counts if count.verdict is Verdict.BROKEN)


@pytest.mark.parametrize(("on_error", "path"), [("pass", []), ("drop", None)])
def test_a_dispatcher_that_cannot_jump_counts_and_follows_on_error(
    engine: Engine, config: Configure, wire: Wire, on_error: str, path: list[int] | None
) -> None:
    engine.apply(config({"near": ["a"]}, AB, on_error=on_error), wire.present)
    (root,) = engine.pins.chains.glob("*/root-*")
    libbpf.map_delete(libbpf.obj_get(str(root)), bytes(4))

    assert path == wire.path()
    assert 1 == engine.snapshot().places[0].broken


def test_what_runs_can_be_read_without_daemon_or_config(engine: Engine, config: Configure, wire: Wire) -> None:
    engine.apply(config({"near": ["b", "a"]}, AB), wire.present)
    wire.path()
    expected = engine.snapshot().places[0]
    engine.close()
    (seen,) = observe(engine.pins.root, {"mark": config({"near": ["a"]}, AB).instances["a"].function}).places

    assert ("b", "a") == seen.in_kernel
    assert ("near", "native", expected.generation) == (seen.interface, seen.mode, seen.generation)
    assert expected.hops == seen.hops


def test_unload_takes_everything_away(engine: Engine, config: Configure, wire: Wire, bpffs: Path) -> None:
    engine.apply(config({"near": ["a"]}, AB), wire.present)
    engine.close()

    assert unload(engine.pins.root)
    assert [] == wire.path()
    assert set() == pins(bpffs)
    assert [] == unload(engine.pins.root)


def test_an_upgrade_of_the_source_keeps_the_state(
    engine: Engine, config: Configure, wire: Wire, shelf: dict[str, Mark], compiler: Compiler
) -> None:
    wanted = config({"near": ["a"]}, AB)
    engine.apply(wanted, wire.present)
    wire.path()
    shelf["mark"].source.write_text(MARK_C.replace("*at = *number", "*at = *number + 100"))

    assert not engine.plan(wanted, wire.present)

    engine.close()
    successor = Engine(engine.pins.root, compiler)
    successor.apply(wanted, wire.present)

    assert [101] == wire.path()
    assert 2 == successor.maps("a")["mark_seen"].get(0)


def test_a_rejected_upgrade_leaves_the_old_code_running(
    engine: Engine, config: Configure, wire: Wire, shelf: dict[str, Mark], compiler: Compiler, bpffs: Path
) -> None:
    wanted = config({"near": ["a"]}, AB)
    engine.apply(wanted, wire.present)
    before = pins(bpffs)
    shelf["mark"].source.write_text(MARK_C.replace("(void *)at + 1 <= packet->end", "1"))
    engine.close()

    with pytest.raises(VerifierError, match="mark"):
        Engine(engine.pins.root, compiler).apply(wanted, wire.present)

    assert before == pins(bpffs)
    assert [1] == wire.path()
