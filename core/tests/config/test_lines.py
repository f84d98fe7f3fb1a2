# SPDX-License-Identifier: Apache-2.0
"""The line scanner against tomllib, which knows the keys, and against documents that carry their own line numbers."""

from __future__ import annotations

import itertools
import json
import random
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdpchain.config.keypath import KeyPath
from xdpchain.config.lines import key_lines

TRICKY = {
    "comments and blank lines": "# [no.table]\n\na = 1 # b = 2\n\n[t] # [u]\n\tc = 3\n",
    "hash in a string": "a = \"# no comment\" # one\nb = '# none'\n",
    "escaped quotes": 'a = "x \\" = [ y"\nb = "\\\\"\nc = 1\n',
    "multi-line basic string": 'a = """\n[t]\nb = 1\n\\"""\n"""\nc = 1\n',
    "multi-line literal string": "a = '''\n[t]\nb = 1\n'''\nc = 1\n",
    "quotes at the end of a multi-line string": 'a = """x""""\nb = """y"""""\nc = 1\n',
    "quotes at the end of a literal string": "a = '''x''''\nb = '''y'''''\nc = 1\n",
    "quotes inside multi-line strings": "a = \"\"\"one \" two \"\" three\"\"\"\nb = '''one ' two '' three'''\n",
    "empty strings": "a = \"\"\nb = ''\nc = \"\"\"\"\"\"\nd = ''''''\ne = 1\n",
    "quoted keys": '"a.b" = 1\n\'c = d\' = 2\n"e\\"f" = 3\n"" = 4\n"\\u0067" = 5\n',
    "dotted keys with blanks": 'a . b."c d" = 1\na.e = 2\n',
    "dotted header with blanks": "[ a . \"b.c\" . 'd' ]\ne = 1\n",
    "list over many lines": "a = [\n  1, # one\n\n  2,\n  [3,\n   4],\n]\nb = 1\n",
    "list of strings with brackets": 'a = ["]", \'[\', """]\n""", 1]\nb = 1\n',
    "inline tables": 'a = { b = 1, c.d = "}", e = { f = [ { g = 1 }, { g = 2 } ] } }\nh = {}\n',
    "lists of tables": "[[a]]\nb = 1\n[[a]]\nb = 2\n[[a.c]]\nd = 1\n[[a.c]]\nd = 2\n[a.c.e]\nf = 1\n[[a]]\n[[a.c]]\nd = 3\n",
    "a table after its sub-table": "[a.b]\nc = 1\n[a]\nd = 1\n",
    "dates": "a = 1979-05-27 07:32:00 # b\nc = 07:32:00\nd = [1979-05-27T07:32:00Z]\n",
    "carriage returns": 'a = 1\r\nb = """\r\nx\r\n"""\r\n[t]\r\nc = 2\r\n',
    "no newline at the end": "a = 1\n[t]\nb = 2",
    "only a comment": "# nothing",
    "nothing": "",
}


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key and list item of a document."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


