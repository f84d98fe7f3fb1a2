# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the daemon, seen from the command line and from the packets' side."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdpchain.errors import ExitCode

from core.tests.daemon.conftest import NODE, add_link
from core.tests.daemon.process import Daemon
from core.tests.netlink.attach import attach_pass, attach_pass_by_link
from core.tests.plugins.build import LIMITER, make_plugin

BAD = NODE.replace("ports = [53]", "ports = [70000]\ncolor = 1")


def send(port: int, interface: str = "t1") -> None:
    """One UDP packet into the chain on the other side of the link."""
    header = bytes.fromhex("02000000000102000000000208004500001e00000000401100000a0000010a000002")
    frame = header + (1000).to_bytes(2) + port.to_bytes(2) + (10).to_bytes(2) + bytes(4) + bytes(30)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        raw.send(frame)


def counts(daemon: Daemon, code: int = 0) -> dict[tuple[str, str, str], int]:
    """Packets by instance, verdict and reason, as `status` tells them; without what IPv6 sends by itself."""
    places = daemon.data("status", code=code)["places"]
    return {
        (hop["instance"], count["verdict"], count["reason"]): count["packets"]
        for place in places
        for hop in place["hops"]
        for count in hop["counts"]
        if count["verdict"] == "DROP"
    }


def chains(daemon: Daemon, code: int = 0) -> dict[str, list[str]]:
    """The chains by interface, as the kernel has them."""
    return {place["interface"]: place["in_kernel"] for place in daemon.data("status", code=code)["places"]}


def test_a_configured_chain_runs_and_is_shown(daemon: Daemon, link: str) -> None:
    daemon.start()
    for _ in range(3):
        send(53)
    send(54)

    assert chains(daemon) == {"t0": ["limiter"]}
    assert counts(daemon) == {("limiter", "DROP", "listed"): 3}
    text = daemon.cli("status")
    assert "  limiter → PASS\n" in text
    assert "listed" in text
    assert "limiter_ports        1        16" in text
    assert "\nPORT\n  53\n" in daemon.cli("show", "limiter")
    assert "1 of 1 entries; capacity 16" in daemon.cli("show", "limiter", "limiter_ports")
    assert daemon.data("show", "limiter", "limiter_ports")["elements"] == [{"key": 53, "value": 1}]
    assert daemon.end() == 0


