# SPDX-License-Identifier: Apache-2.0
"""
The file of VIPs: thousands of lines that a node file need not hold.

    vip 10.200.1.1:443 tcp options=server-id encapsulation=ipip
        10.0.0.1 weight=100
        10.0.0.2 weight=50 drain server-id=17
      source eu 198.51.100.0/24,203.0.113.0/24
        10.0.1.1

The first word of a line says what it is: `vip`, `source`, or else the address of a backend of the VIP or source route above it. Indentation
means nothing, and what follows a `#` is a comment. The text is cut into one piece for each VIP, and what a piece said is remembered: a VIP that
did not change is the very object that it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs
from xdpchain import Problem, TextFile
from xdpchain.config import MisfitError

from xdpchain_elb import words
from xdpchain_elb.vip import Backend, SourceRoute, Vip

MAX_VIPS = 4096
_REMEMBERED = MAX_VIPS + 1024
"""Pieces: all of the largest file, and some that changed."""

Place = tuple[str | int, ...]


@attrs.frozen
class Fault:
    """What is wrong in a line; `line` counts from 0 at the beginning of the piece."""

    line: int
    message: str
    hint: str


@attrs.frozen
class Piece:
    """The lines of one VIP: what they say, or what is wrong with them."""

    text: str = attrs.field(repr=False)
    vip: Vip | None
    faults: tuple[Fault, ...]

    def line_of(self, place: Place) -> int:
        """The line, from 0, of a key path in the VIP, or of what it is in: `("source", 0, "backend", 1)`."""
        lines, line = _lines(self.text), 0
        for end in range(len(place) + 1):
            line = lines.get(place[:end], line)
        return line


@attrs.frozen(eq=False)
class Listing:
    """A whole file: its pieces, each with where it begins in the text."""

    file: str = ""
    text: str = attrs.field(default="", repr=False)
    pieces: tuple[tuple[int, Piece], ...] = ()

    @classmethod
    def of(cls, file: TextFile | None) -> Listing:
        """What a file says; nothing where there is none."""
        if file is None:
            return cls()
        starts = [0, *_starts(file.text)]
        ends = [*starts[1:], len(file.text)]
        pieces = ((start, _piece(file.text[start:end])) for start, end in zip(starts, ends, strict=True))
        return cls(str(file.file), file.text, tuple(pieces))

    @property
    def vips(self) -> tuple[Vip, ...]:
        """The VIPs of all pieces that are right."""
        return tuple(piece.vip for _, piece in self.pieces if piece.vip is not None)

    def faults(self) -> Iterator[Problem]:
        """What is wrong with the lines."""
        if not any(piece.faults for _, piece in self.pieces):
            return
        for line, piece in _placed(self).all:
            for fault in piece.faults:
                yield Problem(("vips",), fault.message, fault.hint, self.file, line + fault.line)

    def line_of(self, number: int, place: Place) -> int:
        """The line, from 1, of a key path in the VIP of that number in `vips`."""
        line, piece = _placed(self).right[number]
        return line + piece.line_of(place)


@attrs.frozen
class _Placed:
    """Pieces with the lines, from 1, on which they begin: all of them, and those that are VIPs."""

    all: list[tuple[int, Piece]]
    right: list[tuple[int, Piece]]


@lru_cache(maxsize=2)
def _placed(listing: Listing) -> _Placed:
    """Asked for when something is wrong: to count the lines of a large file takes longer than to check what did not change."""
    placed, line, at = list[tuple[int, Piece]](), 1, 0
    for start, piece in listing.pieces:
        line += listing.text.count("\n", at, start)
        at = start
        placed.append((line, piece))
    return _Placed(placed, [(line, piece) for line, piece in placed if piece.vip is not None])


def _starts(text: str) -> Iterator[int]:
    """Where the lines of VIPs begin. A search for the word is faster than a look at every line."""
    at = text.find("vip")
    while at >= 0:
        start = text.rfind("\n", 0, at) + 1
        if not text[start:at].strip() and not text[at + 3 : at + 4].strip():
            yield start
        at = text.find("vip", at + 3)


@lru_cache(maxsize=_REMEMBERED)
def _piece(text: str) -> Piece:
    fields: dict[str, Any] = {}
    routes: list[SourceRoute] = []
    pools: list[list[Backend]] = [[]]
    faults: list[Fault] = []
    begun = False
    for number, raw in enumerate(text.split("\n")):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        try:
            match words.split(line) if line[0] in "vs" else ():
                case ["vip", *_] as head:
                    begun = True
                    fields = words.header(head)
                case ["source", *_] as head:
                    pools.append([])  # first, so that backends of a route with a fault are not taken for another's
                    routes.append(words.route(head))
                case _:
                    pools[-1].append(words.backend(line))
            if not begun:
                raise MisfitError("stands before the first VIP", hint="begin with a line such as: vip 10.200.1.1:443 tcp")
        except MisfitError as misfit:
            faults.append(Fault(number, misfit.message, misfit.hint or f"for example: {misfit.example}"))
        if not begun:
            break  # the lines below have the same fault
    if faults or not fields:
        return Piece(text, None, tuple(faults))
    own, *others = map(tuple, pools)
    source = tuple(attrs.evolve(route, backend=pool) for route, pool in zip(routes, others, strict=True))
    return Piece(text, Vip(**fields, backend=own, source=source), ())


@lru_cache(maxsize=16)
def _lines(text: str) -> Mapping[Place, int]:
    """The lines of a piece without faults, by their key paths."""
    lines: dict[Place, int] = {}
    pool: Place = ()
    counts = Counter[Place]()
    for number, raw in enumerate(text.split("\n")):
        match words.split(raw):
            case []:
                continue
            case ["vip", *_]:
                place: Place = ()
            case ["source", *_]:
                place = pool = ("source", counts[("source",)])
                counts["source",] += 1
            case _:
                place = (*pool, "backend", counts[pool])
                counts[pool] += 1
        lines[place] = number
    return lines
