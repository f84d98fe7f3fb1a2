# SPDX-License-Identifier: Apache-2.0
"""A real daemon through its life: reloads, rollbacks, stops and starts, and a machine that is not as it should be."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from xdpchain.errors import ExitCode

from core.tests.chain.conftest import Wire
from tests.helpers.kernel import expected_pins, order, pins
from tests.helpers.node import Node, node_file, until
from tests.helpers.standstill import counts, counts_of, standing
from tests.helpers.traffic import Sender, marked_frame, syn_frame

INSTANCES = {"one": {"plugin": "trail", "number": 1}, "two": {"plugin": "trail", "number": 2}}
STATE = {"one": ["trail_seen"], "two": ["trail_seen"]}
METRICS = "127.0.0.1:9979"


def file_with(*chain: str, metrics: str = "off") -> str:
    return node_file({"near": list(chain)}, {name: INSTANCES[name] for name in chain}, metrics=metrics)


@pytest.fixture
def ran(here: Node, wire: Wire) -> Node:
    """A node that runs the chain one, two on `near`."""
    here.configure(file_with("one", "two"))
    here.start()
    assert wire.path() == [1, 2]
    return here


def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(ran: Node, wire: Wire) -> None:
    ran.configure(file_with("two", "one"))

    assert "applied" in {event["event"] for event in ran.hang_up()}
    assert wire.path() == [2, 1]

    ran.configure(file_with("two") + "rate = 3\n")
    before = standing(ran)

    assert "config_refused" in {event["event"] for event in ran.hang_up()}
    assert wire.path() == [2, 1]
    assert "" == before.changes(standing(ran))
    assert "rate" in ran.command("reload", code=ExitCode.CONFIG)


def test_two_rollbacks_lead_back_to_the_beginning(ran: Node, wire: Wire) -> None:
    assert "no configuration to go back to" in ran.command("rollback", code=ExitCode.DAEMON)
    ran.configure(file_with("two"))
    ran.command("apply")
    assert wire.path() == [2]

    ran.command("rollback")

    assert wire.path() == [1, 2]
    assert ran.status()["config"]["origin"] == "rollback"

    ran.command("rollback")

    assert wire.path() == [2]
    assert ran.status()["config"]["origin"] == "file"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_end_of_the_daemon_is_none_of_the_chain_and_its_start_keeps_counters_and_state(ran: Node, wire: Wire, end: str) -> None:
    for _ in range(9):
        wire.path()
    ran.end() if end == "stop" else ran.kill()
    for _ in range(10):
        assert wire.path() == [1, 2]

    ran.start()

    assert wire.path() == [1, 2]
    assert counts(ran)["near", "two", "NEXT", "marked"] == 21
    assert "21" in ran.command("show", "one", "trail_seen")


def test_unload_leaves_nothing_with_a_daemon_and_without(ran: Node, wire: Wire) -> None:
    text = ran.command("unload", "--yes")
    assert "detached" in text
    assert wire.path() == []
    assert [] == pins(ran.root)
    ran.command("apply")
    assert wire.path() == [1, 2]
    assert counts(ran)["near", "one", "NEXT", "marked"] == 1, "the counters begin again"
    ran.kill()

    ran.command("unload", "--yes")

    assert wire.path() == []
    assert not ran.root.exists()
    assert "there was nothing" in ran.command("unload", "--yes")


def test_a_second_daemon_for_the_same_node_or_the_same_pins_ends_and_harms_nothing(ran: Node, wire: Wire, tmp_path: Path) -> None:
    before = standing(ran)
    for state in (ran.state, tmp_path / "other"):
        second = Node(tmp_path / "second", ran.root.parent, ran.plugins, tmp_path / "cache")
        second.file.write_text(file_with("two"))
        second.spawn(XDPCHAIN_STATE=str(state))
        assert second.wait() == ExitCode.DAEMON
        (failed,) = second.events("start_failed")
        assert "owned by another xdpchaind" in failed["error"]
        assert "stop it first" in failed["hint"]

    assert "" == before.changes(standing(ran))
    assert wire.path() == [1, 2]


def test_status_without_a_daemon_tells_what_the_kernel_carries_and_that_nobody_looks(ran: Node) -> None:
    running = ran.status()
    ran.kill()

    found = ran.data("status", code=ExitCode.DAEMON)

    assert found["daemon"] is None
    assert counts_of(running) == counts_of(found)
    assert [["one", "two"]] == [place["in_kernel"] for place in found["places"]]
    text = ran.command("status", code=ExitCode.DAEMON)
    assert "xdpchaind is not running" in text
    assert "one → two → PASS" in text


def test_the_metrics_over_http_are_the_numbers_of_status(here: Node, wire: Wire) -> None:
    rule = '\n[function.ratelimit]\nwindow = "1h"\nrule = [{ ports = [80], rate = 4 }]\n'
    here.configure(node_file({"near": ["ratelimit", "trail"]}, {"trail": {}}, metrics=METRICS) + rule)
    here.start()
    with Sender("far", [marked_frame(), syn_frame(80)]) as sender:
        until(lambda: sender.rounds > 20)
    rounds = sender.rounds
    expected = counts(here)
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    found = {
        (one.labels["interface"], one.labels["instance"], one.labels["verdict"].upper(), one.labels["reason"]): int(one.value)
        for one in families["xdpchain_packets"].samples
    }

    assert expected == found
    assert {"admitted": 4, "rate_exceeded": rounds - 4}.items() <= {reason: count for (*_, reason), count in found.items()}.items()
    (generation,) = families["xdpchain_generation"].samples
    assert generation.value == here.status()["places"][0]["generation"]
    assert here.command("metrics").count("xdpchain_packets_total{") == len(found)


def test_a_state_map_that_is_full_is_told(ran: Node) -> None:
    assert "100.0%" in ran.command("status")
    metrics = ran.command("metrics")

    assert 'xdpchain_map_entries{instance="one",map="trail_seen"} 1.0' in metrics
    assert 'xdpchain_map_capacity{instance="one",map="trail_seen"} 1.0' in metrics


@pytest.fixture
def small_disk(here: Node) -> Iterator[Path]:
    """The directory of state on a disk of its own, of 64 KiB."""
    here.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(here.state)], check=True)
    yield here.state
    subprocess.run(["umount", "--lazy", str(here.state)], check=True)


def fill(directory: Path) -> None:
    """Write until nothing more fits."""
    with (directory / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_neither_stops_an_apply_nor_a_start(here: Node, small_disk: Path, wire: Wire) -> None:
    here.configure(file_with("one"))
    here.start()
    fill(small_disk)
    here.configure(file_with("two", "one"))

    here.command("apply")

    assert wire.path() == [2, 1]
    assert "No space left" in here.events("state_unusable")[0]["error"]
    here.kill()
    assert wire.path() == [2, 1]

    here.start()

    assert wire.path() == [2, 1]
    (small_disk / "ballast").unlink()
    here.configure(file_with("two"))
    here.command("apply")
    here.command("rollback")
    assert wire.path() == [2, 1]


def test_a_state_directory_that_cannot_be_written_is_told_at_the_start_and_the_chain_goes_on(
    here: Node, small_disk: Path, wire: Wire
) -> None:
    here.configure(file_with("one"))
    here.start()
    here.kill()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    here.spawn()

    assert here.wait() == ExitCode.DAEMON
    assert "Read-only" in here.events("start_failed")[0]["error"]
    assert wire.path() == [1]
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    here.start()
    assert wire.path() == [1]


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(here: Node, wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    here.configure(file_with("one"))

    here.start(XDPCHAIN_CACHE=str(tmp_path / "file" / "cache"))

    assert wire.path() == [1]


def test_pins_on_another_file_system_are_refused_with_what_to_do(here: Node, tmp_path: Path) -> None:
    here.configure(file_with("one"))
    here.spawn(XDPCHAIN_ROOT=str(tmp_path / "elsewhere"))

    assert here.wait() == ExitCode.KERNEL

    (failed,) = here.events("start_failed")
    assert "is not on a BPF file system" in failed["error"]
    assert "mount -t bpf bpf" in failed["hint"]


def test_a_bpffs_that_nobody_mounted_is_mounted_at_its_usual_place(here: Node, wire: Wire) -> None:
    usual = Path("/sys/fs/bpf")
    assert not os.path.ismount(usual)
    here.root = usual / f"xdpchain-{os.getpid()}"
    here.environment["XDPCHAIN_ROOT"] = str(here.root)
    here.configure(file_with("one", "two"))

    here.start()

    assert here.events("bpffs_mounted")
    # mounted in our mounts: the daemon shares them
    assert order(here.root, "near") == ["one", "two"]
    assert pins(here.root) == expected_pins({wire.index: ["one", "two"]}, STATE)
    assert wire.path() == [1, 2]
    here.kill()
    here.command("unload", "--yes")
    subprocess.run(["umount", "--lazy", str(usual)], check=True)
