# SPDX-License-Identifier: Apache-2.0
"""The command `xdpchain trace`, with real programs in the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.errors import ExitCode, KernelError
from xdpchain.packets.capture import Captured, CaptureWriter, read_capture
from xdpchain.packets.notation import frame_of

from core.tests.trace.conftest import Trace

NEAR, FAR, FAR_6, FREE = (
    frame_of(packet / TCP()) for packet in (IP(src="10.1.0.1"), IP(src="10.2.0.1"), IPv6(src="2001:db8:bad::1"), IP(src="10.3.0.1"))
)
FRAMES = [FREE, NEAR, FAR, FREE, FAR_6]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write(tmp_path / "in.pcap", FRAMES)


def write(path: Path, frames: list[bytes]) -> Path:
    with path.open("wb") as file:
        writer = CaptureWriter(file)
        for index, frame in enumerate(frames):
            writer.write(Captured(index * 1_000, frame))
    return path


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_each_frame_is_one_object_in_a_line(trace: Trace, capture: Path) -> None:
    done = trace("--pcap", capture, "--json")

    assert done.exit_code == 0
    end: dict[str, Any] = {"verdict": "PASS", "function": None, "reason": "end_of_chain", "path": ["near", "geoblock"]}
    near: dict[str, Any] = {"verdict": "DROP", "function": "near", "reason": "blocked", "path": ["near"]}
    far: dict[str, Any] = {"verdict": "DROP", "function": "geoblock", "reason": "blocked", "path": ["near", "geoblock"]}
    wanted = [{"index": at, **one, "packet": FRAMES[at].hex()} for at, one in enumerate((end, near, far, end, far))]
    assert lines(done.stdout) == wanted


def test_for_people_a_frame_is_a_line_with_its_way_and_who_decided(trace: Trace, capture: Path) -> None:
    done = trace("--pcap", capture)

    assert [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()] == ["0", "1", "2", "3", "4"]
    assert "10.1.0.1:20 > 127.0.0.1:80 TCP S, 54 bytes" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[1].endswith("near → DROP (by near, blocked)")
    assert done.stdout.splitlines()[2].endswith("near → geoblock → DROP (by geoblock, blocked)")
    assert done.stdout.splitlines()[3].endswith("near → geoblock → PASS (end_of_chain)")


def test_frames_that_leave_are_written_with_their_times(trace: Trace, capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"

    trace("--pcap", capture, "--out", out)

    with out.open("rb") as file:
        assert list(read_capture(file, "out")) == [Captured(0, FREE), Captured(3_000, FREE)]


def test_a_packet_in_notation_is_sent(trace: Trace) -> None:
    done = trace("--packet", 'IP(src=["10.1.0.1", "10.2.0.1"])/TCP()', "--json")

    assert [(line["function"], line["packet"]) for line in lines(done.stdout)] == [("near", NEAR.hex()), ("geoblock", FAR.hex())]


def test_a_packet_is_sent_as_often_as_asked(trace: Trace) -> None:
    done = trace("--packet", "IP()/TCP()", "--count", "3", "--json")

    assert [line["index"] for line in lines(done.stdout)] == [0, 1, 2]


def test_the_egress_chain_is_another_one(trace: Trace, capture: Path) -> None:
    done = trace("--pcap", capture, "--egress", "--json")

    assert {(line["verdict"], tuple(line["path"])) for line in lines(done.stdout)} == {("PASS", ())}


def test_a_frame_that_cannot_be_run_carries_the_error_and_the_next_ones_go_on(trace: Trace, tmp_path: Path) -> None:
    done = trace("--pcap", write(tmp_path / "in.pcap", [b"short", NEAR]), "--json", "--out", tmp_path / "out.pcap")

    short, near = lines(done.stdout)
    assert done.exit_code == 0
    assert (short["verdict"], short["function"], short["packet"]) == (None, None, b"short".hex())
    assert "shorter than an Ethernet header" in short["error"]
    assert (near["index"], near["verdict"], "error" in near) == (1, "DROP", False)
    with (tmp_path / "out.pcap").open("rb") as file:
        assert list(read_capture(file, "out")) == []


def test_an_empty_capture_prints_nothing(trace: Trace, tmp_path: Path) -> None:
    done = trace("--pcap", write(tmp_path / "in.pcap", []), "--json")

    assert (done.exit_code, done.output) == (0, "")


def test_a_cut_capture_is_an_error_after_the_frames_before_it(trace: Trace, capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-1])

    done, as_json = trace("--pcap", capture), trace("--pcap", capture, "--json")

    assert done.exit_code == as_json.exit_code == ExitCode.USAGE
    assert len(done.stdout.splitlines()) == 4
    assert "ends in the middle of a frame" in done.stderr
    *frames, last = lines(as_json.stdout)
    assert [frame["index"] for frame in frames] == [0, 1, 2, 3]
    assert last["error"]["exit_code"] == ExitCode.USAGE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either --pcap or --packet"),
        (("--pcap", "-", "--packet", "IP()"), "either --pcap or --packet"),
        (("--pcap", "-", "--count", "2"), "--count goes with --packet"),
        (("--pcap", "no-such-file"), "does not exist"),
        (("--packet", "IP()", "--count", "0"), "--count"),
        (("--packet", "IP()", "--out", "/no/such/directory/out.pcap"), "cannot be written"),
        (("--packet", "open('x')"), "no layer 'open'"),
    ],
)
def test_wrong_usage_is_told(trace: Trace, arguments: tuple[str, ...], words: str) -> None:
    done = trace(*arguments)

    assert done.exit_code == ExitCode.USAGE
    assert words in done.stderr


def test_the_capture_that_is_read_is_not_written(trace: Trace, capture: Path) -> None:
    before = capture.read_bytes()

    done = trace("--pcap", capture, "--out", capture)

    assert done.exit_code == ExitCode.USAGE
    assert capture.read_bytes() == before


def test_problems_of_the_config_are_shown_as_by_check(trace: Trace, config: Path) -> None:
    config.write_text('[interface.eth0]\nchain = ["geoblok", "geoblock"]\n[function.geoblock]\nprefixes = ["10.0.0.1/8"]\n')

    done = trace("--packet", "IP()")

    assert done.exit_code == ExitCode.CONFIG
    assert f"{config}:2: interface.eth0.chain[0]: " in done.stderr
    assert f"{config}:4: function.geoblock.prefixes[0]: " in done.stderr


def test_an_interface_without_a_chain_is_an_error_that_names_the_others(trace: Trace) -> None:
    done = trace("--packet", "IP()", "--interface", "eth7")

    assert done.exit_code == ExitCode.CONFIG
    assert "configured are: eth0" in done.stderr


def test_nothing_is_left_in_the_kernel(trace: Trace, capture: Path) -> None:
    trace("--pcap", capture)

    assert program_names().isdisjoint({b"near", b"geoblock"})


def program_names() -> set[bytes]:
    names = set()
    for number in libbpf.program_ids():
        with contextlib.suppress(KernelError):  # somebody else's may be gone by now
            names.add(libbpf.prog_info(Handle(libbpf.prog_by_id(number)).fd).raw_name)
    return names


def test_standard_input_is_read_as_it_comes(installed: Path, config: Path, cache: Path, capture: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from xdpchain.cli import main; main()",
        "trace",
        "--config",
        str(config),
        "--cache",
        str(cache),
        "--interface",
        "eth0",
        "--pcap",
        "-",
    ]
    paths = os.pathsep.join(sys.path)
    data = capture.read_bytes()

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data[:-1])
        process.stdin.flush()
        first = [process.stdout.readline() for _ in range(4)]
        process.stdin.write(data[-1:])
        rest, _ = process.communicate()

    assert [line.split()[0] for line in first] == [b"0", b"1", b"2", b"3"]
    assert [line.split()[0] for line in rest.splitlines()] == [b"4"]
    assert process.returncode == 0


def test_the_summary_of_a_packet_that_was_changed_says_what_it_is_now() -> None:
    from xdpchain.chain.model import Frame
    from xdpchain.cli.trace import frame_text
    from xdpchain.function import Verdict

    packet: Packet = IP(src="10.9.9.9", dst="10.0.0.2") / TCP()
    text = click.unstyle(frame_text(Frame(0, Verdict.TX, "elb", "", ["elb"], frame_of(packet)), FREE))

    assert text.endswith("elb → TX (by elb)  now 10.9.9.9:20 > 10.0.0.2:80 TCP S, 54 bytes")
