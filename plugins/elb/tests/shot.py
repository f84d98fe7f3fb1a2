# SPDX-License-Identifier: Apache-2.0
"""Packets by the hundred thousand: BPF_PROG_TEST_RUN with nothing around it, and flows as frames that are made once."""

from __future__ import annotations

import ctypes as ct
import enum
import struct
from ipaddress import IPv4Address, IPv6Address

from xdpchain.bpf.structs import TestRunOpts
from xdpchain.testing import LoadedChain

from plugins.elb.tests.fuzz.frames import link_of, mend

DROP, PASS, TX = 1, 2, 3
_ROOM = 16384
_LINK = bytes.fromhex("020000000001 020000000002")


class Flag(enum.IntFlag):
    """TCP flags."""

    FIN, SYN, RST, ACK = 1, 2, 4, 16


class Shot:
    """Sends frames through the program of a chain's XDP hook, without an allocation for each of them."""

    def __init__(self, chain: LoadedChain) -> None:
        self._chain = chain  # whose program it is
        self._program = chain.program
        self._call = ct.CDLL("libbpf.so.1", use_errno=True).bpf_prog_test_run_opts
        self._into, self._out = ct.create_string_buffer(_ROOM), ct.create_string_buffer(_ROOM)
        self._opts = TestRunOpts(sz=ct.sizeof(TestRunOpts), data_in=ct.addressof(self._into), data_out=ct.addressof(self._out))
        self._reference = ct.byref(self._opts)
        self._addresses = ct.addressof(self._into), ct.addressof(self._out)

    def __call__(self, frame: bytes) -> tuple[int, bytes]:
        """What the program answers, and the frame afterwards."""
        into, out = self._addresses
        ct.memmove(into, frame, len(frame))
        self._opts.data_size_in = len(frame)
        self._opts.data_size_out = _ROOM
        result = self._call(self._program, self._reference)
        if result:
            raise OSError(-result, f"the kernel does not take a frame of {len(frame)} bytes")
        return self._opts.retval, ct.string_at(out, self._opts.data_size_out)

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
