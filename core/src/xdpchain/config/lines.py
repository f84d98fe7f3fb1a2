# SPDX-License-Identifier: Apache-2.0
"""
On which line a key stands: a scanner beside tomllib, which forgets where it read a value.

It reads text that tomllib has accepted, so it only has to find where keys and values begin and end, never to judge them.
"""

from __future__ import annotations

import bisect
import itertools
import re
import tomllib

from xdpchain.config.keypath import KeyPath

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")
# One alternative for each kind of string, the long ones first. A multi-line string may end in five quotes: two of them are its own.
_STRING = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^\\"]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key, table and list item of a valid TOML document."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._list_lengths: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) and self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._assignment(table)
        return self._lines

    def _header(self) -> KeyPath:
        line = self._line()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        *parents, name = self._key()
        self._at += brackets
        path: KeyPath = ()
        for parent in parents:
            path = self._newest((*path, parent))
            self._lines.setdefault(path, line)
        path = (*path, name)
        if brackets == 2:
            self._list_lengths[path] = self._list_lengths.get(path, 0) + 1
            self._lines.setdefault(path, line)
            path = self._newest(path)
        self._lines[path] = line  # over the line of a sub-table that came first and only implied this one
        return path

    def _newest(self, path: KeyPath) -> KeyPath:
        """A list of tables means its newest table wherever a header goes through it."""
        return (*path, self._list_lengths[path] - 1) if path in self._list_lengths else path

    def _assignment(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        """A key up to its equals sign or closing bracket."""
        parts = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                raw = self._take(_STRING)
                parts.append(str(tomllib.loads(f"key = {raw}")["key"]))
            else:
                parts.append(self._take(_BARE_KEY))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at]:
            case "[":
                self._list(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                self._take(_BARE_VALUE)

    def _list(self, path: KeyPath) -> None:
        self._at += 1
        for index in itertools.count():
            self._skip(_BLANK)
            if self._text[self._at] == "]":
                break
            self._lines[*path, index] = self._line()
            self._value((*path, index))
            self._comma()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip(_BLANK) and self._text[self._at] != "}":
            self._assignment(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        self._take(pattern)
        return True

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"not valid TOML at line {self._line()}")
        self._at = match.end()
        return match.group()

    def _line(self) -> int:
        return bisect.bisect_left(self._line_ends, self._at) + 1