def test_the_doctor_finds_a_daemon_that_may_too_little(daemon: Daemon, link: str) -> None:
    daemon.spawn("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    daemon.wait_for(lambda: daemon.events("ready"))

    found = {one["subject"]: one for one in daemon.data("doctor")["findings"]}

    assert (found["capabilities"]["state"], found["daemon's capabilities"]["state"]) == ("ok", "warn")
    assert "CAP_NET_ADMIN" in found["daemon's capabilities"]["text"]
    assert "--systemd-unit" in found["daemon's capabilities"]["hint"]


def test_the_chain_outlives_the_daemon_and_status_reads_it_from_the_kernel(daemon: Daemon, link: str) -> None:
    daemon.start()
    daemon.end()
    send(53)

    assert counts(daemon, code=ExitCode.DAEMON) == {("limiter", "DROP", "listed"): 1}
    assert "xdpchaind is not running" in daemon.cli("status", code=ExitCode.DAEMON)


def test_unload_takes_it_away_without_a_daemon(daemon: Daemon, link: str) -> None:
    daemon.start()
    daemon.end()

    assert "detached" in daemon.cli("unload", "--yes")
    assert chains(daemon, code=ExitCode.DAEMON) == {}
    assert daemon.data("unload") == {"removed": []}


def test_a_daemon_unloads_and_applies_again(daemon: Daemon, link: str) -> None:
    daemon.start()

    daemon.cli("unload", "--yes")

    status = daemon.data("status")
    assert (status["places"], status["config"]["origin"]) == ([], "none")
    assert "nothing is applied" in daemon.cli("status")
    add_link("t2", "t3")
    subprocess.run(["ip", "link", "del", "t2"], check=True)
    assert chains(daemon) == {}
    daemon.cli("apply")
    assert chains(daemon) == {"t0": ["limiter"]}
    assert "owned by another xdpchaind" in refused_start(daemon, ExitCode.DAEMON, XDPCHAIN_STATE=str(daemon.base / "other"))


def refused_start(daemon: Daemon, code: int, **environment: str) -> str:
    """What a second daemon says that must not start."""
    done = subprocess.run(
        [sys.executable, "-c", "from xdpchain.daemon.main import main; main()"],
        env={**daemon.environment, **environment},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def test_there_is_one_daemon_for_a_node(daemon: Daemon, link: str, tmp_path: Path) -> None:
    daemon.start()
    assert daemon.process is not None

    assert f"owned by another xdpchaind (pid {daemon.process.pid})" in refused_start(daemon, ExitCode.DAEMON)
    assert "owned by another xdpchaind" in refused_start(daemon, ExitCode.DAEMON, XDPCHAIN_STATE=str(tmp_path / "other"))
    assert chains(daemon) == {"t0": ["limiter"]}


def test_a_killed_daemon_hinders_nothing_and_is_followed_by_the_next(daemon: Daemon, link: str) -> None:
    daemon.start()
    daemon.end(signal.SIGKILL)
    send(53)
    daemon.start()
    send(53)

    assert counts(daemon) == {("limiter", "DROP", "listed"): 2}
    assert chains(daemon) == {"t0": ["limiter"]}


def test_a_bad_file_at_the_first_start_ends_it_with_all_problems(daemon: Daemon, link: str) -> None:
    daemon.configure(BAD)
    daemon.spawn()
    assert daemon.process is not None

    assert daemon.process.wait(30) == ExitCode.CONFIG
    assert {event["key"] for event in daemon.events("config_problem")} == {"function.limiter.ports[0]", "function.limiter.color"}
    assert daemon.events("start_failed")[0]["exit_code"] == ExitCode.CONFIG
    assert chains(daemon, code=ExitCode.DAEMON) == {}


def test_a_bad_file_at_a_later_start_means_the_last_good_one(daemon: Daemon, link: str) -> None:
    daemon.start()
    daemon.end()
    daemon.configure(BAD)
    daemon.start()

    assert daemon.events("last_good_used")
    status = daemon.data("status")
    assert status["config"]["origin"] == "last good"
    assert len(status["config"]["error"]["problems"]) == 2
    assert "the last good configuration runs, not" in daemon.cli("status")
    assert chains(daemon) == {"t0": ["limiter"]}


@pytest.mark.parametrize("how", ["signal", "reload", "apply"])
def test_a_bad_file_keeps_what_runs(daemon: Daemon, link: str, how: str) -> None:
    daemon.start()
    send(53)
    daemon.configure(BAD)

    if how == "signal":
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: daemon.events("config_refused"))
    else:
        text = daemon.cli(how, code=ExitCode.CONFIG)
        assert f"{daemon.file}:8: function.limiter.ports[0]: " in text
        assert "error: 2 errors in the configuration" in text

    send(53)
    assert counts(daemon) == {("limiter", "DROP", "listed"): 2}
    text = daemon.cli("status")
    assert "the newest configuration was refused: 2 errors" in text
    assert "and 1 more: xdpchain check" in text
    assert "the file differs now" in text
    daemon.configure(NODE)
    daemon.cli("apply")
    assert "refused" not in daemon.cli("status")


def test_sighup_applies_the_file_again(daemon: Daemon, link: str) -> None:
    daemon.start()
    assert daemon.process is not None
    daemon.configure(NODE.replace("[53]", "[54]"))

    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda: len(daemon.events("applied")) == 2)

    send(53)
    send(54)
    assert counts(daemon) == {("limiter", "DROP", "listed"): 1}
    assert daemon.events("applied")[1]["actions"] == ["configure limiter"]


