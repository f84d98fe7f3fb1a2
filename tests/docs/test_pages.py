# SPDX-License-Identifier: Apache-2.0
"""All pages: links lead somewhere, node files load, commands and their options exist."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import click
import pytest
from xdpchain.cli import main as client
from xdpchain.config import loads
from xdpchain.daemon.main import main as daemon
from xdpchain.plugins import load_plugins

from docs.generate import shipped
from tests.docs.markdown import ROOT, Block, anchors, blocks, code_spans, links, pages

PROMPTS = ("# ", "$ ")
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


def _is_node_file(block: Block) -> bool:
    """Whether it has chains, of functions of this repository alone."""
    document = tomllib.loads(block.text) if block.info.split()[:1] == ["toml"] else {}
    functions = {table.get("plugin", name) for name, table in document.get("function", {}).items()}
    return "interface" in document and functions <= {*shipped()}


NODE_FILES = [block for page in pages() for block in blocks(page) if _is_node_file(block)]
SAMPLES = [block for page in pages() for block in blocks(page) if block.info.split()[:1] == ["console"]]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in (link for link in links(page) if "://" not in link and not link.startswith("mailto:")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)

    assert dead == []


@pytest.mark.parametrize("block", NODE_FILES, ids=str)
def test_node_files_load(block: Block) -> None:
    node = loads(block.text, load_plugins().functions)

    assert node.warnings == ()


@pytest.mark.parametrize("block", SAMPLES, ids=str)
def test_commands_in_samples_exist_and_take_their_options(block: Block) -> None:
    for line in block.text.splitlines():
        if line.startswith(PROMPTS):
            _check(line[2:])


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist_and_take_their_options(page: Path) -> None:
    for span in code_spans(page):
        if span.startswith("xdpchain "):
            _check(span)


def _check(line: str) -> None:
    """Parse a command of ours as its own parser would; what it means is not looked at, and nothing runs."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True  # an address with its port is one word
    words = list(lexer)
    for at, word in enumerate(words):
        name = word.rpartition("/")[2]
        before = words[at - 1] if at else ""
        if name not in {"xdpchain", "xdpchaind"} or (at and before not in {"|", "&&", ";", "./run"} and not before.startswith("--net=")):
            continue
        until = next((end for end in range(at, len(words)) if set(words[end]) <= set("|&;<>")), len(words))
        _parse(daemon if name == "xdpchaind" else client, name, words[at + 1 : until])


def _parse(command: click.Command, name: str, arguments: list[str]) -> None:
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        inner = command.get_command(context, arguments[0])
        assert inner is not None, f"{name} has no command {arguments[0]!r}"
        _parse(inner, arguments[0], arguments[1:])
        return
    try:
        _, left, _ = command.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        pytest.fail(f"{name} {' '.join(arguments)}: {error.format_message()}")
    assert left == [], f"{name} does not take {left}"
