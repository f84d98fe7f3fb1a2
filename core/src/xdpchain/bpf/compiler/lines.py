# SPDX-License-Identifier: Apache-2.0
"""
From lines of the compiler's output back to lines of somebody's source.

bcc rewrites the source before it compiles it and adds lines of its own, so what it reports is a few lines off. Giving every single line of
the unit a number (`#line`), with room between the numbers for the lines that bcc adds, makes the reports exact; the table kept here turns
the numbers into the file, line and text that the author knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_UNIT = "xdpchain-unit.c"
_STEP = 64
"""Numbers for each line. BTF has 22 bits for a line, so a unit may have 65,000."""
_LINE = re.compile(r'\s*#\s*line\s+(\d+)(?:\s+"((?:\\.|[^"\\])*)")?\s*$')
_REFERENCE = re.compile(re.escape(_UNIT) + r":(\d+)")
_VERIFIER_SOURCE = re.compile(r"^; .*@ " + re.escape(_UNIT) + r":(\d+)$")


class Origin(NamedTuple):
    """Where a line of a unit comes from, and what it says."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class NumberedText:
    """The text of a unit with a number before each line (`text`), and the way back."""

    def __init__(self, unit: str) -> None:
        self._origins: list[Origin] = []
        self.text = "".join(self._numbered(unit))

    def _numbered(self, unit: str) -> Iterator[str]:
        file, line, continued = "the core's text", 0, False
        for number, text in enumerate(unit.split("\n"), 1):
            line += 1
            directive = None if continued else _LINE.match(text)
            if directive:
                line, file = int(directive[1]) - 1, _unescaped(directive[2]) if directive[2] else file
                self._origins.append(Origin(file, line, ""))
                continue
            self._origins.append(Origin(file, line, text))
            # Between the parts of a continued line a directive would be part of that line.
            yield text + "\n" if continued else f'#line {number * _STEP} "{_UNIT}"\n{text}\n'
            continued = text.rstrip().endswith("\\")

    def origin(self, number: int) -> Origin | None:
        """Where the line with this number comes from."""
        index = number // _STEP - 1
        return self._origins[index] if 0 <= index < len(self._origins) else None

    def translate(self, output: str) -> str:
        """The compiler's or the verifier's output in terms of the author's files; the verifier's lines get their source text."""
        return "\n".join(filter(None, (self._translate(line) for line in output.splitlines())))

    def _translate(self, line: str) -> str:
        if source := _VERIFIER_SOURCE.match(line):
            origin = self.origin(int(source[1]))
            return f"; {origin.text.strip()} @ {origin}" if origin else ""
        return _REFERENCE.sub(lambda found: str(self.origin(int(found[1])) or found[0]), line)

    def places(self, output: str) -> Sequence[Origin]:
        """The source lines that an untranslated output refers to, in its order."""
        found = (self.origin(int(number)) for number in _REFERENCE.findall(output))
        return [origin for origin in found if origin]

    def declaration(self, name: str) -> Origin | None:
        """The first line that begins with a `BPF_...` macro and has `name` in it: where a map is declared."""
        pattern = re.compile(rf"\s*BPF_\w+\s*\(.*\b{re.escape(name)}\b")
        return next((origin for origin in self._origins if pattern.match(origin.text)), None)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
