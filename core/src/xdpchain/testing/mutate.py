# SPDX-License-Identifier: Apache-2.0
"""Packets that nobody would send: good ones with something broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from xdpchain.testing.frames import IPV4, bytes_of, link_of, mend, word

_BYTES = bytes((0, 1, 4, 5, 6, 17, 40, 44, 0x45, 0x46, 0x4F, 0x58, 0x60, 0x7F, 0x80, 0xB7, 0xFF))
_EXTENSIONS = bytes((0, 43, 44, 51, 60))
_MOST = 9000
Change = Callable[["Mutator", bytearray], bytearray]


class Mutator:
    """
    An endless source of frames.

    Args:
        frames: good ones.
        seed: the same one gives the same frames.
    """

    def __init__(self, frames: Sequence[bytes], seed: int) -> None:
        self._frames = frames
        self._random = random.Random(seed)  # noqa: S311 - the same frames again, not secret ones
        self._bits = self._random.getrandbits

    def _below(self, end: int) -> int:
        return int(self._random.random() * end)

    def next(self) -> bytes:
        """One frame: a good one in 16, the others with one to three changes; every other one of those with checksums that fit."""
        frame = bytearray(self._frames[self._below(len(self._frames))])
        choice = self._bits(16)
        if choice & 15 == 0:
            return bytes(frame)
        for _ in range(1 + (choice >> 4 & 3 == 3) + (choice >> 6 & 7 == 7)):
            frame = _CHANGES[self._below(len(_CHANGES))](self, frame)
        if choice >> 9 & 1:
            mend(frame)
        return bytes(frame[:_MOST])

    def flip(self, frame: bytearray) -> bytearray:
        """Other bits, anywhere or in the headers."""
        at = self._below(min(len(frame), 100) if self._bits(1) else len(frame))
        frame[at] ^= 1 << self._bits(3)
        return frame

    def spoil(self, frame: bytearray) -> bytearray:
        """Bytes that mean something somewhere."""
        for _ in range(1 + self._bits(2)):
            frame[self._below(min(len(frame), 110))] = _BYTES[self._below(len(_BYTES))]
        return frame

    def cut(self, frame: bytearray) -> bytearray:
        """Fewer bytes."""
        del frame[14 + self._below(max(len(frame) - 14, 1)) :]
        return frame

    def trim(self, frame: bytearray) -> bytearray:
        """Fewer bytes, and the IP header knows."""
        return self._resize(self.cut(frame))

    def pad(self, frame: bytearray) -> bytearray:
        """More bytes."""
        return frame + self._bits(8 * 64).to_bytes(64, "big")[: 1 + self._bits(6) % 64]

    def grow(self, frame: bytearray) -> bytearray:
        """More bytes, and the IP header knows."""
        return self._resize(self.pad(frame))

    def lie(self, frame: bytearray) -> bytearray:
        """The IP header's length is a little off, or anything."""
        at, ethertype = link_of(frame)
        where = at + (2 if ethertype == IPV4 else 4)
        return self._number(frame, where)

    def lie_below(self, frame: bytearray) -> bytearray:
        """The transport's length is off: that of UDP, the data offset of TCP."""
        at = self._transport(frame)
        if self._bits(1):
            return self._number(frame, at + 4)
        if len(frame) > at + 12:
            frame[at + 12] = self._bits(8)
        return frame

    def headers(self, frame: bytearray) -> bytearray:
        """Another IP header length, protocol, fragment offset."""
        at, ethertype = link_of(frame)
        offset, choice = (9, 2) if ethertype == IPV4 else (6, 0)
        match self._bits(2):
            case 0 if len(frame) > at:
                frame[at] = self._bits(8)
            case 1 if len(frame) > at + offset:
                frame[at + offset] = _BYTES[self._below(len(_BYTES))]
            case 2 if choice and len(frame) > at + 8:
                frame[at + 6 : at + 8] = (self._bits(16) & self._bits(16)).to_bytes(2, "big")
            case _:
                return self.flip(frame)
        return frame

    def inside(self, frame: bytearray) -> bytearray:
        """Other bytes behind the transport header's ports: options, ids, what is quoted."""
        at = self._transport(frame) + 4
        if len(frame) > at + 1:
            start = at + self._below(min(len(frame) - at, 60))
            size = min(1 + self._bits(4), len(frame) - start)
            frame[start : start + size] = self._bits(8 * size).to_bytes(size, "big")
        return frame

    def flow(self, frame: bytearray) -> bytearray:
        """Another client."""
        at, ethertype = link_of(frame)
        where = at + (14 if ethertype == IPV4 else 22)
        if self._bits(1):
            where = self._transport(frame)
        return self._number(frame, where, any_number=True)

    def tag(self, frame: bytearray) -> bytearray:
        """One VLAN tag more, or one less."""
        if word(frame, 12) in {0x8100, 0x88A8} and self._bits(1) and len(frame) >= 18:
            del frame[12:16]
            return frame
        frame[12:12] = (b"\x81\0" if self._bits(1) else b"\x88\xa8") + self._bits(16).to_bytes(2, "big")
        return frame

    def option(self, frame: bytearray) -> bytearray:
        """IPv4 options or an IPv6 extension header more."""
        at, ethertype = link_of(frame)
        if len(frame) < at + 40:
            return frame
        if ethertype == IPV4:
            words = 1 + self._below(10)
            frame[at + 20 : at + 20] = self._bits(32 * words).to_bytes(4 * words, "big")
            frame[at] = 0x40 | min(15, (frame[at] & 15) + words)
            grown = 4 * words
        else:
            kind, length = _EXTENSIONS[self._below(5)], self._bits(2) & self._bits(2)
            inner = frame[at + 6]
            frame[at + 6] = kind
            body = self._bits(48).to_bytes(6, "big") if self._bits(1) else bytes(6)
            frame[at + 40 : at + 40] = bytes((inner, length)) + body + bytes(8 * length)
            grown = 8 + 8 * length
        where = at + (2 if ethertype == IPV4 else 4)
        frame[where : where + 2] = (word(frame, where) + grown & 0xFFFF).to_bytes(2, "big")
        return frame

    def splice(self, frame: bytearray) -> bytearray:
        """The beginning of one and the end of another."""
        other = self._frames[self._below(len(self._frames))]
        at = 14 + self._below(80)
        return frame[:at] + other[at:] if len(other) > at else frame

    def _transport(self, frame: bytearray) -> int:
        at, ethertype = link_of(frame)
        if ethertype == IPV4 and len(frame) > at:
            return at + (frame[at] & 15) * 4
        return at + 40

    def _number(self, frame: bytearray, at: int, *, any_number: bool = False) -> bytearray:
        """Another number of 16 bits: a little more or less, or any."""
        if len(frame) >= at + 2:
            new = self._bits(16) if any_number or self._bits(1) else word(frame, at) + self._bits(5) - 16
            frame[at : at + 2] = (new & 0xFFFF).to_bytes(2, "big")
        return frame

    def _resize(self, frame: bytearray) -> bytearray:
        at, ethertype = link_of(frame)
        if len(frame) >= at + 40:
            now = bytes_of(frame, at, ethertype)
            where = at + (2 if ethertype == IPV4 else 4)
            frame[where : where + 2] = (word(frame, where) + len(frame) - at - now & 0xFFFF).to_bytes(2, "big")
        return frame


_CHANGES: Sequence[Change] = (
    Mutator.flip,
    Mutator.flip,
    Mutator.spoil,
    Mutator.cut,
    Mutator.trim,
    Mutator.pad,
    Mutator.grow,
    Mutator.lie,
    Mutator.lie_below,
    Mutator.headers,
    Mutator.inside,
    Mutator.inside,
    Mutator.flow,
    Mutator.flow,
    Mutator.tag,
    Mutator.option,
    Mutator.splice,
)
