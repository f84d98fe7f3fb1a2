# SPDX-License-Identifier: Apache-2.0
"""Server ids in packets: found where they are, and nothing found where none is, however hostile the packet."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain

from plugins.elb.tests.packets import ETHER, QINQ, TO4, TO6, VLAN
from plugins.elb.tests.probe import ask, load

ASK = """
	talk->result = elb_{kind}_id(packet);
"""
BELOW = [TO4, TO6, VLAN / TO4, QINQ / TO6, TO6 / IPv6ExtHdrDestOpt()]
OPTION = b"\xb7\x06\x04\x03\x02\x01"
INITIAL, ZERO_RTT, HANDSHAKE, RETRY, SHORT = 0xC0, 0xD0, 0xE0, 0xF0, 0x40

often = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def quic(load_chain: LoadChain, tmp_path: Path) -> LoadedChain:
    return load(load_chain, tmp_path, ASK.format(kind="quic"))


@pytest.fixture
def tcp(load_chain: LoadChain, tmp_path: Path) -> LoadedChain:
    return load(load_chain, tmp_path, ASK.format(kind="tcp"))


@pytest.fixture
def stable(load_chain: LoadChain, tmp_path: Path) -> LoadedChain:
    return load(load_chain, tmp_path, ASK.format(kind="stable"))


def short(connection_id: bytes, flags: int = SHORT) -> bytes:
    return bytes([flags]) + connection_id


def long(connection_id: bytes, flags: int = HANDSHAKE, length: int | None = None) -> bytes:
    return bytes([flags]) + b"\0\0\0\1" + bytes([len(connection_id) if length is None else length]) + connection_id


def datagram(payload: bytes, below: Packet = TO4) -> Packet:
    return ETHER / below / UDP(sport=40000, dport=443) / Raw(payload)


def segment(options: bytes, below: Packet = TO4, flags: str = "A") -> Packet:
    padded = options + b"\0" * (-len(options) % 4)
    return ETHER / below / TCP(sport=40000, dport=443, flags=flags, dataofs=5 + len(padded) // 4) / Raw(padded)


CONNECTION_IDS = {
    "version 0": (bytes([0x3F, *b"\xff" * 7]), 0),
    "version 1": (bytes([0x6A, 0xBC, 0xDF, 1, 2, 3, 4, 5]), 0x2A << 10 | 0xBC << 2 | 3),
    "version 1, highest": (bytes([0x7F, 0xFF, 0xC0, 0, 0, 0, 0, 0]), 0xFFFF),
    "version 1, none": (bytes([0x40, 0, 0x3F, 9, 9, 9, 9, 9]), 0),
    "version 2": (bytes([0xBF, 0x12, 0x34, 0x56, 9, 9, 9, 9]), 0x123456),
    "version 3": (bytes([0xFF, 0x12, 0x34, 0x56, 0x78, 9, 9, 9]), 0x12345678),
    "version 3, highest": (bytes([0xC0, *b"\xff" * 7]), 0xFFFFFFFF),
}


def test_a_connection_id_names_a_server_in_three_versions_and_both_header_forms(quic: LoadedChain) -> None:
    for below, (connection_id, server) in itertools.product(BELOW, CONNECTION_IDS.values()):
        assert server == ask(quic, datagram(short(connection_id), below))
        assert server == ask(quic, datagram(long(connection_id), below))
        assert server == ask(quic, datagram(long(connection_id + bytes(12), RETRY), below))


def test_the_ids_of_the_first_packets_are_the_clients_own(quic: LoadedChain) -> None:
    connection_id, _ = CONNECTION_IDS["version 2"]

    for flags in (INITIAL, INITIAL | 0x0F, ZERO_RTT, ZERO_RTT | 0x0F):
        assert ask(quic, datagram(long(connection_id, flags))) == 0


def test_a_connection_id_of_less_than_eight_bytes_names_nobody(quic: LoadedChain) -> None:
    connection_id, server = CONNECTION_IDS["version 2"]

    for length in range(8):
        assert ask(quic, datagram(long(connection_id, length=length))) == 0
        assert ask(quic, datagram(long(connection_id[:length]))) == 0
        assert ask(quic, datagram(short(connection_id[:length]))) == 0
    assert server == ask(quic, datagram(long(connection_id, length=8)))
    assert server == ask(quic, datagram(long(connection_id, length=255)))


def test_a_packet_that_is_cut_short_anywhere_has_its_id_or_none(quic: LoadedChain) -> None:
    connection_id, server = CONNECTION_IDS["version 3"]
    for payload, needed in ((short(connection_id), 9), (long(connection_id), 14)):
        frame = bytes(datagram(payload + b"data"))
        for length in range(14, len(frame) + 1):
            assert (server if length >= 42 + needed else 0) == ask(quic, frame[:length])


def test_what_is_no_udp_has_no_connection_id(quic: LoadedChain) -> None:
    assert ask(quic, ETHER / TO4 / TCP() / Raw(b"\xff" * 40)) == 0
    assert ask(quic, ETHER / TO4 / ICMP() / Raw(b"\xff" * 40)) == 0
    assert ask(quic, bytes(60)) == 0


OPTIONS = {
    "alone": OPTION,
    "first": OPTION + b"\x08\x0a" + bytes(8),
    "behind timestamps": b"\x01\x01\x08\x0a" + bytes(8) + OPTION,
    "behind SACK": b"\x01\x01\x05\x0a" + bytes(8) + b"\x01\x01" + OPTION,
    "at the very end": b"\x01\x01\x08\x0a" + bytes(8) + b"\x05\x12" + bytes(16) + b"\x01\x01" + OPTION,
    "fifteenth": b"\x01" * 14 + OPTION,
    "twice": OPTION + b"\xb7\x06\xff\xff\xff\xff",
}
NO_OPTIONS = {
    "none": b"",
    "others": b"\x02\x04\x05\xb4\x01\x03\x03\x07",
    "behind the end of the list": b"\x00\x01" + OPTION,
    "too short": b"\xb7\x05\x04\x03\x02\x01\x01\x01",
    "too long": b"\xb7\x08\x04\x03\x02\x01\x00\x00",
    "zero": b"\xb7\x06\x00\x00\x00\x00",
    "behind one of no length": b"\x08\x00" + OPTION,
    "behind one of length 1": b"\x08\x01" + OPTION,
    "behind one that is longer than the header": b"\x08\xff" + OPTION,
    "inside another": b"\x08\x0a" + OPTION + b"\x01\x01\x01\x01",
    "behind too many": b"\x01" * 16 + OPTION,
}


def test_a_tcp_option_names_a_server(tcp: LoadedChain) -> None:
    for below, (case, options) in itertools.product(BELOW, OPTIONS.items()):
        assert ask(tcp, segment(options, below)) == 0x01020304, case
    for below, (case, options) in itertools.product(BELOW, NO_OPTIONS.items()):
        assert ask(tcp, segment(options, below)) == 0, case


def test_a_syn_names_nobody(tcp: LoadedChain) -> None:
    assert ask(tcp, segment(OPTION, flags="S")) == 0
    assert ask(tcp, segment(OPTION, flags="SA")) == 0
    assert ask(tcp, segment(OPTION, flags="FPRA")) == 0x01020304


def test_an_option_behind_the_end_of_the_header_is_data(tcp: LoadedChain) -> None:
    for words in range(5):
        packet = ETHER / TO4 / TCP(flags="A", dataofs=words) / Raw(OPTION)
        assert ask(tcp, packet) == 0
    assert ask(tcp, ETHER / TO4 / TCP(flags="A", dataofs=6) / Raw(OPTION)) == 0


def test_a_segment_that_is_cut_short_anywhere_has_its_id_or_none(tcp: LoadedChain) -> None:
    frame = bytes(segment(b"\x01\x01\x08\x0a" + bytes(8) + OPTION))
    for length in range(14, len(frame) + 1):
        assert (0x01020304 if length >= 54 + 18 else 0) == ask(tcp, frame[:length])


def server_of(options: bytes) -> int:
    """The plain walk through the options of a segment."""
    at = 0
    for _ in range(15):
        if at + 6 > len(options) or options[at] == 0:
            return 0
        if options[at] == 0xB7:
            return int.from_bytes(options[at + 2 : at + 6], "little") if options[at + 1] == 6 else 0
        if options[at] != 1 and options[at + 1] < 2:
            return 0
        at += 1 if options[at] == 1 else options[at + 1]
    return 0


some_options = st.lists(
    st.one_of(
        st.just(OPTION),
        st.just(b"\x01"),
        st.integers(2, 10).flatmap(
            lambda length: st.binary(min_size=length - 2, max_size=length - 2).map(lambda data: bytes([8, length]) + data)
        ),
        st.binary(min_size=1, max_size=4),
    )
)


@often
@given(options=some_options.map(lambda parts: b"".join(parts)[:40]))
def test_any_options_are_walked_as_a_host_walks_them(tcp: LoadedChain, options: bytes) -> None:
    padded = options + b"\0" * (-len(options) % 4)

    assert server_of(padded) == ask(tcp, segment(options))


def test_a_header_of_stable_routing_names_a_server(stable: LoadedChain) -> None:
    for below in BELOW:
        assert ask(stable, datagram(b"\x52\x12\x34\x56\xff\xff\xff\xff", below)) == 0x123456
        assert ask(stable, datagram(b"\x52\x12\x34\x56\xff\xff\xff\xffdata", below)) == 0x123456
        assert ask(stable, datagram(b"\x52\0\0\0\xff\xff\xff\xffdata", below)) == 0
        assert ask(stable, datagram(b"\x51\x12\x34\x56\xff\xff\xff\xffdata", below)) == 0


def test_a_header_of_stable_routing_that_is_cut_short_names_nobody(stable: LoadedChain) -> None:
    frame = bytes(datagram(b"\x52\x12\x34\x56\xff\xff\xff\xff"))
    for length in range(14, len(frame)):
        assert ask(stable, frame[:length]) == 0
    assert ask(stable, ETHER / TO4 / TCP() / Raw(b"\x52" * 20)) == 0
