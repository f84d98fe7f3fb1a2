# SPDX-License-Identifier: Apache-2.0
"""Keys that name a file of text: it is read with the node, and what it says is part of the config."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
from xdpchain.config import TextFile, json_schema, key_path, load, loads, option, reference
from xdpchain.config.trust import MAX_BYTES
from xdpchain.errors import ConfigError, Problem
from xdpchain.function import API_VERSION, Hook, KernelFunction, Program

NODE = '[interface.eth0]\nchain = ["words"]\n[function.words]\nlist = "words.txt"\n'


@attrs.frozen(kw_only=True)
class WordsConfig:
    list: TextFile | None = option(default=None, help="Words.")


class Words(KernelFunction[WordsConfig]):
    api = API_VERSION
    name = "words"
    summary = "Knows words."
    source = Path("words.bpf.c")
    config = WordsConfig
    programs = (Program(Hook.XDP, "words"),)

    def check(self, config: WordsConfig) -> Iterable[Problem]:
        for number, line in enumerate(config.list.text.splitlines() if config.list else (), 1):
            if not line.isalpha():
                assert config.list is not None
                yield Problem(("list",), f"{line} is no word", "letters only", str(config.list.file), number)


FUNCTIONS = {"words": Words()}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node whose instance names the file `words.txt` beside it."""
    (tmp_path / "node.toml").write_text(NODE)
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    return tmp_path / "node.toml"


def read(node: Path, **kept: Any) -> TextFile:
    file = load(node, FUNCTIONS, **kept).instances["words"].config.list
    assert isinstance(file, TextFile)
    return file


def refused(node: Path) -> Problem:
    with pytest.raises(ConfigError) as raised:
        load(node, FUNCTIONS)
    (problem,) = raised.value.problems
    return problem


def test_a_key_names_a_file_beside_the_main_file(node: Path) -> None:
    file = read(node)

    assert (file.path, file.file, file.text) == ("words.txt", node.parent / "words.txt", "one\ntwo\n")
    assert load(node, FUNCTIONS).texts == (file,)


def test_a_file_in_conf_d_names_it_from_the_same_folder(node: Path) -> None:
    (node.parent / "conf.d").mkdir(mode=0o755)
    (node.parent / "conf.d" / "words.toml").write_text('[function.words]\nlist = "words.txt"\n')
    node.write_text('[interface.eth0]\nchain = ["words"]\n')

    assert read(node).text == "one\ntwo\n"


@pytest.mark.parametrize("path", ["{folder}/far.txt", "lists/../lists/far.txt"])
def test_a_path_may_lead_anywhere(node: Path, path: str) -> None:
    folder = node.parent / "lists"
    folder.mkdir()
    (folder / "far.txt").write_text("far\n")
    written = path.format(folder=folder)
    node.write_text(NODE.replace("words.txt", written))

    assert (read(node).path, read(node).text) == (written, "far\n")


def test_another_text_is_another_config(node: Path) -> None:
    before = load(node, FUNCTIONS).instances["words"].config
    assert before == load(node, FUNCTIONS).instances["words"].config

    (node.parent / "words.txt").write_text("one\n")

    assert before != load(node, FUNCTIONS).instances["words"].config


def test_a_problem_in_the_file_stands_in_its_own_line(node: Path) -> None:
    (node.parent / "words.txt").write_text("one\nand\ntwo 2\n")

    problem = refused(node)

    assert (problem.file, problem.line, problem.message) == (str(node.parent / "words.txt"), 3, "two 2 is no word")
    assert key_path(problem.path) == "function.words.list"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('"gone.txt"', "cannot be read: no such file or directory"),
        ('"."', "cannot be read: is a directory"),
        ('""', '"" is not a path'),
        ('"a\\u0000b"', "is not a path"),
        ("7", "must be the path of a file, not 7"),
        ('["words.txt"]', "must be the path of a file, not a list"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_of_its_key(node: Path, written: str, says: str) -> None:
    node.write_text(NODE.replace('"words.txt"', written))

    problem = refused(node)

    assert (problem.file, problem.line, key_path(problem.path)) == (str(node), 4, "function.words.list")
    assert says in problem.message
    assert problem.hint


def test_root_reads_no_text_that_others_can_write(node: Path) -> None:
    (node.parent / "words.txt").chmod(0o646)

    problem = refused(node)

    assert "can be written by others than root" in problem.message
    assert problem.hint == f"chmod go-w {node.parent / 'words.txt'}"


def test_a_pipe_is_no_text_and_does_not_hang(node: Path) -> None:
    (node.parent / "words.txt").unlink()
    os.mkfifo(node.parent / "words.txt", 0o600)

    assert "is not a regular file" in refused(node).message


def test_bytes_that_are_no_text_are_refused(node: Path) -> None:
    (node.parent / "words.txt").write_bytes(b"one\n\xff")

    assert "is not UTF-8 text (byte 4)" in refused(node).message


def test_a_file_of_absurd_size_is_refused(node: Path) -> None:
    os.truncate(node.parent / "words.txt", MAX_BYTES + 1)

    assert "is too large" in refused(node).message


def test_a_kept_text_is_taken_in_place_of_what_is_on_disk(node: Path) -> None:
    assert read(node, kept={"words.txt": "kept\n"}).text == "kept\n"

    with pytest.raises(ConfigError) as raised:
        load(node, FUNCTIONS, {})
    assert "was not kept" in raised.value.problems[0].message


def test_a_document_at_hand_names_files_from_the_current_directory(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(node.parent)

    assert loads(NODE, FUNCTIONS).instances["words"].config.list.text == "one\ntwo\n"


def test_a_document_may_hold_the_text_itself() -> None:
    given = TextFile("nowhere", Path("nowhere"), "one\n")

    assert loads({"function": {"words": {"list": given}}}, FUNCTIONS).instances["words"].config.list is given


def test_schema_and_reference_know_the_kind() -> None:
    assert json_schema(FUNCTIONS)["$defs"]["function.words"]["properties"]["list"] == {
        "type": "string",
        "minLength": 1,
        "description": "Words.",
    }
    assert "| `list` | the path of a file | not set | Words. |" in reference(FUNCTIONS).splitlines()
