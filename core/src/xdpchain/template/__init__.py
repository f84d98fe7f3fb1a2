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

import xdpchain
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
_ENTRY_WORDS = {"bytes", "ctx", "data", "end", "linear", "packet", "v"}
"""variables of the entry that the core generates around a function: they would hide it"""
_TAKEN_IN_HEADER = re.compile(r"\b([a-z_]\w*)\(|\btypedef\b[^;]*?(\w+);")
_C_PREFIXES = ("bpf_", "load_", "xc_")
"""of the kernel's helpers, bcc's and the core's"""
_PYTHON_NAMES = {*xdpchain.__all__, "Any", "Iterable", "Path", "Sequence"}
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
    if _title(name) in _PYTHON_NAMES or keyword.iskeyword(_title(name)):
        return f"its class would be called {_title(name)}, which means something else already"
    if name in _words_of_headers() or name.startswith(_C_PREFIXES):
        return f"{name!r} means something else where xdpchain.h is included"
    plugins = load_plugins()
    if name in {*plugins.functions, *(one.name for one in plugins.loaded), *(one.name for one in plugins.broken)}:
        return f"a plugin {name!r} is installed here: two functions of one name cannot be loaded together"
    if importlib.util.find_spec(f"xdpchain_{name}"):
        return f"a package xdpchain_{name} is installed here already"
    return ""


def _renamed(text: str, name: str) -> str:
    return text.replace(ORIGINAL.capitalize(), _title(name)).replace(ORIGINAL, name)


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _words_of_headers() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in INCLUDE.glob("*.h"))
    found = _TAKEN_IN_HEADER.findall(_COMMENT.sub(" ", text))
    return {word for pair in found for word in pair} | _ENTRY_WORDS
