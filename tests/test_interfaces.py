# SPDX-License-Identifier: Apache-2.0
"""Interfaces that appear, vanish, change their names, or carry somebody else's program, under a real daemon."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping

import pytest
from xdpchain.bpf import libbpf
from xdpchain.errors import ExitCode
from xdpchain.netlink import list_interfaces

from core.tests.chain.conftest import Wire
from core.tests.netlink.attach import attach_pass, attach_pass_by_link
from tests.helpers.kernel import expected_pins, order, pins
from tests.helpers.links import Tap, attached, cable, ip, send
from tests.helpers.node import Node, node_file, until
from tests.helpers.standstill import counts
from tests.helpers.traffic import marked_frame

TRAIL = {"trail": {"number": 5}}
STATE = {"trail": ["trail_seen"]}


def marked(node: Node, interface: str) -> int:
    """The frames that the chain on an interface has marked."""
    return counts(node).get((interface, "trail", "NEXT", "marked"), 0)


def index(name: str) -> int:
    return socket.if_nametoindex(name)


@pytest.fixture
def waiting(here: Node) -> Node:
    """A node that runs, with a chain for an interface that is not there."""
    here.configure(node_file({"late": ["trail"]}, TRAIL))
    here.start()
    assert here.status()["waiting"] == ["late"]
    return here


def test_an_interface_that_appears_gets_its_chain_at_once(waiting: Node) -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        with cable("late", "peer"):
            attached(waiting, "late", ["trail"])
            took.append(time.monotonic() - began)
            until(lambda: marked(waiting, "late") == 0)
            send("peer", marked_frame())
            until(lambda: marked(waiting, "late") == 1)
            assert pins(waiting.root) == expected_pins({index("late"): ["trail"]}, STATE)
        until(lambda: waiting.status()["waiting"] == ["late"])
        until(lambda: pins(waiting.root) == ["state/trail/trail_seen-*"])
    print(f"\nfrom the creation of an interface to its chain: {min(took) * 1e3:.0f} to {max(took) * 1e3:.0f} ms", end="")


def test_an_interface_that_vanishes_while_nobody_looks_is_cleaned_up_at_the_next_start(waiting: Node) -> None:
    with cable("late", "peer"):
        attached(waiting, "late", ["trail"])
        waiting.kill()
    with cable("late", "peer"):
        waiting.start()
        assert order(waiting.root, "late") == ["trail"]
        assert pins(waiting.root) == expected_pins({index("late"): ["trail"]}, STATE)


def test_a_name_decides_and_not_the_interface_that_had_it(waiting: Node) -> None:
    with cable("late", "peer"):
        attached(waiting, "late", ["trail"])
        ip("link", "set", "late", "name", "away")
        until(lambda: order(waiting.root, "away") == [])
        until(lambda: waiting.status()["waiting"] == ["late"])
        with cable("late", "peer2"):
            attached(waiting, "late", ["trail"])
            assert order(waiting.root, "away") == []
        ip("link", "set", "away", "name", "late")
        attached(waiting, "late", ["trail"])
        send("peer", marked_frame())
        until(lambda: marked(waiting, "late") == 1)


def test_a_pattern_follows_taps_as_guests_come_and_go(here: Node) -> None:
    here.configure(node_file({"tap*": ["trail"], "tap9": ["judge"]}, TRAIL))
    here.start()
    assert here.status()["waiting"] == ["tap*", "tap9"]
    taps = {f"tap{number}": Tap(f"tap{number}") for number in (1, 2, 3, 9)}
    other = Tap("vnet0")
    for name in taps:
        attached(here, name, ["judge"] if name == "tap9" else ["trail"])
    for number, tap in enumerate(taps.values(), 1):
        for _ in range(number):
            tap.send(marked_frame())
    until(lambda: [marked(here, name) for name in ("tap1", "tap2", "tap3")] == [1, 2, 3])
    until(lambda: counts(here).get(("tap9", "judge", "DROP", "judged")) == 4)
    assert order(here.root, "vnet0") == []
    indices = {index(name): ["judge" if name == "tap9" else "trail"] for name in taps if name != "tap2"}

    taps.pop("tap2").close()

    until(lambda: "tap2" not in {place["interface"] for place in here.status()["places"]})
    assert [marked(here, name) for name in ("tap1", "tap3")] == [1, 3]
    state = {**STATE, "judge": ["judge_paths"]}
    until(lambda: pins(here.root) == expected_pins(indices, state))
    for tap in (*taps.values(), other):
        tap.close()
    until(lambda: here.status()["waiting"] == ["tap*", "tap9"])


@pytest.fixture
def blocked(here: Node, wire: Wire) -> Node:
    """A node with a chain for `near`; not started yet."""
    here.configure(node_file({"near": ["trail"]}, TRAIL))
    return here


def xdp(name: str) -> Mapping[str, int]:
    """The ids of the XDP programs on an interface, by mode, as the kernel tells everybody."""
    (one,) = [interface for interface in list_interfaces() if interface.name == name]
    return one.xdp_programs


def test_a_foreign_program_at_the_start_is_told_and_left_alone_and_followed_when_it_goes(blocked: Node) -> None:
    with attach_pass("near") as foreign:
        blocked.start()
        status = blocked.status()
        assert str(foreign) in status["blocked"]["near"]
        assert [] == status["places"]
        assert f"another XDP program (id {foreign}, native)" in blocked.command("status")
        text = blocked.command("apply", code=ExitCode.INTERFACE)
        assert f"near: another XDP program (id {foreign}, native)" in text
        assert "it is never replaced" in text
        blocked.command("apply", "--blocked-ok")
        assert xdp("near") == {"native": foreign}
    took = attached(blocked, "near", ["trail"])
    print(f"\nthe chain was attached {took * 1e3:.0f} ms after the foreign program went", end="")
    until(lambda: blocked.status()["blocked"] == {})  # the kernel has the chain a moment before the daemon says so


def test_a_foreign_program_that_came_first_is_left_alone(waiting: Node) -> None:
    with cable("early", "peer"), attach_pass_by_link("early") as foreign:
        ip("link", "set", "early", "down")
        ip("link", "set", "early", "name", "late")
        until(lambda: "late" in waiting.status()["blocked"])
        assert str(foreign) in waiting.status()["blocked"]["late"]
        assert foreign in xdp("late").values()
        assert waiting.events("interface_blocked")


def test_the_chain_follows_a_link_whose_end_the_kernel_does_not_announce(blocked: Node) -> None:
    with attach_pass_by_link("near"):
        blocked.start()
        assert "near" in blocked.status()["blocked"]

    attached(blocked, "near", ["trail"])


def test_the_kernel_refuses_other_tools_that_want_the_place_of_a_chain(blocked: Node, wire: Wire) -> None:
    blocked.start()
    before = xdp("near")
    program = libbpf.prog_load(6, "intruder", bytes.fromhex("b7000000010000009500000000000000"), attach_type=37)

    assert libbpf.library().bpf_xdp_attach(wire.index, program, 4, None) == -errno.EBUSY
    assert libbpf.link_create(program, wire.index, 37, flags=4) == -errno.EBUSY
    assert libbpf.library().bpf_xdp_detach(wire.index, 4, None) == -errno.EBUSY
    assert ip("-force", "link", "set", "near", "xdp", "off", check=False)
    assert xdp("near") == before
    assert wire.path() == [5]
