# SPDX-License-Identifier: Apache-2.0
"""Several files as one node, and files that are not read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from xdpchain.config import key_path, load, loads
from xdpchain.errors import ConfigError, Problem

from core.tests.config.example import FUNCTIONS

MAIN = '[interface.eth0]\nchain = ["limit"]\n[function.limit]\nwindow = "1s"\n[[function.limit.rule]]\nports = [80]\nrate = 1\n'


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A main file with an empty conf.d beside it."""
    (tmp_path / "conf.d").mkdir(mode=0o755)
    (tmp_path / "node.toml").write_text(MAIN)
    return tmp_path / "node.toml"


def problems_of(node: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        load(node, FUNCTIONS)
    return raised.value.problems


def add(node: Path, name: str, text: str) -> Path:
    path = node.parent / "conf.d" / name
    path.write_text(text)
    return path


def test_a_file_in_conf_d_adds_interfaces_and_instances(node: Path) -> None:
    add(node, "tap.toml", '[interface."tap*"]\nchain = ["mark"]\n[function.mark]\nlevel = 4\n')

    config = load(node, FUNCTIONS)

    assert [interface.pattern for interface in config.interfaces] == ["eth0", "tap*"]
    assert config.instances["mark"].config.level == 4


def test_lists_of_tables_grow_in_the_order_of_file_names(node: Path) -> None:
    for number in (84, 82, 85, 81, 83):
        add(node, f"{number}.toml", f"[[function.limit.rule]]\nports = [{number}]\nrate = 1\n")

    config = load(node, FUNCTIONS)

    assert [rule.ports[0].first for rule in config.instances["limit"].config.rule] == [80, 81, 82, 83, 84, 85]


def test_a_problem_in_an_added_table_stands_in_its_own_file_and_line(node: Path) -> None:
    added = add(node, "more.toml", "\n\n[[function.limit.rule]]\nports = [81]\nrate = 0\n")

    (problem,) = problems_of(node)

    assert (problem.file, problem.line) == (str(added), 5)
    assert key_path(problem.path) == "function.limit.rule[1].rate"


def test_a_file_may_add_keys_to_a_table_of_another(node: Path) -> None:
    add(node, "more.toml", '[interface.eth0]\nxdp_mode = "generic"\n[function.limit]\nsources = 7\n')

    config = load(node, FUNCTIONS)

    assert config.interfaces[0].xdp_mode == "generic"
    assert config.instances["limit"].config.sources == 7


def test_a_key_that_two_files_set_is_an_error_that_names_both(node: Path) -> None:
    added = add(node, "more.toml", '[function.limit]\nwindow = "2s"\n')

    (problem,) = problems_of(node)

    assert (problem.file, problem.line) == (str(added), 2)
    assert problem.message == f"is already set in {node}, line 4"


def test_an_interface_that_two_files_describe_is_an_error_for_every_key_they_share(node: Path) -> None:
    added = add(node, "copy.toml", MAIN)

    problems = problems_of(node)

    assert [(key_path(problem.path), problem.file) for problem in problems if "already set" in problem.message] == [
        ("interface.eth0.chain", str(added)),
        ("function.limit.window", str(added)),
    ]


def test_a_table_in_one_file_and_a_value_in_another_is_an_error(node: Path) -> None:
    add(node, "more.toml", "function = 1\n")

    (problem,) = problems_of(node)

    assert problem.message == f"is already set in {node}, line 3"


def test_problems_of_all_files_come_together_in_order(node: Path) -> None:
    node.write_text(MAIN.replace("rate = 1", "rate = 0").replace('"1s"', "1"))
    first = add(node, "1.toml", "[node]\nmetrics = 1\nrubbish = 2\n")
    second = add(node, "2.toml", "[node\n")

    places = [(problem.file, problem.line) for problem in problems_of(node)]

    assert places == [(str(node), 4), (str(node), 7), (str(first), 2), (str(first), 3), (str(second), 1)]


def test_nothing_is_missed_that_an_unreadable_file_may_hold(node: Path) -> None:
    node.write_text(MAIN.replace('["limit"]', '["limit", "spread", "unheard_of"]'))
    added = add(node, "spread.toml", "[function.spread]\nsource = oops\n")

    (problem,) = problems_of(node)

    assert (problem.file, problem.line) == (str(added), 2)


def test_hidden_files_and_other_endings_are_left_out(node: Path) -> None:
    for name in (".hidden.toml", "node.toml~", "node.toml.bak", "README"):
        add(node, name, "rubbish")
    (node.parent / "conf.d" / ".#lock.toml").symlink_to("nowhere")

    assert load(node, FUNCTIONS).interfaces[0].pattern == "eth0"


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "node.toml")

    assert problem.message == "cannot be read: no such file or directory"
    assert problem.file == str(tmp_path / "node.toml")


