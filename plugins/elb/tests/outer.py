# SPDX-License-Identifier: Apache-2.0
"""What must leave for a packet that came in: its outer header as the format says it, put together with scapy."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from plugins.elb.tests.documents import SOURCES
from plugins.elb.tests.packets import GUE_PORT, NEXT_HOP

Address = IPv4Address | IPv6Address

_IPIP, _IPIP6 = 4, 41
_SOURCE4, _SOURCE6 = SOURCES


@attrs.frozen
class Way:
    """An encapsulation and the address of a backend."""

    encapsulation: str
    backend: str
    gue_port: int = GUE_PORT

    @property
    def overhead(self) -> int:
        """Bytes of the outer headers."""
        return (20 if self._is_outer4 else 40) + (8 if self.encapsulation == "gue" else 0)

    @property
    def _is_outer4(self) -> bool:
        return ip_address(self.backend).version == 4

    def frame(self, link: Packet, packet: Packet | bytes, client: str, port: int, *, padding: bytes = b"") -> bytes:
        """
        The frame that must leave.

        Args:
            link: Ethernet header and tags, as they came in.
            packet: the IP packet; what is in the frame behind it is `padding`.
            client: the address that the outer header shows, what the VIP's options have left of it.
            port: likewise.
        """
        out = link.copy()
        out.src, out.dst = link.dst, NEXT_HOP
        return bytes(out / self._outer(bytes(packet), ip_address(client), port)) + padding

    def _outer(self, inner: bytes, client: Address, port: int) -> Packet:
        is4 = inner[0] >> 4 == 4
        tos = inner[1] if is4 else (inner[0] << 4 | inner[1] >> 4) & 0xFF
        if self.encapsulation == "gue":
            udp = UDP(sport=self._source_port(client, port), dport=self.gue_port)
            if self._is_outer4:
                return IP(src=_SOURCE4, dst=self.backend, tos=tos, id=0, ttl=64) / udp / Raw(inner)
            return IPv6(src=_SOURCE6, dst=self.backend, tc=tos, fl=0, hlim=64) / udp / Raw(inner)
        high, low = port.to_bytes(2, "big")
        if self._is_outer4:
            c, d = client.packed[2:]
            return IP(src=f"172.16.{c ^ low}.{d ^ high}", dst=self.backend, tos=tos, id=0, ttl=64, proto=_IPIP) / Raw(inner)
        t0, t1, t2, t3 = client.packed[-4:]
        source = IPv6Address(b"\x01" + bytes(11) + bytes([t0 ^ high, t1 ^ low, t2, t3]))
        return IPv6(src=str(source), dst=self.backend, tc=tos, fl=0, hlim=64, nh=_IPIP if is4 else _IPIP6) / Raw(inner)

    def _source_port(self, client: Address, port: int) -> int:
        word = int.from_bytes(client.packed[2:4] if client.version == 4 else client.packed[12:14], "big")
        return word ^ (int.from_bytes(port.to_bytes(2, "big"), "little") if self._is_outer4 else port)
