# SPDX-License-Identifier: Apache-2.0
"""Files of text that a config key names: read when the config is, so that another text is another config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import attrs

from xdpchain.config.misfit import MisfitError, given, quoted
from xdpchain.config.trust import read_text
from xdpchain.errors import Problem


@attrs.frozen
class TextFile:
    """
    A file that a function reads by itself, such as a list of thousands of lines; its path in TOML.

    `path` is as it is written, relative to the folder of the node's main file, `file` where that is. Two are equal where path and text are.
    """

    path: str
    file: Path = attrs.field(eq=False)
    text: str = attrs.field(repr=False)


@attrs.frozen
class _Reading:
    """A node that is being read: where its main file is, the texts to take in place of what is on disk, and what was taken so far."""

    folder: Path
    kept: Mapping[str, str] | None
    taken: dict[str, TextFile]


_READING: ContextVar[_Reading | None] = ContextVar("_READING", default=None)


@contextmanager
def reading(folder: Path, kept: Mapping[str, str] | None = None) -> Iterator[Mapping[str, TextFile]]:
    """
    Within it, paths are relative to `folder`; gives the files that were read, by their paths as written.

    With `kept` nothing is read from disk: it has the text of each path.
    """
    now = _Reading(folder, kept, {})
    token = _READING.set(now)
    try:
        yield now.taken
    finally:
        _READING.reset(token)


def parse_text_file(value: Any) -> TextFile:
    """Reads the file at a path. An object that is a `TextFile` already is taken as it is."""
    if isinstance(value, TextFile):
        return value
    if not isinstance(value, str):
        raise MisfitError(f"must be the path of a file, not {given(value)}", example='"list.txt"')
    if not value or "\0" in value:
        raise MisfitError(f"{quoted(value)} is not a path", example='"list.txt"')
    now = _READING.get() or _Reading(Path(), None, {})
    if value not in now.taken:
        now.taken[value] = _read(value, now)
    return now.taken[value]


def _read(path: str, now: _Reading) -> TextFile:
    file = now.folder / path
    text = read_text(file) if now.kept is None else now.kept.get(path)
    if text is None:
        raise MisfitError(f"{quoted(path)} was not kept with this configuration", hint="apply the node's own file")
    if isinstance(text, Problem):
        raise MisfitError(f"{file} {text.message}", hint=text.hint)
    return TextFile(path, file, text)
