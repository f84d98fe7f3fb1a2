# SPDX-License-Identifier: Apache-2.0
"""Captures as scapy and tcpdump write them, and captures that something has happened to."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter
from xdpchain.packets import PacketError
from xdpchain.packets.capture import Captured, CaptureWriter, read_capture

FRAMES = [bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1") / UDP() / bytes(n)) for n in range(5)]
TIME_NS = 1_700_000_000_123_456_789
MICROSECOND = 1_000


def pcap(frames: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(f"{order}IIII", 7, 5, len(frame), 2000) + frame for frame in frames)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", link: int = 1, options: bytes = b"") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, 0) + options, order)


def packet(frame: bytes, order: str = "<", number: int = 0, time: int = 0) -> bytes:
    return block(6, struct.pack(f"{order}IIIII", number, time >> 32, time & 0xFFFFFFFF, len(frame), 2000) + frame, order)


def read(data: bytes) -> list[Captured]:
    return list(read_capture(io.BytesIO(data), "test.pcap"))


def data_of(data: bytes) -> list[bytes]:
    return [captured.data for captured in read(data)]


@pytest.mark.parametrize(("nano", "resolution"), [(False, MICROSECOND), (True, 1)])
def test_what_scapy_writes_as_pcap_is_read(tmp_path: Path, nano: bool, resolution: int) -> None:
    path = tmp_path / "x.pcap"
    with PcapWriter(str(path), linktype=1, nano=nano) as writer:
        writer.write_header(None)
        for frame in FRAMES:
            writer.write_packet(frame, sec=TIME_NS // 10**9, usec=TIME_NS % 10**9 // (1 if nano else 1000))

    assert read(path.read_bytes()) == [Captured(TIME_NS // resolution * resolution, frame) for frame in FRAMES]


def test_what_scapy_writes_as_pcapng_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with PcapNgWriter(str(path)) as writer:
        for frame in FRAMES:
            writer.write(Ether(frame))

    assert data_of(path.read_bytes()) == FRAMES


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "time_ns"), [(0xA1B2C3D4, 7_000_005_000), (0xA1B23C4D, 7_000_000_005)])
def test_both_byte_orders_and_resolutions_of_pcap_are_read(order: str, magic: int, time_ns: int) -> None:
    assert read(pcap(FRAMES, order, magic)) == [Captured(time_ns, frame) for frame in FRAMES]


@pytest.mark.parametrize("order", "<>")
def test_both_byte_orders_of_pcapng_are_read(order: str) -> None:
    assert data_of(section(order) + interface(order) + b"".join(packet(frame, order) for frame in FRAMES)) == FRAMES


def test_sections_of_a_pcapng_have_their_own_byte_order_and_interfaces() -> None:
    one = section("<") + interface("<", link=113) + interface("<") + packet(FRAMES[1], "<", number=1)
    other = section(">") + interface(">") + packet(FRAMES[2], ">")

    assert data_of(one + other) == FRAMES[1:3]


def test_blocks_of_other_kinds_are_stepped_over() -> None:
    statistics, secret = block(5, bytes(8)), block(0x0BAD, b"anything at all")

    assert data_of(section() + statistics + interface() + packet(FRAMES[0]) + secret + packet(FRAMES[1])) == FRAMES[:2]


def test_simple_and_old_packet_blocks_are_read() -> None:
    simple = block(3, struct.pack("<I", len(FRAMES[1])) + FRAMES[1])
    old = block(2, struct.pack("<HHIIII", 0, 0, 0, 0, len(FRAMES[2]), 2000) + FRAMES[2])

    assert data_of(section() + interface() + simple + old) == FRAMES[1:3]


@pytest.mark.parametrize(
    ("resolution", "units", "time_ns"), [(9, 1_500, 1_500), (3, 1_500, 1_500_000_000), (0x80 | 10, 1536, 1_500_000_000)]
)
def test_the_resolution_of_times_is_that_of_the_interface(resolution: int, units: int, time_ns: int) -> None:
    options = struct.pack("<HH4s", 2, 4, b"eth0") + struct.pack("<HHB3x", 9, 1, resolution) + bytes(4)

    (captured,) = read(section() + interface(options=options) + packet(FRAMES[0], time=units))
    assert captured.time_ns == time_ns


@pytest.mark.parametrize("data", [pcap([]), section(), section() + interface()], ids=["pcap", "section", "interface"])
def test_a_capture_without_frames_is_empty(data: bytes) -> None:
    assert read(data) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "test.pcap ends where a capture should be"),
        (b"\xd4\xc3", "ends in the middle of a capture"),
        (b"#!/bin/sh\n", "is no capture"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "is compressed"),
        (pcap(FRAMES)[:20], "the header"),
        (pcap(FRAMES, link=113), "link type 113, not of an Ethernet"),
        (section() + interface(link=276) + packet(FRAMES[0]), "link type 276"),
        (section() + packet(FRAMES[0]), "interface 0, which is not described"),
        (section() + block(6, bytes(8)), "too short"),
        (section() + interface()[:-2] + b"xx", "lengths differ"),
        (section() + struct.pack("<II", 1, 13), "a block of 13 bytes"),
        (section() + struct.pack("<II", 1, 2**31), "a block of 2147483648 bytes"),
        (section()[:8] + bytes(20), "without byte order"),
        (section() + interface() + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "99 bytes in a smaller block"),
    ],
)
def test_what_is_no_whole_ethernet_capture_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(PacketError) as caught:
        read(data)

    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("whole", [pcap(FRAMES), section() + interface() + b"".join(map(packet, FRAMES))], ids=["pcap", "pcapng"])
def test_the_frames_before_the_end_of_a_cut_capture_are_given_out(whole: bytes) -> None:
    frames: list[bytes] = []

    def read_all() -> None:
        for captured in read_capture(io.BytesIO(whole[:-3]), "cut.pcap"):
            frames.append(captured.data)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(PacketError, match=r"cut\.pcap ends (in the middle of|where)"):
        read_all()
    assert frames == FRAMES[:-1]


def test_a_record_that_claims_to_be_huge_is_damage_and_not_memory() -> None:
    head = pcap([])

    with pytest.raises(PacketError, match="a frame of 4294967295 bytes"):
        read(head + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF))


def test_a_stream_that_comes_in_pieces_is_read_whole() -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.rest = data

        def read(self, size: int = -1) -> bytes:
            piece, self.rest = self.rest[: min(size, 3)], self.rest[min(size, 3) :]
            return piece

    assert [captured.data for captured in read_capture(Trickle(pcap(FRAMES)), "pipe")] == FRAMES  # type: ignore[arg-type]


@given(st.lists(st.builds(Captured, st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=2000))))
def test_what_is_written_is_what_is_read(frames: list[Captured]) -> None:
    file = io.BytesIO()
    writer = CaptureWriter(file)
    for frame in frames:
        writer.write(frame)

    assert read(file.getvalue()) == frames


@given(st.binary(max_size=300), st.sampled_from([pcap(FRAMES[:1]), section() + interface(), section(">")]))
def test_no_bytes_whatever_make_the_reader_fail_in_another_way(data: bytes, start: bytes) -> None:
    try:
        read(start + data)
        read(data)
    except PacketError:
        pass