@pytest.mark.parametrize("text", TRICKY.values(), ids=TRICKY.keys())
def test_every_key_and_item_has_a_line_whatever_the_notation(text: str) -> None:
    assert set(key_lines(text)) == set(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize("text", TRICKY.values(), ids=TRICKY.keys())
def test_a_key_after_a_tricky_document_is_on_the_line_after_it(text: str) -> None:
    lines = key_lines(f"{text}\n[after-all]\n")

    assert lines["after-all",] == text.count("\n") + 2


def test_a_table_stands_where_its_header_is() -> None:
    lines = key_lines("[a.b]\nc = 1\n\n[a]\nd = [\n 1,\n 2]\n[[e]]\n[[e]]\nf = 1\n")

    assert lines["a",] == 4
    assert lines["a", "b"] == 1
    assert lines["a", "d", 1] == 7
    assert lines["e",] == 8
    assert lines["e", 1] == 9
    assert lines["e", 1, "f"] == 10


KEYS = st.text(alphabet='ab-_1 ."#=[]é', min_size=0, max_size=4)
LEAVES = st.sampled_from(["int", "basic", "literal", "long basic", "long literal"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


class _Writer:
    """Writes a document in changing notations. Each leaf holds a number that stands nowhere else: its line is known by searching for it."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.numbers = itertools.count(10_000_001)
        self.leaves: dict[KeyPath, int] = {}

    def document(self, data: Mapping[str, Any]) -> str:
        return "".join(self.table(data, ()))

    def table(self, data: Mapping[str, Any], path: KeyPath) -> Iterator[str]:
        """The lines of a table without its header: a table in it may be inline, or come last under a header of its own."""
        headed = {}
        for key, value in data.items():
            if self.choices.random() < 0.6 and (
                isinstance(value, dict) or (isinstance(value, list) and value and all(isinstance(item, dict) for item in value))
            ):
                headed[key] = value
            else:
                yield f"{self.blank()}{self.key(key)}{self.blank()}= {self.value(value, (*path, key), broken=True)}{self.end()}"
        for key, value in headed.items():
            name = ".".join(self.key(part) for part in (*path, key) if isinstance(part, str))
            if isinstance(value, dict):
                yield f"[{self.blank()}{name}]{self.end()}"
                yield from self.table(value, (*path, key))
            else:
                for index, item in enumerate(value):
                    yield f"[[{name}{self.blank()}]]{self.end()}"
                    yield from self.table(item, (*path, key, index))

    def value(self, value: Any, path: KeyPath, *, broken: bool) -> str:
        if isinstance(value, list):
            gap = self.choices.choice(["\n", " ", "# ] , x\n"]) if broken else " "
            items = [f"{gap}{self.value(item, (*path, index), broken=broken)}{gap}" for index, item in enumerate(value)]
            return f"[{','.join(items)}{',' if items and self.choices.random() < 0.5 else ''}{gap}]"
        if isinstance(value, dict):
            return (
                "{ " + ", ".join(f"{self.key(key)} = {self.value(item, (*path, key), broken=False)}" for key, item in value.items()) + " }"
            )
        number = self.leaves[path] = next(self.numbers)
        return {
            "int": f"{number}",
            "basic": f'"{number} \\" # [x] = {{"',
            "literal": f"'{number} \" # ]] = }}'",
            "long basic": f'"""{number}\n[x]\ny = 1 \\""" ""\n"""""',
            "long literal": f"'''{number}\n[x]\ny = 1 '' \n''''",
        }[value]

    def key(self, key: str) -> str:
        bare = key and all(char in "ab-_1" for char in key)
        if bare and self.choices.random() < 0.7:
            return key
        return f"'{key}'" if self.choices.random() < 0.5 else json.dumps(key, ensure_ascii=self.choices.random() < 0.5)

    def blank(self) -> str:
        return self.choices.choice(["", " ", "\t"])

    def end(self) -> str:
        return self.choices.choice(["\n", "\n\n", " # [c] = 'x\n", "\n  # c = 1\n"])


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_every_key_of_a_random_document_is_found_on_its_line(data: dict[str, Any], choices: random.Random) -> None:
    writer = _Writer(choices)
    text = writer.document(data)

    lines = key_lines(text)

    assert set(lines) == set(paths_of(tomllib.loads(text)))
    text_lines = text.split("\n")
    # a key and the beginning of its value share a line, and so do a list item and its own
    assert {path: lines[path] for path in writer.leaves} == {
        path: next(line for line, content in enumerate(text_lines, 1) if str(number) in content) for path, number in writer.leaves.items()
    }


@given(st.text(alphabet="ab=.[]{}\"'\n#,1 \\", max_size=40))
def test_any_text_that_tomllib_takes_is_scanned_the_same(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    assert set(key_lines(text)) == set(paths_of(document))
