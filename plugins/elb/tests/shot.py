# SPDX-License-Identifier: Apache-2.0
"""Packets by the hundred thousand: BPF_PROG_TEST_RUN with nothing around it, and flows as frames that are made once."""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv6Address

import xdpchain.testing.shot
from xdpchain.testing import LoadedChain
from xdpchain.testing.frames import link_of, mend

DROP, PASS, TX = 1, 2, 3
_LINK = bytes.fromhex("020000000001 020000000002")


class Flag(enum.IntFlag):
    """TCP flags."""

    FIN, SYN, RST, ACK = 1, 2, 4, 16


class Shot(xdpchain.testing.shot.Shot):
    """Sends frames through the program of a chain's XDP hook."""

    def __init__(self, chain: LoadedChain) -> None:
        self._chain = chain  # whose program it is
        super().__init__(chain.program)

    def backend(self, frame: bytes) -> bytes | None:
        """The address of the backend that a frame is sent to; None if it is dropped."""
        verdict, got = self(frame)
        if verdict == DROP:
            return None
        assert verdict == TX, f"the verdict {verdict} for {frame.hex()}"
        at, ethertype = link_of(got)
        return got[at + 16 : at + 20] if ethertype == 0x0800 else got[at + 24 : at + 40]


def tcp(source: IPv4Address | IPv6Address, source_port: int, destination: IPv4Address | IPv6Address, port: int, flags: Flag) -> bytes:
    """A TCP segment without data."""
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 1024, 0, 0)
    return _frame(source, destination, 6, segment)


def udp(source: IPv4Address | IPv6Address, source_port: int, destination: IPv4Address | IPv6Address, port: int) -> bytes:
    """A UDP datagram without data."""
    return _frame(source, destination, 17, struct.pack("!HHHH", source_port, port, 8, 0))


def _frame(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, proto: int, segment: bytes) -> bytes:
    addresses = source.packed + destination.packed
    if source.version == 4:
        head = b"\x08\0" + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, proto, 0)
    else:
        head = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), proto, 64)
    frame = bytearray(_LINK + head + addresses + segment)
    mend(frame)
    return bytes(frame)
