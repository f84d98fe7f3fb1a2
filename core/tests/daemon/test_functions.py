# SPDX-License-Identifier: Apache-2.0
"""What a running daemon asks of functions, and does for them: next hops, upkeep, warnings, rates, answers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from xdpchain.cli.client import call
from xdpchain.errors import ConfigError, DaemonError, ExitCode, PluginError
from xdpchain.testing import Namespace, Netns

from core.tests.daemon.conftest import add_link
from core.tests.daemon.process import Daemon
from core.tests.daemon.sender import SENDER, SENDER_C
from core.tests.plugins.build import make_plugin

HERE, THERE, FAR, NOWHERE = "10.7.0.1", "10.7.0.2", "10.8.0.1", "10.9.0.1"
MAC = "02:00:00:00:07:02"


def node(*to: str, **keys: Any) -> str:
    """A node's file whose one chain sends to these addresses."""
    lines = [f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in keys.items()]
    return "\n".join(['[node]\nmetrics = "off"\n\n[interface.t0]\nchain = ["sender"]\n\n[function.sender]', f"to = {list(to)}", *lines, ""])


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def neighbour(link: str, netns: Netns) -> Namespace:
    """The other end of t0, in a network of its own, which does not answer yet."""
    other = netns("neighbour")
    ip("link", "set", "t1", "netns", other.name)
    other.run("ip", "link", "set", "t1", "address", MAC, "up")
    ip("address", "add", f"{HERE}/24", "dev", "t0")
    return other


@pytest.fixture
def sender(daemon: Daemon, neighbour: Namespace, tmp_path: Path) -> Daemon:
    """A daemon with the plugin `sender`; not started yet."""
    make_plugin(tmp_path / "plugins", "sender", SENDER, SENDER_C)
    return daemon


def answers(neighbour: Namespace) -> None:
    neighbour.run("ip", "address", "add", f"{THERE}/24", "dev", "t1")


def ask(daemon: Daemon, address: str) -> dict[str, Any]:
    return call("ask", socket=daemon.socket, instance="sender", question={"address": address})


def mac(daemon: Daemon, address: str) -> str:
    """The hardware address that the function has in its map for a destination."""
    return int(ask(daemon, address)["mac"]).to_bytes(6).hex(":")


def turns(daemon: Daemon) -> dict[str, int]:
    """How often the function was asked to follow, and for its upkeep."""
    rows = call("show", socket=daemon.socket, instance="sender", seconds=0)["tables"][0]["rows"]
    return dict(rows)


def warned(daemon: Daemon) -> list[str]:
    (instance,) = daemon.data("status")["instances"]
    return list(instance["warnings"])


def test_a_neighbour_that_is_found_after_the_apply_is_followed(sender: Daemon, neighbour: Namespace) -> None:
    sender.configure(node(THERE))
    sender.start()

    assert {"address": THERE, "mac": 0, "mtu": 1500, "here": 1, "routed": 1, "zero": 0} == ask(sender, THERE)
    assert 1 == turns(sender)["follow"]
    (unknown,) = sender.events("next_hop_unknown")
    assert ("t0", THERE, 1) == (unknown["interface"], unknown["gateway"], unknown["addresses"])
    assert [f"nobody answers at {THERE}"] == warned(sender)
    assert f"\nwarning   sender: nobody answers at {THERE}\n" in sender.cli("status")
    assert 'xdpchain_warnings{instance="sender"} 1.0' in sender.cli("metrics")

    answers(neighbour)
    sender.wait_for(lambda: mac(sender, THERE) == MAC)

    assert 2 == turns(sender)["follow"]
    assert MAC == sender.events("next_hop_found")[0]["mac"]
    assert [] == warned(sender)
    assert "warning" not in sender.cli("status")
    assert 'xdpchain_warnings{instance="sender"} 0.0' in sender.cli("metrics")