def test_a_plan_tells_and_changes_nothing(daemon: Daemon, link: str) -> None:
    assert [action["action"] for action in daemon.data("plan")["actions"]] == ["make", "attach"]
    assert "its start would do this" in daemon.cli("plan")
    assert chains(daemon, code=ExitCode.DAEMON) == {}
    daemon.start()
    assert "nothing to do" in daemon.cli("plan")
    daemon.configure(NODE.replace("[53]", "[54]"))

    assert [action["action"] for action in daemon.data("plan")["actions"]] == ["configure"]
    send(53)
    assert counts(daemon) == {("limiter", "DROP", "listed"): 1}


def test_another_file_may_be_applied_and_says_so(daemon: Daemon, link: str, tmp_path: Path) -> None:
    daemon.start()
    other = tmp_path / "other" / "node.toml"
    other.parent.mkdir()
    other.write_text(NODE.replace("[53]", "[1, 2]"))

    daemon.cli("apply", "--config", str(other))

    assert [element["key"] for element in daemon.data("show", "limiter", "limiter_ports")["elements"]] in ([1, 2], [2, 1])
    assert f"{other} applied" in daemon.cli("status")


def test_rollback_returns_survives_a_restart_and_ends_with_apply(daemon: Daemon, link: str) -> None:
    daemon.start()
    assert "no configuration to go back to" in daemon.cli("rollback", code=ExitCode.DAEMON)
    daemon.configure(NODE.replace("[53]", "[54]"))
    daemon.cli("apply")

    daemon.cli("rollback")

    assert listed(daemon) == {53}
    assert "rolled back" in daemon.cli("status")
    daemon.end()
    daemon.start()
    assert daemon.events("rollback_kept")
    assert listed(daemon) == {53}
    daemon.cli("rollback")
    assert listed(daemon) == {54}
    assert daemon.data("status")["config"]["origin"] == "file"
    daemon.cli("rollback")
    daemon.cli("apply")
    assert listed(daemon) == {54}
    daemon.end()
    daemon.start()
    assert not daemon.events("rollback_kept")


def listed(daemon: Daemon) -> set[int]:
    return {element["key"] for element in daemon.data("show", "limiter", "limiter_ports")["elements"]}


def test_a_chain_waits_for_its_interface_and_follows_it(daemon: Daemon) -> None:
    daemon.configure(NODE.replace("[interface.t0]", '[interface."tap*"]'))
    daemon.start()
    assert daemon.data("status")["waiting"] == ["tap*"]
    assert "waiting   tap*: no such interface now" in daemon.cli("status")

    add_link("tap0", "p0")
    daemon.wait_for(lambda: chains(daemon) == {"tap0": ["limiter"]})
    add_link("x1", "p1")
    subprocess.run(["ip", "link", "set", "x1", "name", "tap1"], check=True)
    daemon.wait_for(lambda: chains(daemon) == {"tap0": ["limiter"], "tap1": ["limiter"]})
    send(53, "p1")
    assert sum(counts(daemon).values()) == 1
    subprocess.run(["ip", "link", "set", "tap1", "name", "x1"], check=True)
    daemon.wait_for(lambda: chains(daemon) == {"tap0": ["limiter"]})
    subprocess.run(["ip", "link", "del", "tap0"], check=True)
    daemon.wait_for(lambda: chains(daemon) == {})
    subprocess.run(["ip", "link", "del", "x1"], check=True)


def test_a_chain_that_cannot_follow_is_told_and_tried_again_at_the_next_change(daemon: Daemon, link: str) -> None:
    """Meanwhile nothing can be pinned."""
    daemon.configure(NODE + '[interface.tap0]\nchain = ["limiter"]\n')
    daemon.start()
    subprocess.run(["mount", "-o", "remount,bind,ro", str(daemon.root.parent)], check=True)
    subprocess.run(["ip", "link", "add", "tap0", "type", "veth", "peer", "name", "p0"], check=True)
    daemon.wait_for(lambda: daemon.events("interface_failed"))
    assert "the chains could not follow the interfaces" in daemon.cli("status")
    assert chains(daemon) == {"t0": ["limiter"]}

    subprocess.run(["mount", "-o", "remount,bind,rw", str(daemon.root.parent)], check=True)
    subprocess.run(["ip", "link", "set", "tap0", "up"], check=True)
    daemon.wait_for(lambda: "tap0" in chains(daemon))

    assert daemon.data("status")["interfaces_error"] is None
    subprocess.run(["ip", "link", "del", "tap0"], check=True)