def test_a_folder_is_not_a_node_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path)

    assert problem.message in {"is not a regular file", "cannot be read: is a directory"}


def test_a_pipe_is_refused_and_does_not_hang(node: Path) -> None:
    node.unlink()
    os.mkfifo(node, 0o600)

    (problem,) = problems_of(node)

    assert problem.message == "is not a regular file"


def test_a_dangling_link_in_conf_d_is_an_error(node: Path) -> None:
    (node.parent / "conf.d" / "gone.toml").symlink_to("nowhere")

    (problem,) = problems_of(node)

    assert problem.message == "cannot be read: no such file or directory"


def test_a_file_in_place_of_conf_d_is_an_error(node: Path) -> None:
    (node.parent / "conf.d").rmdir()
    (node.parent / "conf.d").write_text("")

    (problem,) = problems_of(node)

    assert problem.message == "cannot be read: not a directory"


def test_text_that_is_not_utf8_is_an_error(node: Path) -> None:
    node.write_bytes(b"[node]\nmetrics = '\xff'\n")

    (problem,) = problems_of(node)

    assert problem.message == "is not UTF-8 text (byte 18)"


def test_a_number_of_absurd_length_is_an_error() -> None:
    with pytest.raises(ConfigError, match="1 error in"):
        loads("a = " + "1" * 10_000, FUNCTIONS)


@pytest.mark.parametrize("depth", [100, 300, 400, 500, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{ a = ", " }")])
def test_absurd_nesting_is_an_error_like_any_other(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(ConfigError):
        loads("a = " + opening * depth + "1" + closing * depth, FUNCTIONS)


def test_absurd_nesting_of_a_dict_is_an_error_like_any_other() -> None:
    document: dict[str, Any] = {}
    for _ in range(2000):
        document = {"node": document}

    with pytest.raises(ConfigError) as raised:
        loads(document, FUNCTIONS)

    assert "nested too deeply" in raised.value.problems[0].message


@pytest.mark.parametrize(("mode", "trusted"), [(0o644, True), (0o600, True), (0o664, False), (0o646, False), (0o602, False)])
def test_root_reads_no_file_that_others_can_write(node: Path, mode: int, trusted: bool) -> None:
    node.chmod(mode)
    if trusted:
        load(node, FUNCTIONS)
        return

    (problem,) = problems_of(node)

    assert "can be written by others than root" in problem.message
    assert problem.hint == f"chmod go-w {node}"


def test_root_reads_no_file_of_another_user(node: Path) -> None:
    added = add(node, "more.toml", "")
    os.chown(added, 12345, 0)

    (problem,) = problems_of(node)

    assert problem.message == "belongs to user 12345, not to root"
    assert problem.hint == f"chown root {added}"


def test_root_reads_no_folder_that_others_can_write(node: Path) -> None:
    (node.parent / "conf.d").chmod(0o777)

    (problem,) = problems_of(node)

    assert problem.file == str(node.parent / "conf.d")
    assert "can be written by others" in problem.message


def test_other_users_read_what_they_like(node: Path) -> None:
    """In a child process that gives up root for good: `check` must work for a user's own files."""
    node.chmod(0o666)
    for parent in node.parents[:-1]:
        if parent.stat().st_uid == 0 and parent.parts[:2] == ("/", "tmp") and len(parent.parts) > 2:
            parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setresuid(12345, 12345, 12345)
        try:
            load(node, FUNCTIONS)
        except BaseException:  # noqa: BLE001 - the child must end here whatever happens
            os._exit(1)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
