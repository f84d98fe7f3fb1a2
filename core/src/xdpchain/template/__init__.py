# SPDX-License-Identifier: Apache-2.0
"""
The repository that `xdpchain new` writes.

It lies here as what it is, a function called geoblock that works and is tested as it stands; another function of that kind has another
name wherever this one stands.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from xdpchain.bpf.unit import INCLUDE
from xdpchain.plugin_checks import NAME
from xdpchain.plugins import load_plugins

ORIGINAL = "geoblock"
FILES = (
    "pyproject.toml",
    "README.md",
    f"src/xdpchain_{ORIGINAL}/__init__.py",
    f"src/xdpchain_{ORIGINAL}/{ORIGINAL}.bpf.c",
    f"tests/test_{ORIGINAL}.py",
)

_HERE = Path(__file__).parent
_C_WORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return short signed
sizeof static struct switch typedef typeof union unsigned void volatile while asm bool linux unix main size_t u8 u16 u32 u64 s8 s16 s32 s64
"""
"""keywords of C, and what the compiler and the kernel's headers define in lower case"""
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def render(name: str) -> dict[str, str]:
    """The files of a function called `name`, by their path in its repository."""
    return {_renamed(path, name): _renamed((_HERE / path).read_text(encoding="utf-8"), name) for path in FILES}


def fault_of(name: str) -> str:
    """Why a function cannot be called so; empty where it can."""
    if not NAME.fullmatch(name):
        return f"{name!r} is no name for a function: a lower case letter, then letters, digits or _ (32 at most)"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return f"{name!r} is a word of Python"
    if name in _C_WORDS.split():
        return f"{name!r} is a word of C"
    if name in _words_of_headers():
        return f"{name!r} is a word of xdpchain.h, so no C function can have that name"
    plugins = load_plugins()
    if name in {*plugins.functions, *(one.name for one in plugins.loaded), *(one.name for one in plugins.broken)}:
        return f"a plugin {name!r} is installed here: two functions of one name cannot be loaded together"
    if importlib.util.find_spec(f"xdpchain_{name}"):
        return f"a package xdpchain_{name} is installed here already"
    return ""


def _renamed(text: str, name: str) -> str:
    title = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(ORIGINAL.capitalize(), title).replace(ORIGINAL, name)


def _words_of_headers() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in INCLUDE.glob("*.h"))
    return set(re.findall(r"\w+", _COMMENT.sub(" ", text)))