@pytest.mark.parametrize("attach", [attach_pass, attach_pass_by_link])
def test_a_foreign_program_is_reported_never_replaced_and_followed_when_it_goes(
    daemon: Daemon, link: str, attach: Callable[[str], contextlib.AbstractContextManager[int]]
) -> None:
    with attach("t0") as number:
        daemon.start()
        assert "another XDP program" in daemon.data("status")["blocked"]["t0"]
        assert "blocked   t0" in daemon.cli("status")
        assert daemon.events("interface_blocked")
        assert f"id {number}" in daemon.cli("apply", code=ExitCode.INTERFACE)
        daemon.cli("apply", "--blocked-ok")
        assert chains(daemon) == {}

    daemon.wait_for(lambda: chains(daemon) == {"t0": ["limiter"]})
    assert daemon.data("status")["blocked"] == {}


def test_a_broken_plugin_harms_nobody_and_is_in_the_status(daemon: Daemon, link: str, tmp_path: Path) -> None:
    make_plugin(tmp_path / "plugins", "sick", "1 / 0")
    daemon.start()

    assert daemon.events("plugin_broken")[0]["plugin"] == "sick"
    assert chains(daemon) == {"t0": ["limiter"]}
    assert "broken    plugin 'sick': cannot be imported" in daemon.cli("status")
    daemon.configure(NODE + "[function.sick]\n")
    assert "division by zero" in daemon.cli("apply", code=ExitCode.CONFIG)


def test_plugin_code_that_raises_is_told_and_changes_nothing(daemon: Daemon, link: str, tmp_path: Path) -> None:
    hook = "\n@xdpchain.hookimpl\ndef xdpchain_applied(plan):\n    raise OSError('hook')\n"
    python = LIMITER.replace("def metrics(self, config, maps):", "def metrics(self, config, maps):\n        raise OSError('metrics')")
    python = python.replace("def status(self, config, maps):", "def status(self, config, maps):\n        raise OSError('status')")
    make_plugin(tmp_path / "plugins", "moody", python + hook)
    daemon.configure(NODE.replace('chain = ["limiter"]', 'chain = ["limiter", "moody"]'))
    daemon.start()

    assert chains(daemon) == {"t0": ["limiter", "moody"]}
    assert "status() raised OSError: status" in daemon.cli("show", "moody", code=ExitCode.PLUGIN)
    text = daemon.cli("metrics")
    assert 'xdpchain_limiter_listed_ports{instance="limiter"} 1.0' in text
    assert "xdpchain_moody_listed_ports" not in text
    daemon.cli("metrics")
    failures = [event.get("error", "") for event in daemon.events("plugin_failed")]
    assert sorted("hook" in one or "metrics" in one for one in failures) == [True, True]


def test_a_configure_that_raises_undoes_the_apply(daemon: Daemon, link: str, tmp_path: Path) -> None:
    python = LIMITER.replace(
        "def configure(self, old, new, maps):", "def configure(self, old, new, maps):\n        raise OSError('handler')"
    )
    make_plugin(tmp_path / "plugins", "moody", python)
    daemon.start()
    send(53)
    daemon.configure(NODE.replace('chain = ["limiter"]', 'chain = ["moody", "limiter"]'))

    assert "OSError" in daemon.cli("apply", code=ExitCode.PLUGIN)

    send(53)
    assert chains(daemon) == {"t0": ["limiter"]}
    assert counts(daemon) == {("limiter", "DROP", "listed"): 2}
    assert daemon.events("apply_failed")


def test_the_daemon_answers_while_an_apply_takes_its_time(daemon: Daemon, link: str, tmp_path: Path) -> None:
    slow = LIMITER.replace(
        "def configure(self, old, new, maps):", "def configure(self, old, new, maps):\n        import time; time.sleep(3)"
    )
    make_plugin(tmp_path / "plugins", "slow", slow)
    daemon.start()
    daemon.configure(NODE.replace('chain = ["limiter"]', 'chain = ["limiter", "slow"]'))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)

    begin = time.monotonic()
    assert chains(daemon) == {"t0": ["limiter"]}
    assert time.monotonic() - begin < 2.4
    daemon.wait_for(lambda: chains(daemon) == {"t0": ["limiter", "slow"]})


