# SPDX-License-Identifier: Apache-2.0
"""
Quoted includes become part of one text, because bcc rewrites map methods in the main file only.

Each file is inlined once, at its first include, whatever conditions stand around it; `#line` keeps the file and line of errors. `<...>` includes
are left to the compiler, which finds the kernel's interface headers and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from xdpchain.errors import CompileError

_INCLUDE = re.compile(r"\s*#\s*(?:include|include_next|import)\b\s*(?P<what>.*)")
_TOKEN = re.compile(r'/\*|//|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
_COMMENT_END = re.compile(r"\*/")


def splice(path: Path, include_dirs: Sequence[Path], owner: str = "") -> str:
    """
    The text of a C file with its quoted includes in place.

    An include is looked for beside the file that asks, then in `include_dirs`. What lies neither under the directory of `path` nor under
    one of `include_dirs` is refused: no code from elsewhere.

    Args:
        path: the main file; errors name it as it is given here.
        include_dirs: where else to look.
        owner: the plugin to name in errors; the file's name by default.

    Raises:
        CompileError: a file is missing, unreadable, or from elsewhere.
    """
    return _Splicer(path, include_dirs, owner or path.name).text


class _Splicer:
    def __init__(self, path: Path, include_dirs: Sequence[Path], owner: str) -> None:
        self._owner = owner
        self._include_dirs = include_dirs
        self._roots = [directory.resolve() for directory in (path.resolve().parent, *include_dirs)]
        self._seen: set[Path] = set()
        self.text = "".join(self._lines(path, str(path)))

    def _lines(self, path: Path, asked_by: str) -> Iterator[str]:
        self._seen.add(path.resolve())
        file = _quoted(path)
        yield f"#line 1 {file}\n"
        for number, (line, code) in enumerate(_outside_comments(self._read(path, asked_by)), 1):
            include = _INCLUDE.match(line) if code else None
            if include is None:
                yield line + "\n"
                continue
            where = f"{path}:{number}"
            target = self._target(include["what"], path, where)
            if target is None:
                yield line + "\n"
            elif target.resolve() in self._seen:
                yield "\n"
            else:
                yield from self._lines(target, where)
                yield f"#line {number + 1} {file}\n"

    def _target(self, what: str, path: Path, where: str) -> Path | None:
        """The file that an include names, or None where the compiler shall look for it."""
        if system := re.match(r"<([^>]*)>", what):
            if system[1].startswith("/") or ".." in system[1].split("/"):
                raise self._error(where, f"#include <{system[1]}> leads out of the system's headers")
            return None
        quoted = re.match(r'"([^"]+)"', what)
        if quoted is None:
            raise self._error(where, f"#include {what.strip()} does not name a file", 'write #include "FILE" or #include <FILE>')
        for directory in (path.parent, *self._include_dirs):
            candidate = directory / quoted[1]
            if candidate.is_file():
                if any(candidate.resolve().is_relative_to(root) for root in self._roots):
                    return candidate
                raise self._error(where, f'"{quoted[1]}" lies outside the plugin: no code from elsewhere')
        places = ", ".join(str(directory) for directory in (path.parent, *self._include_dirs))
        raise self._error(where, f'"{quoted[1]}" is not there', f"looked in {places}; kernel headers are written <linux/...>")

    def _read(self, path: Path, asked_by: str) -> str:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise self._error(asked_by, f"{path} cannot be read: {reason}", "is it part of the plugin's package?") from error
        if "\0" in text:
            raise self._error(asked_by, f"{path} cannot be read: it is not a text")
        return text

    def _error(self, where: str, message: str, hint: str = "copy the file into the plugin, beside its source") -> CompileError:
        return CompileError(self._owner, f"{where}: {message}", hint=hint)


def _outside_comments(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether its beginning is code, not the middle of a comment."""
    comment = False
    for line in text.removesuffix("\n").split("\n"):
        yield line, not comment
        at = 0
        while token := (_COMMENT_END if comment else _TOKEN).search(line, at):
            if token[0] == "//":
                break
            if token[0] in {"/*", "*/"}:
                comment = not comment
            at = token.end()


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
