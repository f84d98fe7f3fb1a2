# SPDX-License-Identifier: Apache-2.0
"""
The gates: a word in `elb_gates`, whose low bits say what kinds of VIPs there are, and whose other bits are a number.

Packets remember under this number which services they found. So it becomes another with each group of changes to services. It is a hash of what has
changed, not a count: when changes are taken back and others made, their number must not be one that packets have seen.

While services change, and while a change is taken back, a packet may find what is not there under the number before or after. So a bit says that
services are changing, and packets remember nothing. A daemon that was killed meanwhile leaves the bit to its successor.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator

from xdpchain import Put, Run, Write

ANY_PORTS, PREFIXES, CHANGING = 1, 2, 4
"""`enum elb_gate`"""
KINDS = ANY_PORTS | PREFIXES

_NUMBER_AT, _NUMBER_BITS = 3, 29
_SERVICES = ("elb_services", "elb_prefixes")


def numbered(writes: Iterable[Write], word: int) -> Iterator[Write]:
    """
    The writes, with another number of the gates behind each group of writes to services, and nothing to be remembered meanwhile.

    Args:
        writes: those to `elb_gates` give the kinds of VIPs alone.
        word: the word that stands there.
    """
    for changes, group in itertools.groupby(writes, _changes_services):
        if changes:
            changed = list(group)
            number = _next(word, changed)
            word |= CHANGING
            yield Put("elb_gates", 0, word)
            yield from changed
            word = number
            yield Put("elb_gates", 0, word)
            continue
        for write in group:
            if isinstance(write, Put) and write.map == "elb_gates":
                word = word & ~KINDS | write.value
                yield Put("elb_gates", 0, word)
            else:
                yield write
    if word & CHANGING:
        yield Put("elb_gates", 0, _next(word, ()))


def _changes_services(write: Write) -> bool:
    return not isinstance(write, Run) and write.map in _SERVICES


def _next(word: int, changed: Iterable[Write]) -> int:
    """The word after a change; what one that was killed has begun makes a difference."""
    text = "\n".join(map(str, (word & ~KINDS, *changed)))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") & ((1 << _NUMBER_BITS) - 1)
    return number << _NUMBER_AT | word & KINDS
