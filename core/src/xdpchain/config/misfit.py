# SPDX-License-Identifier: Apache-2.0
"""How a value is refused: the exception of parsers and validators, and the words for what was written instead."""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterable
from typing import Any


class MisfitError(ValueError):
    """Raised when a value is not what its key takes. `example` is a right one as TOML writes it; `hint` replaces it where more can be said."""

    def __init__(self, message: str, *, hint: str = "", example: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.example = example


def given(value: Any) -> str:
    """A value in the words of TOML, for the end of "must be ..., not ..."."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return quoted(value)
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return "a date or time"
        case _:
            return f"a {type(value).__name__}"


def quoted(text: str) -> str:
    """A string as TOML writes it; long ones are cut, since a message is one line."""
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


def one_of(words: Iterable[str]) -> str:
    """`"a", "b" or "c"`."""
    *head, last = [quoted(word) for word in words]
    return f"{', '.join(head)} or {last}" if head else last


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint for a misspelt word: the known one that looks most like it, else `otherwise`."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean {quoted(by_lower[close[0]])}?" if close else otherwise