def test_metrics_are_served_with_the_numbers_of_status(daemon: Daemon, link: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    daemon.configure(NODE.replace('"off"', f'"{address}"'))
    daemon.start()
    send(53)

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    assert 'xdpchain_packets_total{hook="xdp",instance="limiter",interface="t0",reason="listed",verdict="drop"} 1.0' in text
    assert 'xdpchain_limiter_seen_udp_total{instance="limiter",key="0"} 1.0' in text
    assert 'xdpchain_map_entries{instance="limiter",map="limiter_ports"} 1.0' in text
    assert 'xdpchain_generation{hook="xdp",interface="t0"} 1.0' in text
    assert 'xdpchain_applies_total{result="applied"} 1.0' in text
    assert 'xdpchain_interface_state{interface="t0",state="attached"} 1.0' in text
    daemon.configure(NODE)
    daemon.cli("apply")
    assert daemon.data("status")["metrics"]["address"] == "off"


def test_a_metrics_port_that_is_taken_is_no_reason_to_fail(daemon: Daemon, link: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        daemon.configure(NODE.replace('"off"', f'"127.0.0.1:{other.getsockname()[1]}"'))
        daemon.start()

        assert daemon.events("metrics_unavailable")
        assert "metrics are not served" in daemon.cli("status")
        assert chains(daemon) == {"t0": ["limiter"]}


def test_the_service_manager_hears_of_everything(daemon: Daemon, link: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        daemon.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        told: list[str] = []
        listener = threading.Thread(target=read_all, args=(manager, told))
        listener.start()
        daemon.start()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: len(daemon.events("applied")) == 2)
        daemon.end()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(tmp_path / "notify"))
        listener.join()

    words = [line.partition("=")[0] for datagram in told for line in datagram.splitlines()]
    assert [word for word in words if word in {"READY", "RELOADING", "STOPPING"}] == ["READY", "RELOADING", "READY", "STOPPING"]
    assert words.count("WATCHDOG") >= 2
    assert any("1 instances in 1 chains" in datagram for datagram in told)


def read_all(manager: socket.socket, told: list[str]) -> None:
    """What is sent until something empty is."""
    while datagram := manager.recv(4096).decode():
        told.append(datagram)


def test_the_last_good_files_are_kept_with_conf_d(daemon: Daemon, link: str) -> None:
    (daemon.file.parent / "conf.d").mkdir()
    (daemon.file.parent / "conf.d" / "room.toml").write_text("[function.limiter]\nroom = 20\n")
    daemon.start()
    daemon.end()
    good = daemon.base / "state" / "applied" / "good"

    assert (good / "node.toml").read_text() == NODE
    assert (good / "conf.d" / "room.toml").read_text() == "[function.limiter]\nroom = 20\n"
    assert json.loads((good.parent / "record.json").read_text()) == {"source": str(daemon.file), "rolled_back": False}


def test_a_state_directory_that_cannot_be_read_is_told(daemon: Daemon, link: str) -> None:
    daemon.start()
    daemon.end()
    (daemon.base / "state" / "applied" / "record.json").write_text("{")
    daemon.start()

    assert daemon.events("state_unusable")
    assert chains(daemon) == {"t0": ["limiter"]}


def test_unknown_things_to_show_name_the_known_ones(daemon: Daemon, link: str) -> None:
    daemon.start()

    assert "hint: running are: limiter" in daemon.cli("show", "ratelimit", code=ExitCode.DAEMON)
    assert "hint: its maps: limiter_ports, limiter_seen" in daemon.cli("show", "limiter", "x", code=ExitCode.DAEMON)
    error: Any = daemon.data("show", "ratelimit", code=ExitCode.DAEMON)["error"]
    assert error["message"] == "no instance is called 'ratelimit'"
