# SPDX-License-Identifier: Apache-2.0
"""The outer headers, as far as they are the same for all packets to a backend: what `elb_members` holds."""

from __future__ import annotations

import functools
import struct

from xdpchain_elb.config import ElbConfig, Encapsulation
from xdpchain_elb.shape import is_ipv4, mapped

GUE, OUTER6 = 1, 2
"""`enum elb_form`"""

_OVERHEAD = {0: 20, GUE: 28, OUTER6: 40, GUE | OUTER6: 48}
_TTL = 64
_IPIP, _UDP = 4, 17
_BEGINNING = struct.Struct("=16s16sII")
_NUMBERS = struct.Struct("=II")
_END = struct.Struct(">HBB")


class Headers:
    """The headers of a config."""

    def __init__(self, config: ElbConfig) -> None:
        self._port = config.gue_port
        self._sources = {is_ipv4(packed): packed for packed in map(mapped, config.source)}
        self._parts = functools.cache(self._make)

    def record(self, encapsulation: Encapsulation, packed: bytes, backend: int, pool: int) -> bytes:
        """A `struct elb_member`, for a backend by its address in 16 bytes."""
        beginning, end = self._parts(encapsulation, packed)
        return beginning + _NUMBERS.pack(backend, pool) + end

    def _make(self, encapsulation: Encapsulation, packed: bytes) -> tuple[bytes, bytes]:
        ipv4, gue = is_ipv4(packed), encapsulation == "gue"
        form = (GUE if gue else 0) | (0 if ipv4 else OUTER6)
        port = self._port if gue else 0
        source = self._sources.get(ipv4, bytes(16)) if gue else bytes(16)
        destination = packed
        if ipv4:
            source, destination = source[12:], packed[12:]
        ip_sum = words(struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, _TTL, _UDP if gue else _IPIP, 0) + source + destination) if ipv4 else 0
        udp_sum = words(source + destination + struct.pack(">HH", _UDP, port)) if gue else 0
        return _BEGINNING.pack(destination, source, ip_sum, udp_sum), _END.pack(port, form, _OVERHEAD[form])


def words(data: bytes) -> int:
    """The sum of 16-bit words as they lie in memory."""
    return sum(struct.unpack(f"={len(data) // 2}H", data))
