# SPDX-License-Identifier: Apache-2.0
"""
The gates: a word in `elb_gates`, whose low bits say what kinds of VIPs there are, and whose other bits are a number.

Packets remember under this number which services they found. So it becomes another after each group of changes to services. It is a hash of what has
changed, not a count: when changes are taken back and others made, their number must not be one that packets have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from xdpchain import Delete, Put, Write

ANY_PORTS, PREFIXES = 1, 2
"""`enum elb_gate`"""
KINDS = ANY_PORTS | PREFIXES

_KIND_BITS, _NUMBER_BITS = 2, 30
_SERVICES = ("elb_services", "elb_prefixes")


def numbered(writes: Iterable[Write], word: int) -> Iterator[Write]:
    """
    The writes, with another number of the gates behind each group of writes to services.

    Args:
        writes: those to `elb_gates` give the kinds of VIPs alone.
        word: the word that stands there.
    """
    changed = ""
    for write in writes:
        if isinstance(write, Put | Delete) and write.map in _SERVICES:
            changed += f"{write}\n"
        elif changed:
            word = _next(word, changed)
            changed = ""
            yield Put("elb_gates", 0, word)
        if isinstance(write, Put) and write.map == "elb_gates":
            word = word & ~KINDS | write.value
            yield Put("elb_gates", 0, word)
        else:
            yield write
    if changed:
        yield Put("elb_gates", 0, _next(word, changed))


def _next(word: int, changed: str) -> int:
    digest = hashlib.blake2b(f"{word >> _KIND_BITS}\n{changed}".encode(), digest_size=4).digest()
    number = int.from_bytes(digest, "little") & ((1 << _NUMBER_BITS) - 1)
    return number << _KIND_BITS | word & KINDS
