# SPDX-License-Identifier: Apache-2.0
"""
Capture files as a stream of frames: pcap and pcapng in, pcap out.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Both byte orders, times in micro- and nanoseconds. Only Ethernet: what other
link types hold is nothing that a hook of an Ethernet interface would see.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import attrs

from xdpchain.packets import PacketError

ETHERNET = 1
"""LINKTYPE_ETHERNET of the registry at tcpdump.org/linktypes.html"""
MAX_FRAME = 262_144
"""the longest frame that tools write; a record that claims more is damaged"""
MAX_BLOCK = 16 << 20
_NS = 1_000_000_000

_PCAP_MAGIC = {0xA1B2C3D4: _NS // 1_000_000, 0xA1B23C4D: 1}
"""nanoseconds per unit of the fraction, by magic number"""
_PCAPNG_MAGIC, _BYTE_ORDER = 0x0A0D0D0A, 0x1A2B3C4D
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_OPTION_TSRESOL = 9
_GZIP = b"\x1f\x8b"


@attrs.frozen(slots=True)
class Captured:
    """A frame of a capture; `time_ns` counts from 1970."""

    time_ns: int
    data: bytes


def read_capture(file: BinaryIO, name: str) -> Iterator[Captured]:
    """
    The frames of a capture, one by one as they are read; `name` is what errors call the file.

    Raises:
        PacketError: no capture, not of an Ethernet, damaged, or cut short; the frames before that were given out.
    """
    stream = _Stream(file, name)
    start = stream.take(4, "a capture")
    if start[:2] == _GZIP:
        raise PacketError(f"{name} is compressed", hint=f"gunzip -c {name} | xdpchain trace ... --pcap -")
    for order in "<>":
        (magic,) = struct.unpack(f"{order}I", start)
        if magic in _PCAP_MAGIC:
            return _pcap(stream, order, _PCAP_MAGIC[magic])
        if magic == _PCAPNG_MAGIC:
            return _pcapng(stream)
    raise PacketError(f"{name} is no capture", hint="pcap and pcapng are read; `tcpdump -w FILE` writes one")


@attrs.frozen
class _Stream:
    file: BinaryIO
    name: str

    def take(self, size: int, what: str) -> bytes:
        """Exactly `size` bytes."""
        data = self.more(size, what)
        if not data and size:
            raise PacketError(f"{self.name} ends where {what} should be", hint="it is empty or cut short: capture again")
        return data

    def more(self, size: int, what: str) -> bytes:
        """Exactly `size` bytes, or none at the end of the file."""
        data = self.file.read(size)
        while data and len(data) < size:
            rest = self.file.read(size - len(data))
            if not rest:
                raise PacketError(f"{self.name} ends in the middle of {what}", hint="it is cut short; the frames before that are whole")
            data += rest
        return data

    def damaged(self, what: str) -> PacketError:
        return PacketError(f"{self.name} is damaged: {what}", hint="the frames before that are whole; capture again")

    def check_link(self, link: int) -> None:
        if link != ETHERNET:
            raise PacketError(
                f"{self.name} holds frames of link type {link}, not of an Ethernet",
                hint="capture on the interface itself (`tcpdump -i eth0 -w FILE`), not on `any`",
            )


def _pcap(stream: _Stream, order: str, unit_ns: int) -> Iterator[Captured]:
    *_, link = struct.unpack(f"{order}HHiIII", stream.take(20, "the header"))
    stream.check_link(link & 0xFFFF)  # the upper bits tell of a frame check sequence
    record = struct.Struct(f"{order}IIII")
    while head := stream.more(record.size, "a record's header"):
        seconds, fraction, size, _ = record.unpack(head)
        if size > MAX_FRAME:
            raise stream.damaged(f"a frame of {size} bytes")
        yield Captured(seconds * _NS + fraction * unit_ns, stream.take(size, "a frame") if size else b"")


def _pcapng(stream: _Stream) -> Iterator[Captured]:
    """Blocks; each section begins with a header that says its byte order, and numbers its interfaces from 0."""
    order, interfaces = "<", list[_Interface]()
    head: bytes = struct.pack("<I", _PCAPNG_MAGIC)
    while head:
        kind_bytes, size_bytes = head[:4], head[4:] + stream.take(8 - len(head), "a block's length")
        if struct.unpack("<I", kind_bytes) == (_PCAPNG_MAGIC,):
            mark = stream.take(4, "a section's byte order")
            order, interfaces = "<" if struct.unpack("<I", mark) == (_BYTE_ORDER,) else ">", []
            if struct.unpack(f"{order}I", mark) != (_BYTE_ORDER,):
                raise stream.damaged("a section without byte order")
            _body(stream, order, size_bytes, already=4)
        else:
            (kind,) = struct.unpack(f"{order}I", kind_bytes)
            body = _body(stream, order, size_bytes)
            if kind == _INTERFACE:
                interfaces.append(_interface(stream, order, body))
            elif kind in {_PACKET, _OLD_PACKET, _SIMPLE_PACKET}:
                yield _frame(stream, order, kind, body, interfaces)
        head = stream.more(8, "a block's header")


def _body(stream: _Stream, order: str, size_bytes: bytes, already: int = 0) -> bytes:
    """What is between a block's two lengths, without the first `already` bytes."""
    (size,) = struct.unpack(f"{order}I", size_bytes)
    if size % 4 or not 12 + already <= size <= MAX_BLOCK:
        raise stream.damaged(f"a block of {size} bytes")
    body = stream.take(size - 12 - already, "a block")
    if stream.take(4, "a block's end") != size_bytes:
        raise stream.damaged("a block whose two lengths differ")
    return body


@attrs.frozen
class _Interface:
    link: int
    snap_length: int
    units_per_second: int


def _interface(stream: _Stream, order: str, body: bytes) -> _Interface:
    if len(body) < 8:
        raise stream.damaged("an interface's block is too short")
    link, _, snap_length = struct.unpack_from(f"{order}HHI", body)
    units, at = 1_000_000, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(f"{order}HH", body, at)
        if code == _OPTION_TSRESOL and size == 1 and at + 4 < len(body):
            resolution = body[at + 4]
            units = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        at += 4 + (size + 3) // 4 * 4
    return _Interface(link, snap_length or MAX_FRAME, units)


def _frame(stream: _Stream, order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> Captured:
    layout = struct.Struct(order + {_PACKET: "IIIII", _OLD_PACKET: "HHIIII", _SIMPLE_PACKET: "I"}[kind])
    if len(body) < layout.size:
        raise stream.damaged("a packet's block is too short")
    fields = layout.unpack_from(body)
    number = 0 if kind == _SIMPLE_PACKET else fields[0]
    if number >= len(interfaces):
        raise stream.damaged(f"a packet of interface {number}, which is not described")
    interface = interfaces[number]
    stream.check_link(interface.link)
    if kind == _SIMPLE_PACKET:
        high, low, size = 0, 0, min(fields[0], interface.snap_length)
    else:
        high, low, size = fields[-4:-1]
    if size > len(body) - layout.size:
        raise stream.damaged(f"a frame of {size} bytes in a smaller block")
    return Captured((high << 32 | low) * _NS // interface.units_per_second, body[layout.size : layout.size + size])


class CaptureWriter:
    """Writes a pcap of Ethernet frames with times in nanoseconds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_FRAME, ETHERNET))

    def write(self, frame: Captured) -> None:
        """Add a frame."""
        seconds, fraction = divmod(frame.time_ns, _NS)
        size = len(frame.data)
        self._file.write(struct.pack("<IIII", seconds & 0xFFFFFFFF, fraction, size, size) + frame.data)
