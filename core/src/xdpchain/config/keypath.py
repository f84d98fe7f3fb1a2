# SPDX-License-Identifier: Apache-2.0
"""Key paths: where a value stands in a TOML document, as a tuple and as text."""

from __future__ import annotations

import re

from xdpchain.config.misfit import quoted

KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key_path(path: KeyPath) -> str:
    """`("interface", "tap*", "chain", 0)` as `interface."tap*".chain[0]`: dotted keys as TOML writes them, list items in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else quoted(part))
    return text
