# SPDX-License-Identifier: Apache-2.0
"""Reading the documentation: its pages, headings, links and fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
_ELSEWHERE = {"build", "dist", "template"}
_FENCE = re.compile(r"^(?P<fence>```+|~~~+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@attrs.frozen
class Block:
    """A fenced block: `info` is what stands behind the fence, `line` (from 1) where the block begins."""

    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All Markdown files of the repository, but for templates and what tools leave."""
    return sorted(path for path in ROOT.rglob("*.md") if not any(map(_is_elsewhere, path.relative_to(ROOT).parts)))


def _is_elsewhere(part: str) -> bool:
    return part in _ELSEWHERE or part.startswith(".")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["info"].strip(), match["text"])


def links(page: Path) -> list[str]:
    """Where the links of a page lead to."""
    return _LINK.findall(_prose(page))


def code_spans(page: Path) -> list[str]:
    """What stands between backticks in the text of a page."""
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", _prose(page))]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may say behind the `#`, by the rule of the usual forges."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its header."""
    section = re.split(rf"^#+ {re.escape(heading)}$", page.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None, f"no table under {heading!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
