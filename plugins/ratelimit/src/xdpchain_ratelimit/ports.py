# SPDX-License-Identifier: Apache-2.0
"""Sets of ports as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xdpchain import Port, PortRange


def each(ranges: Iterable[PortRange]) -> Iterator[int]:
    """The single ports."""
    for ports in ranges:
        yield from range(ports.first, ports.last + 1)


def merged(ports: Iterable[int]) -> tuple[PortRange, ...]:
    """The fewest ranges with these ports, in order: one form for each set."""
    ranges: list[PortRange] = []
    for port in sorted(set(ports)):
        if ranges and ranges[-1].last == port - 1:
            ranges[-1] = PortRange(ranges[-1].first, Port(port))
        else:
            ranges.append(PortRange(Port(port), Port(port)))
    return tuple(ranges)


def show(ports: Iterable[int]) -> str:
    """`"80,443,8000-8099"`."""
    return ",".join(str(ports) for ports in merged(ports))