def test_another_hardware_address_another_mtu_and_a_route_that_goes_are_followed(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    ip("route", "add", f"{FAR}/32", "via", THERE, "mtu", "1400")
    sender.configure(node(FAR))
    sender.start()
    sender.wait_for(lambda: mac(sender, FAR) == MAC)
    assert 1400 == ask(sender, FAR)["mtu"]

    ip("neighbor", "replace", THERE, "lladdr", "02:00:00:00:07:99", "dev", "t0", "nud", "reachable")
    sender.wait_for(lambda: mac(sender, FAR) == "02:00:00:00:07:99")
    ip("route", "replace", f"{FAR}/32", "via", THERE, "mtu", "1300")
    sender.wait_for(lambda: ask(sender, FAR)["mtu"] == 1300)
    assert ["02:00:00:00:07:99"] * 2 == [event["mac"] for event in sender.events("next_hop_changed")]

    ip("route", "del", f"{FAR}/32")
    sender.wait_for(lambda: not ask(sender, FAR)["routed"])

    assert "there is no route to it" == sender.events("next_hop_unknown")[-1]["problem"]


def test_an_interface_that_vanishes_takes_its_next_hops_along(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    add_link("u0", "u1")
    ip("address", "add", "10.6.0.1/24", "dev", "u0")
    ip("neighbor", "add", "10.6.0.2", "lladdr", "02:00:00:00:06:02", "dev", "u0")
    sender.configure(node("10.6.0.2", THERE))
    sender.start()
    sender.wait_for(lambda: mac(sender, THERE) == MAC)
    assert {"mac": 0x020000000602, "here": 0, "routed": 1}.items() <= ask(sender, "10.6.0.2").items()

    ip("link", "del", "u0")
    sender.wait_for(lambda: not ask(sender, "10.6.0.2")["routed"])

    assert MAC == mac(sender, THERE)


def test_a_neighbour_that_answers_at_once_is_there_with_the_apply(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    sender.configure(node(THERE))
    sender.start()

    assert MAC == mac(sender, THERE)
    assert not sender.events("next_hop_unknown")


def test_what_changes_nothing_asks_nobody(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    sender.configure(node(THERE))
    sender.start()
    sender.wait_for(lambda: mac(sender, THERE) == MAC)
    before = turns(sender)["follow"]

    ip("route", "add", f"{NOWHERE}/32", "dev", "t0")
    ip("neighbor", "replace", THERE, "lladdr", MAC, "dev", "t0", "nud", "stale")
    # what is asked for later is done later: when this is followed, that has been looked at
    ip("neighbor", "replace", THERE, "lladdr", "02:00:00:00:07:99", "dev", "t0", "nud", "reachable")
    sender.wait_for(lambda: mac(sender, THERE) == "02:00:00:00:07:99")

    assert before + 1 == turns(sender)["follow"]

    sender.cli("apply")
    assert before + 2 == turns(sender)["follow"]


@pytest.mark.parametrize("command", ["apply", "plan", "reload"])
def test_a_config_that_does_not_fit_the_routes_is_refused_before_anything_changes(
    sender: Daemon, neighbour: Namespace, command: str
) -> None:
    sender.configure(node(THERE))
    sender.start()
    sender.configure(node(THERE, NOWHERE, picky=True))

    text = sender.cli(command, code=ExitCode.CONFIG)

    line = 1 + node(THERE, NOWHERE).splitlines().index(f"to = ['{THERE}', '{NOWHERE}']")
    assert f"{sender.file}:{line}: function.sender.to[1]: cannot be reached: there is no route to it\n    hint: add a route" in text
    assert "nothing is sent to" in str(refused(sender, NOWHERE))
    # offline, nobody knows the routes
    sender.cli("check")
    ip("route", "add", f"{NOWHERE}/32", "via", THERE)
    sender.cli("apply")
    assert 1 == ask(sender, NOWHERE)["routed"]


def test_a_route_that_went_at_this_moment_is_not_there_for_an_apply(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    sender.configure(node(THERE, NOWHERE))
    sender.start()
    sender.configure(node(THERE, NOWHERE, picky=True))

    for _ in range(10):
        ip("route", "add", f"{NOWHERE}/32", "via", THERE)
        sender.wait_for(lambda: mac(sender, NOWHERE) == MAC)
        call("apply", socket=sender.socket)
        ip("route", "del", f"{NOWHERE}/32")
        with pytest.raises(ConfigError) as caught:
            call("apply", socket=sender.socket)
        assert ["cannot be reached: there is no route to it"] == [problem.message for problem in caught.value.problems]


def refused(daemon: Daemon, address: str) -> DaemonError:
    with pytest.raises(DaemonError) as caught:
        ask(daemon, address)
    return caught.value


def test_at_a_start_routes_may_be_still_to_come(sender: Daemon, neighbour: Namespace) -> None:
    sender.configure(node(NOWHERE, picky=True))
    sender.start()

    (warning,) = sender.events("config_warning")
    assert (str(sender.file), "cannot be reached: there is no route to it") == (warning["file"], warning["problem"])

    answers(neighbour)
    ip("route", "add", f"{NOWHERE}/32", "via", THERE)
    sender.wait_for(lambda: mac(sender, NOWHERE) == MAC)


def test_next_hops_of_an_instance_that_waits_for_its_interface_are_there_when_it_runs(sender: Daemon, neighbour: Namespace) -> None:
    answers(neighbour)
    sender.configure(node(THERE).replace("[interface.t0]", "[interface.late]"))
    sender.start()
    add_link("late", "later")

    sender.wait_for(lambda: sender.data("status")["places"])
    sender.wait_for(lambda: mac(sender, THERE) == MAC)

    assert 0 == ask(sender, THERE)["here"]
    ip("link", "del", "late")


def test_upkeep_is_done_again_and_again(sender: Daemon, neighbour: Namespace) -> None:
    sender.configure(node(THERE))
    sender.start()

    sender.wait_for(lambda: turns(sender)["upkeep"] >= 2)

    sender.cli("unload", "--yes")
    assert "nothing runs" in sender.cli("show", "sender", code=ExitCode.DAEMON)
    sender.cli("apply")
    sender.wait_for(lambda: turns(sender)["upkeep"] >= 1)
    assert not sender.events("internal_error")


def test_show_has_rates_and_does_without(sender: Daemon, neighbour: Namespace) -> None:
    sender.configure(node(THERE))
    sender.start()

    (table,) = sender.data("show", "sender", "--rates-over", "2500ms")["tables"]

    assert ["what", "turns", "turns/s"] == table["columns"]
    rates = {what: rate for what, _, rate in table["rows"]}
    assert 0 == rates["follow"]
    assert 0 < rates["upkeep"] < 2
    assert ["what", "turns"] == sender.data("show", "sender", "--no-rates")["tables"][0]["columns"]
    assert "WHAT    TURNS  TURNS/S\n" in sender.cli("show", "sender")
    assert "is not a duration" in sender.cli("show", "sender", "--rates-over", "soon", code=ExitCode.USAGE)


def test_a_question_is_answered_by_the_function(sender: Daemon, neighbour: Namespace) -> None:
    make_plugin(sender.base / "plugins", "silent", SENDER.replace("def answer", "def not_answer"), SENDER_C)
    chain = '[interface.lo]\nchain = ["silent"]\nxdp_mode = "generic"\n\n[function.silent]\nto = []\n'
    sender.configure(node(THERE) + chain)
    sender.start()

    assert 1 == ask(sender, THERE)["routed"]
    error = refused(sender, NOWHERE)
    assert (f"nothing is sent to {NOWHERE}", "ask for another", ExitCode.DAEMON) == (error.message, error.hint, error.exit_code)
    with pytest.raises(PluginError, match=r"answer\(\) raised KeyError: 'address'"):
        call("ask", socket=sender.socket, instance="sender", question={})
    with pytest.raises(DaemonError, match="answers no questions"):
        call("ask", socket=sender.socket, instance="silent", question={})
    with pytest.raises(DaemonError, match="no instance is called 'other'"):
        call("ask", socket=sender.socket, instance="other", question={})


@pytest.mark.parametrize(("method", "what"), [("follow", "next hops"), ("upkeep", "upkeep"), ("warnings", "warnings")])
def test_a_method_that_raises_is_told_once_and_is_in_nobody_s_way(sender: Daemon, neighbour: Namespace, method: str, what: str) -> None:
    sender.configure(node(THERE, fail=method))
    sender.start()
    for _ in range(2):
        sender.data("status")
        sender.cli("metrics")

    sender.wait_for(lambda: sender.events("plugin_failed"))
    sender.cli("apply")

    (failure,) = sender.events("plugin_failed")
    assert ("sender", f"its {what}: plugin 'sender': {method}() raised OSError: {method}") == (failure["instance"], failure["error"])
    sender.configure(node(THERE))
    sender.cli("apply")
    assert 1 == ask(sender, THERE)["here"]


@pytest.mark.parametrize("method", ["destinations", "check_next_hops"])
def test_a_method_that_raises_before_the_apply_refuses_it(sender: Daemon, neighbour: Namespace, method: str) -> None:
    sender.configure(node(THERE))
    sender.start()
    sender.configure(node(NOWHERE, fail=method))

    assert f"{method}() raised OSError" in sender.cli("apply", code=ExitCode.PLUGIN)

    assert 1 == ask(sender, THERE)["here"]
