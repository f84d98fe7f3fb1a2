# SPDX-License-Identifier: Apache-2.0
"""What the doctor sees on this machine, and in states that it can be put into."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdpchain.chain.model import Interface
from xdpchain.cli.checks import interfaces, kernel, toolchain
from xdpchain.config import InterfaceConfig, XdpMode
from xdpchain.hookspecs import State

from core.tests.cli.conftest import NODE, Run
from core.tests.netlink.attach import attach_pass
from core.tests.plugins.build import LIMITER, make_plugin


@pytest.fixture
def link() -> Iterator[None]:
    subprocess.run(["ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"], check=True)
    yield
    subprocess.run(["ip", "link", "del", "t0"], check=True)


def findings(run: Run, code: int = 0) -> dict[str, list[tuple[str, str, str]]]:
    """What is found, by subject."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for one in json.loads(run("doctor", "--json", code=code).stdout)["findings"]:
        found.setdefault(one["subject"], []).append((one["state"], one["text"], one["hint"]))
    return found


def test_a_machine_that_can_run_chains_is_fine(run: Run, link: None) -> None:
    found = findings(run)

    assert {"kernel", "capabilities", "bpffs", "JIT", "bcc", "libbpf", "headers", "node's file", "t0", "plugin limiter"} <= set(found)
    assert found["daemon"][0][0] == "warn"
    assert found["t0"][0] == (
        "ok",
        "driver veth can run XDP programs itself; TX and redirect out of it need GRO or an XDP program at its peer",
        "",
    )


def test_everything_that_is_not_fine_says_what_to_do(run: Run, node: Path) -> None:
    node.write_text("[interface.t0]\nchain = 5\n")

    found = findings(run, code=1)

    assert found["node's file"][0][0] == "fail"
    assert f"{node}:2" in found["node's file"][0][1]
    assert all(hint for lines in found.values() for state, _, hint in lines if state != "ok")


def test_a_foreign_program_is_found(run: Run, link: None) -> None:
    with attach_pass("t0", "generic") as number:
        found = findings(run, code=1)

    assert f"another XDP program is attached: id {number} (generic)" in [text for _, text, _ in found["t0"]]


def test_a_directory_that_others_can_write_is_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)

    state, text, hint = findings(run, code=1)["cache directory"][0]

    assert (state, hint) == ("fail", f"chmod go-w {tmp_path / 'cache'}")
    assert "mode 0777" in text


def test_a_plugin_brings_checks_and_a_broken_one_is_a_finding(run: Run, tmp_path: Path, node: Path) -> None:
    hook = """
from xdpchain.hookspecs import Finding, State
@xdpchain.hookimpl
def xdpchain_doctor(config): return [Finding("its NIC", State.WARN, f"{len(config.instances)} instance", "buy another")]
"""
    make_plugin(tmp_path / "plugins", "nic", LIMITER + hook)
    make_plugin(tmp_path / "plugins", "sick", "1 / 0")
    node.write_text(NODE)

    found = findings(run, code=1)

    assert found["its NIC"] == [("warn", "1 instance", "buy another")]
    assert "ZeroDivisionError" in found["plugin sick"][0][1]


def test_lines_are_for_reading(run: Run) -> None:
    lines = run("doctor").stdout.splitlines()

    assert any(line.startswith("ok    kernel ") for line in lines)
    assert any(line.strip().startswith("hint: start it") for line in lines)


@pytest.mark.parametrize(
    ("enabled", "hardened", "states"),
    [(1, 0, ["ok", "ok"]), (0, 0, ["warn", "ok"]), (1, 1, ["ok", "ok"]), (1, 2, ["ok", "warn"]), (None, None, ["ok", "ok"])],
)
def test_settings_of_the_jit_are_judged(enabled: int | None, hardened: int | None, states: list[str]) -> None:
    found = list(kernel.jit(enabled, hardened))

    assert [one.state.value for one in found] == states
    assert all(bool(one.hint) == (one.state is not State.OK) for one in found)


@pytest.mark.parametrize(
    ("mode", "features", "state"),
    [
        (XdpMode.AUTO, {"basic"}, State.OK),
        (XdpMode.AUTO, set(), State.WARN),
        (XdpMode.NATIVE, set(), State.FAIL),
        (XdpMode.GENERIC, set(), State.WARN),
        (XdpMode.NATIVE, None, State.OK),
    ],
)
def test_a_driver_is_judged_by_what_it_can_do_and_what_is_wanted(mode: XdpMode, features: set[str] | None, state: State) -> None:
    settings = InterfaceConfig("eth0", ("a",), mode)

    assert interfaces.driver(Interface(1, "eth0"), settings, None if features is None else frozenset(features)).state is state


@pytest.mark.parametrize(
    ("size", "frags", "features", "count"),
    [(1500, False, set(), 0), (9000, False, {"rx_sg"}, 1), (9000, True, {"rx_sg"}, 0), (9000, True, set(), 1)],
)
def test_jumbo_frames_need_functions_and_a_driver_that_can(size: int, frags: bool, features: set[str], count: int) -> None:
    assert len(list(interfaces.mtu(Interface(1, "eth0", mtu=size), frozenset(features), frags=frags))) == count


@pytest.mark.parametrize(
    ("effective", "state", "missing"),
    [("000001ffffffffff", State.OK, ""), ("0000000000201000", State.OK, ""), ("0000000000200000", State.WARN, "no CAP_NET_ADMIN")]
    + [(effective, State.FAIL, "no CAP_SYS_ADMIN") for effective in ("000001ffffdfffff", "0000000000001000", "0000000000000000")],
)
def test_a_missing_capability_is_named(effective: str, state: State, missing: str) -> None:
    found = kernel.capabilities(f"Name:\txdpchaind\nCapPrm:\t0000000000000000\nCapEff:\t{effective}\n", "its capabilities", "more of them")

    assert (state, missing in found.text) == (found.state, True)
    assert found.hint == ("more of them" if missing else "")


def test_missing_tools_are_named_with_their_package(tmp_path: Path) -> None:
    headers, bcc = toolchain._headers(tmp_path), toolchain._bcc("/nonexistent/python3")

    assert (headers.state, headers.hint) == (State.FAIL, "apt install linux-libc-dev")
    assert (bcc.state, "python3-bpfcc" in bcc.hint) == (State.FAIL, True)
