# SPDX-License-Identifier: Apache-2.0
"""
Lists of source prefixes, in the node file and in files of their own with thousands of lines.

    192.0.2.0/24
    2001:db8::1        # an address alone is the prefix of its full length

What follows a `#` is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import attrs
from xdpchain import IPNetwork, Problem, TextFile
from xdpchain.config import MisfitError, parse_network

ALLOW, DENY = 1, 2
"""`enum rl_listed`"""
_KEYS = {ALLOW: "allow", DENY: "deny"}
_REMEMBERED = 64
"""files whose text is not read again when nothing of it changed"""


@attrs.frozen
class Fault:
    """What is wrong in a line, counted from 1."""

    line: int
    message: str
    hint: str


@attrs.frozen
class _Read:
    prefixes: Mapping[IPNetwork, int]
    """with the lines that they are in"""
    faults: tuple[Fault, ...]


@attrs.frozen(eq=False)
class Listing:
    """What a rule's lists say about each prefix: `ALLOW` or `DENY`."""

    prefixes: Mapping[IPNetwork, int]
    faults: tuple[Problem, ...]

    @classmethod
    def of(
        cls, allow: tuple[IPNetwork, ...], allow_file: TextFile | None, deny: tuple[IPNetwork, ...], deny_file: TextFile | None
    ) -> Listing:
        """What lists and files say together, and what is wrong with them; key paths are relative to the rule."""
        prefixes: dict[IPNetwork, int] = {}
        faults: list[Problem] = []
        for verdict, own, file in ((ALLOW, allow, allow_file), (DENY, deny, deny_file)):
            key = _KEYS[verdict]
            for at, prefix in enumerate(own):
                if prefixes.setdefault(prefix, verdict) != verdict:
                    faults.append(Problem((key, at), f"{prefix} is allowed already", "list a prefix once: the longest one decides"))
            if file is None:
                continue
            read = _read(file.text)
            path, name = (f"{key}_file",), str(file.file)
            faults += [Problem(path, fault.message, fault.hint, name, fault.line) for fault in read.faults]
            for prefix, line in read.prefixes.items():
                if prefixes.setdefault(prefix, verdict) != verdict:
                    message = f"{prefix} is allowed already"
                    faults.append(Problem(path, message, "list a prefix once: the longest one decides", name, line))
        return cls(prefixes, tuple(faults))


@lru_cache(maxsize=_REMEMBERED)
def _read(text: str) -> _Read:
    prefixes: dict[IPNetwork, int] = {}
    faults: list[Fault] = []
    for number, word in _words(text):
        try:
            prefixes.setdefault(parse_network(word), number)
        except MisfitError as misfit:
            faults.append(Fault(number, misfit.message, misfit.hint))
    return _Read(prefixes, tuple(faults))


def _words(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        word = line.partition("#")[0].strip()
        if word:
            yield number, word
