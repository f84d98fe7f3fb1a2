# SPDX-License-Identifier: Apache-2.0
"""Sums over frames, wherever their bytes lie; and the tests' own look at checksums."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw
from xdpchain.testing import LoadChain, LoadedChain

from plugins.elb.tests.packets import ETHER, GUE_PORT, QINQ, TO4, TO6, assert_valid, checksum
from plugins.elb.tests.probe import ask, load

MOST = 128 * 128
UNREADABLE = 1 << 32
SUM = """
	s64 sum = elb_sum_bytes(ctx, talk->first, talk->second);

	talk->result = sum < 0 ? 1ULL << 32 : elb_fold(sum);
"""
FOLD = """
	talk->result = elb_fold(talk->first);
"""
CHANGED = """
	talk->result = elb_sum_changed(talk->first, talk->second >> 32, talk->second);
"""
FRAME = bytes(7 * number % 256 for number in range(MOST + 300))

summed_often = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected(data: bytes) -> int:
    """The sum as a little-endian host sees it."""
    return int.from_bytes((checksum(data) ^ 0xFFFF).to_bytes(2, "big"), "little")


@pytest.fixture
def summing(load_chain: LoadChain, tmp_path: Path) -> LoadedChain:
    return load(load_chain, tmp_path, SUM)


def test_the_bytes_of_a_frame_are_summed_in_whatever_buffers_they_lie(summing: LoadedChain) -> None:
    lengths = (0, 1, 2, 127, 128, 129, 255, 256, 257, 1500, 3000, 3499, 9001, MOST - 1, MOST)
    for offset, length in itertools.product((0, 14, 17), lengths):
        found = ask(summing, FRAME, offset, length)

        assert expected(FRAME[offset : offset + length]) == found


@summed_often
@given(frame=st.binary(min_size=14, max_size=600), data=st.data())
def test_any_bytes_are_summed_as_a_receiver_sums_them(summing: LoadedChain, frame: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(frame)))
    length = data.draw(st.integers(0, len(frame) - offset))
    found = ask(summing, frame, offset, length)

    assert expected(frame[offset : offset + length]) == found


def test_bytes_that_are_not_there_have_no_sum(summing: LoadedChain) -> None:
    last = 2**32 - 1
    for offset, length in ((0, 101), (1, 100), (99, 2), (100, 1), (101, 1), (0, MOST), (last, 1), (last, 128), (0, last), (2**31, 2**31)):
        found = ask(summing, FRAME[:100], offset, length)

        assert UNREADABLE == found


def test_more_than_sixteen_kilobytes_have_no_sum(summing: LoadedChain) -> None:
    found = ask(summing, FRAME, 0, MOST + 1)

    assert UNREADABLE == found


def test_a_sum_of_64_bits_is_folded_to_16_and_only_zero_becomes_zero(load_chain: LoadChain, tmp_path: Path) -> None:
    chain = load(load_chain, tmp_path, FOLD)
    for number in (
        1,
        0xFFFF,
        0x10000,
        0x1FFFE,
        0xFFFFFFFF,
        0x1FFFFFFFE,
        0xFFFF_FFFF_FFFF,
        2**64 - 1,
        2**63,
        0xFFFF_0001_FFFF,
        0xFFFF_FFFF_0001,
    ):
        found = ask(chain, FRAME[:64], number)

        assert (number - 1) % 0xFFFF + 1 == found

    found = ask(chain, FRAME[:64], 0)

    assert found == 0


def test_a_checksum_follows_a_changed_word(load_chain: LoadChain, tmp_path: Path) -> None:
    chain = load(load_chain, tmp_path, CHANGED)
    words = (0, 1, 0x1234, 0xFF01, 0xFFFF, 0x12345678, 0x89ABCDEF, 0xFFFFFFFF)
    for old, new in itertools.product(words, words):
        before, after = (b"what stands around" + word.to_bytes(4, "little") for word in (old, new))
        found = ask(chain, FRAME[:64], expected(before) ^ 0xFFFF, old << 32 | new)

        assert expected(after) ^ 0xFFFF == found


IP6_UNCHECKED = {1, 2, 3, 7}
"""traffic class, flow label, hop limit"""
ADDRESSES6 = set(range(8, 40))
WHOLE = {
    "TCP": (TO4 / TCP() / Raw(b"abc"), set[int]()),
    "TCP, IPv6": (TO6 / TCP() / Raw(b"abc"), IP6_UNCHECKED),
    "UDP": (TO4 / UDP(sport=1, dport=2) / Raw(b"abc"), set[int]()),
    "UDP, IPv6": (TO6 / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / Raw(b"abc"), IP6_UNCHECKED | set(range(42, 48))),
    "ICMP": (TO4 / ICMP() / Raw(b"abc"), set[int]()),
    "ICMPv6": (TO6 / ICMPv6EchoRequest(data=b"abc"), IP6_UNCHECKED),
    "GUE": (TO4 / UDP(sport=1, dport=GUE_PORT) / TO6 / TCP() / Raw(b"abc"), set[int]()),
    "IP in IP": (TO6 / IP(src="192.0.2.1", dst="192.0.2.2") / TCP() / Raw(b"abc"), IP6_UNCHECKED | ADDRESSES6),
}


@pytest.mark.parametrize(("packet", "unchecked"), WHOLE.values(), ids=WHOLE.keys())
def test_the_tests_find_any_byte_that_is_wrong_behind_the_ethernet_header(packet: Packet, unchecked: set[int]) -> None:
    frame = bytes(ETHER / QINQ / packet)
    assert_valid(frame)

    for at in set(range(len(packet))) - unchecked:
        wrong = bytearray(frame)
        wrong[22 + at] ^= 0x10
        with pytest.raises((AssertionError, KeyError, IndexError, struct.error)):
            assert_valid(bytes(wrong))
