# SPDX-License-Identifier: Apache-2.0
"""
The hash functions that a packet's slot and a backend's place in the ring come from.

They are Katran's, bit by bit: lookup3 for packets, FNV-1 (with its bytes taken as signed), SpookyHash V2 and MurmurHash3 for backends. All of them
work on unsigned words that wrap around.
"""

from __future__ import annotations

import enum
import functools
from ipaddress import IPv4Address, IPv6Address

from xdpchain_elb.tables import RING_SIZE

_SEED = 512 * RING_SIZE
"""Katran's number of VIPs enters the hash of packets, whatever ours is."""
_SEED6 = 512
_LOOKUP3 = 0xDEADBEEF
_MIX_ROTATIONS = (4, 6, 8, 16, 19, 4)
_FINAL_ROTATIONS = (14, 11, 25, 16, 4, 14, 24)

_COMBINE = 0x9DDFEA08EB382D69
_SPOOKY = 0xDEADBEEFDEADBEEF
_SPOOKY_MIX = (50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36)
_SPOOKY_END = (15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63)
_MURMUR1, _MURMUR2 = 0x87C37B91114253D5, 0x4CF5AD432745937F

_32 = 0xFFFFFFFF
_64 = 0xFFFFFFFFFFFFFFFF

Address = IPv4Address | IPv6Address


class HashOption(enum.IntFlag):
    """What a VIP leaves of a packet's addresses and ports before they are hashed; the numbers of `enum elb_option` in tables.h."""

    NO_SOURCE_PORT = 1
    NO_DESTINATION_PORT = 2
    DESTINATION_PORT_ONLY = 4


def slot_of(source: Address, source_port: int, destination_port: int, options: int = 0) -> int:
    """
    The slot of a packet.

    Args:
        source: the client's address, in the family of the packet.
        source_port: 0 where the flow has no ports.
        destination_port: as in the packet.
        options: bits of `HashOption`; others do not matter.
    """
    if options & HashOption.NO_SOURCE_PORT:
        source_port = 0
    if options & HashOption.DESTINATION_PORT_ONLY:
        source_port, source = destination_port, type(source)(0)
    if options & HashOption.NO_DESTINATION_PORT:
        destination_port = 0
    return flow_hash(source, source_port, destination_port) % RING_SIZE


def flow_hash(source: Address, source_port: int, destination_port: int) -> int:
    """The 32-bit hash of a packet, of what the VIP's options have left."""
    ports = int.from_bytes(source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big"), "little")
    word = int.from_bytes(source.packed, "little") if source.version == 4 else _address6_hash(source.packed)
    seed = _SEED + _LOOKUP3 + 8
    return _final(word + seed, ports + seed, seed)


def _address6_hash(packed: bytes) -> int:
    w0, w1, w2, w3 = (int.from_bytes(packed[at : at + 4], "little") for at in range(0, 16, 4))
    seed = _LOOKUP3 + 16 + _SEED6
    a, b, c = seed + w0 & _32, seed + w1 & _32, seed + w2 & _32
    for bits in _MIX_ROTATIONS:
        a, b, c = b, c + b & _32, (a - c & _32) ^ _left32(c, bits)  # the three words take turns
    return _final(a + w3, b, c)


def _final(a: int, b: int, c: int) -> int:
    a, b, c = a & _32, b & _32, c & _32
    for bits in _FINAL_ROTATIONS:
        a, b, c = b, (c ^ b) - _left32(b, bits) & _32, a
    return b


def _left32(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _32


@functools.lru_cache(maxsize=1 << 15)
def backend_hash(address: Address) -> int:
    """The 64-bit hash of a backend. A ring is made of its backends in the order of their hashes."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else address
    if mapped is None:
        return _combine(10, _combine(*_spooky(address.packed)))
    fnv = 2166136261
    for byte in mapped.packed:
        signed = byte - 256 if byte > 127 else byte
        fnv = fnv * 16777619 & _32 ^ signed & _32
    return _combine(2, fnv)


@functools.lru_cache(maxsize=1 << 15)
def offset_and_skip(hash: int) -> tuple[int, int]:
    """Where a backend with this hash begins in the ring, and how far it is from each of its places to the next."""
    return _murmur(hash, *_OFFSET) % RING_SIZE, _murmur(hash, *_SKIP) % (RING_SIZE - 1) + 1


def _combine(upper: int, lower: int) -> int:
    a = (lower ^ upper) * _COMBINE & _64
    a ^= a >> 47
    b = (upper ^ a) * _COMBINE & _64
    b ^= b >> 47
    return b * _COMBINE & _64


def _spooky(packed: bytes) -> tuple[int, int]:
    """SpookyHash V2 of 16 bytes, its seeds 0."""
    a = b = 0
    c = _SPOOKY + int.from_bytes(packed[:8], "little") & _64
    d = _SPOOKY + int.from_bytes(packed[8:], "little") & _64
    for bits in _SPOOKY_MIX:
        c = (c << bits | c >> 64 - bits) + d & _64
        a, b, c, d = b, c, d, a ^ c  # the four words take turns
    c = c + _SPOOKY & _64
    d = d + (16 << 56) + _SPOOKY & _64
    for bits in _SPOOKY_END:
        d ^= c
        c = (c << bits | c >> 64 - bits) & _64
        a, b, c, d = b, c, d + c & _64, a
    return b, c


def _murmur(x: int, seed: int, second: int) -> int:
    """The first half of MurmurHash3 x64 128 of two words, of which the second has gone through `_murmur_second`."""
    x = x * _MURMUR1 & _64
    x = (x << 31 | x >> 33) * _MURMUR2 & _64 ^ seed
    a = ((x << 27 | x >> 37) + seed & _64) * 5 + 0x52DCE729
    b = (second + a) * 5 + 0x38495AB5 ^ 16
    a = (a ^ 16) + b & _64
    return _murmur_end(a) + _murmur_end(a + b & _64) & _64


def _murmur_second(y: int, seed: int) -> int:
    """What the second word adds; it is the same for all backends."""
    y = y * _MURMUR2 & _64
    y = (y << 33 | y >> 31) * _MURMUR1 & _64 ^ seed
    return (y << 31 | y >> 33) & _64


def _murmur_end(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _64
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _64
    return word ^ word >> 33


_OFFSET = 0, _murmur_second(42, 0)
_SKIP = 2307, _murmur_second(2718281828, 2307)
