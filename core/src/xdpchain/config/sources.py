# SPDX-License-Identifier: Apache-2.0
"""
The files of a node and how they become one document.

`node.toml` comes first, then `conf.d/*.toml` beside it in the order of their names. Tables of the same name grow together, and so do lists of
tables (`[[function.ratelimit.rule]]`): a file in `conf.d` can add an interface, an instance, or rules to an instance. No file overrides
another: a key that two files set is an error that names both places.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from xdpchain.config.keypath import KeyPath
from xdpchain.config.lines import key_lines
from xdpchain.config.trust import distrust, read_text, unreadable
from xdpchain.errors import Problem

_PLACE = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


@attrs.frozen
class Source:
    """One file, parsed. `text` is empty for a document that never was text."""

    file: str
    data: Mapping[str, Any]
    text: str = ""

    @cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """The line of every key, as far as the text can be followed; found when a problem asks for it, since a large file takes a second."""
        try:
            return key_lines(self.text)
        except RecursionError:
            return {}


@attrs.define
class Document:
    """All files as one; `complete` says whether all could be read."""

    sources: Sequence[Source]
    data: dict[str, Any] = attrs.Factory(dict)
    complete: bool = True

    def place(self, path: KeyPath) -> tuple[str, int | None]:
        """The file and line of a key, or of the nearest table around it."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, ("", None))

    @cached_property
    def _places(self) -> Mapping[KeyPath, tuple[str, int | None]]:
        """Where each key of the document stands: the merge once more, taking notes."""
        data: dict[str, Any] = {}
        places: dict[KeyPath, tuple[str, int | None]] = {(): (self.sources[0].file, None)} if self.sources else {}
        for source in self.sources:
            with suppress(RecursionError):
                _Merge(source, [], places).table(data, source.data, (), ())
        return places


def files_of(path: Path) -> tuple[list[Path], list[Problem]]:
    """The files of the node whose main file is `path`, in the order in which they are merged."""
    folder = path.parent / "conf.d"
    try:
        about = folder.stat()
        problem = distrust(folder, about)
        # hidden names are editors' locks and backups
        more = sorted(file for file in folder.iterdir() if file.suffix == ".toml" and not file.name.startswith("."))
    except FileNotFoundError:
        return [path], []
    except OSError as error:
        return [path], [unreadable(folder, error)]
    return ([path], [problem]) if problem else ([path, *more], [])


def read(path: Path) -> Source | Problem:
    """A file from disk."""
    text = read_text(path)
    return text if isinstance(text, Problem) else parse(text, str(path))


def parse(text: str, file: str) -> Source | Problem:
    """A file's text; `file` is what problems call it."""
    try:
        return Source(file, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        return _syntax_problem(str(error), text, file)
    except RecursionError:
        return _too_deep(file)
    except ValueError as error:  # a number of thousands of digits
        return Problem((), f"is not valid TOML: {error}", "", file)


def _syntax_problem(error: str, text: str, file: str) -> Problem:
    match = _PLACE.fullmatch(error)
    if match is None:
        return Problem((), f"is not valid TOML: {error}", "", file)
    what = match["what"][:1].lower() + match["what"][1:]
    if match["line"] is None:
        return Problem((), f"is not valid TOML at its end: {what}", _syntax_hint(what), file, text.count("\n") + 1)
    return Problem((), f"is not valid TOML at column {match['column']}: {what}", _syntax_hint(what), file, int(match["line"]))


def _syntax_hint(what: str) -> str:
    if "overwrite" in what or "declare" in what or "duplicate" in what:
        return "every key and table stands once in a file: put the two together"
    if "after a key" in what:
        return "an assignment is written key = value, a table's header [table]"
    return 'strings stand in quotes ("eth0"), lists in brackets (["a", "b"]), each assignment on a line of its own'


def merge(sources: Sequence[Source]) -> tuple[Document, list[Problem]]:
    """All files as one document, and every key that more than one of them sets."""
    document, problems = Document(sources), list[Problem]()
    for source in sources:
        merging = _Merge(source, [], None)
        try:
            merging.table(document.data, source.data, (), ())
        except RecursionError:
            problems.append(_too_deep(source.file))
        for path, origin in merging.clashes:
            file, line = document.place(path)
            message = f"is already set in {file}" + (f", line {line}" if line else "")
            problems.append(Problem(path, message, "keep one of the two: no file overrides another", source.file, source.lines.get(origin)))
    return document, problems


def _too_deep(file: str) -> Problem:
    return Problem((), "lists or tables are nested too deeply", "a node file needs five levels at most", file)


@attrs.frozen
class _Merge:
    """
    One file on its way into the document: a value stands at `origin` in the file and goes to `path` in the document.

    `clashes` takes the keys that are there already, `places` the place of everything new.
    """

    source: Source
    clashes: list[tuple[KeyPath, KeyPath]]
    places: dict[KeyPath, tuple[str, int | None]] | None

    def table(self, into: dict[str, Any], table: Mapping[str, Any], path: KeyPath, origin: KeyPath) -> None:
        for key, value in table.items():
            if key in into:
                self._second(into[key], value, (*path, key), (*origin, key))
            else:
                into[key] = self._new(value, (*path, key), (*origin, key))

    def _second(self, there: Any, value: Any, path: KeyPath, origin: KeyPath) -> None:
        """A key that an earlier file has, too."""
        if isinstance(there, dict) and isinstance(value, Mapping):
            self.table(there, value, path, origin)
        elif _is_table_list(there) and _is_table_list(value):
            for index, item in enumerate(value):
                there.append(self._new(item, (*path, len(there)), (*origin, index)))
        else:
            self.clashes.append((path, origin))

    def _new(self, value: Any, path: KeyPath, origin: KeyPath) -> Any:
        """The value in containers of our own."""
        if self.places is not None:
            self.places[path] = (self.source.file, self.source.lines.get(origin))
        if isinstance(value, Mapping):
            return {key: self._new(item, (*path, key), (*origin, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._new(item, (*path, index), (*origin, index)) for index, item in enumerate(value)]
        return value


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
