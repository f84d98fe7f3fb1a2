# SPDX-License-Identifier: Apache-2.0
"""A program puts another text into a file that a key names: it runs, or nothing changed."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xdpchain.errors import ExitCode

from core.tests.daemon.process import Daemon
from core.tests.daemon.test_text_files import LISTER, NODE, differs, listed, write
from core.tests.plugins.build import make_plugin

CHECK = """
    def check(self, config):
        wrong = ((number, line) for number, line in enumerate(config.list.text.splitlines(), 1) if not line.isdigit())
        for number, line in wrong:
            yield xdpchain.Problem(("list",), f"{line} is no port", "write a number", str(config.list.file), number)

    def maps("""


@pytest.fixture
def lister(daemon: Daemon, link: str) -> Daemon:
    """A daemon whose node drops the ports 53 and 54, which a file lists; there is room for 16."""
    make_plugin(daemon.base / "plugins", "lister", LISTER.replace("\n    def maps(", CHECK, 1))
    daemon.configure(NODE)
    write(daemon, 53, 54)
    listing(daemon).chmod(0o640)
    daemon.start()
    return daemon


def listing(daemon: Daemon) -> Path:
    return daemon.file.parent / "ports.txt"


def new(daemon: Daemon, text: str | bytes) -> str:
    """A file with a text, elsewhere."""
    path = daemon.base / "new.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def about(path: Path) -> Any:
    """All that is known of a file, and what is in its directory."""
    one = path.stat()
    return one.st_ino, one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, path.read_text(), names(path.parent)


def test_a_text_is_put_and_runs(lister: Daemon) -> None:
    before = lister.data("status")["config"]["since"]

    plan = lister.data("put", "lister", "list", new(lister, "53\n99\n"))

    assert [("configure", "lister")] == [(action["action"], action["subject"]) for action in plan["actions"]]
    assert {53, 99} == listed(lister)
    assert "53\n99\n" == listing(lister).read_text()
    assert 0o640 == stat.S_IMODE(listing(lister).stat().st_mode)
    assert ["node.toml", "ports.txt"] == names(lister.file.parent)
    assert not differs(lister)
    assert lister.data("status")["config"]["since"] > before
    (event,) = lister.events("text_put")
    assert ("lister", "list", str(listing(lister)), 6) == tuple(event[name] for name in ("instance", "key", "file", "bytes"))


def test_a_text_may_come_by_standard_input(lister: Daemon) -> None:
    script = "from xdpchain.cli import main; main(['put', 'lister', 'list'])"
    done = subprocess.run([sys.executable, "-c", script], env=lister.environment, input="7\n", capture_output=True, text=True, check=True)

    assert done.stdout.endswith("applied\n")
    assert {7} == listed(lister)


def test_the_same_text_again_is_nothing_to_do(lister: Daemon) -> None:
    before = about(listing(lister))

    assert lister.cli("put", "lister", "list", new(lister, "53\n54\n")).startswith("nothing to do")

    assert before == about(listing(lister))


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("53\nsome\n", ExitCode.CONFIG, "ports.txt:2: function.lister.list: some is no port"),
        ("".join(f"{port}\n" for port in range(20)), ExitCode.KERNEL, "map lister_ports is full: 16 entries"),
        (b"53\n\xff\n", ExitCode.CONFIG, "function.lister.list: this is not UTF-8 text (byte 3)"),
    ],
    ids=["refused", "failing", "no text"],
)
def test_what_cannot_run_changes_nothing(lister: Daemon, text: str | bytes, code: ExitCode, says: str) -> None:
    before = about(listing(lister))

    assert says in lister.cli("put", "lister", "list", new(lister, text), code=code)

    assert before == about(listing(lister))
    assert {53, 54} == listed(lister)
    assert not differs(lister)
    lister.cli("put", "lister", "list", new(lister, "99\n"))
    assert {99} == listed(lister)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("lister", "room"), ExitCode.CONFIG, "function.lister.room: names no file\n    hint: keys that do: list"),
        (("lister", "text"), ExitCode.CONFIG, "function.lister.text: names no file"),
        (("lister", "__class__"), ExitCode.CONFIG, "names no file"),
        (("nobody", "list"), ExitCode.DAEMON, "no instance is called 'nobody'\nhint: running are: lister"),
    ],
)
def test_only_what_a_running_key_names_is_written(lister: Daemon, arguments: tuple[str, str], code: ExitCode, says: str) -> None:
    assert says in lister.cli("put", *arguments, new(lister, "1\n"), code=code)


def test_edits_that_nobody_applied_are_not_applied_by_the_way(lister: Daemon) -> None:
    lister.configure(NODE.replace("ports.txt", "other.txt"))
    (lister.file.parent / "other.txt").write_text("1\n")

    text = lister.cli("put", "lister", "list", new(lister, "99\n"), code=ExitCode.CONFIG)

    assert "node.toml: was changed and not applied: this would apply it, too\n    hint: run `xdpchain apply` first" in text
    assert ("53\n54\n", "1\n") == tuple((lister.file.parent / name).read_text() for name in ("ports.txt", "other.txt"))
    assert {53, 54} == listed(lister)
    lister.cli("apply")
    lister.cli("put", "lister", "list", new(lister, "99\n"))
    assert ("53\n54\n", "99\n") == tuple((lister.file.parent / name).read_text() for name in ("ports.txt", "other.txt"))


def test_an_edit_of_the_same_file_gives_way(lister: Daemon) -> None:
    write(lister, 1)

    lister.cli("put", "lister", "list", new(lister, "99\n"))

    assert {99} == listed(lister)


def test_a_rollback_takes_a_put_back_and_holds_until_the_next_apply(lister: Daemon) -> None:
    lister.cli("put", "lister", "list", new(lister, "99\n"))

    lister.cli("rollback")

    assert {53, 54} == listed(lister)
    text = lister.cli("put", "lister", "list", new(lister, "7\n"), code=ExitCode.CONFIG)
    assert "is not what runs (rollback)" in text
    assert "99\n" == listing(lister).read_text()
    lister.cli("apply")
    lister.cli("put", "lister", "list", new(lister, "7\n"))
    assert {7} == listed(lister)


def test_a_put_survives_a_restart(lister: Daemon) -> None:
    lister.cli("put", "lister", "list", new(lister, "99\n"))

    lister.end()
    lister.start()

    assert {99} == listed(lister)


def test_a_link_stays_a_link(lister: Daemon) -> None:
    listing(lister).rename(lister.base / "elsewhere.txt")
    listing(lister).symlink_to(lister.base / "elsewhere.txt")

    lister.cli("put", "lister", "list", new(lister, "99\n"))

    assert listing(lister).is_symlink()
    assert "99\n" == (lister.base / "elsewhere.txt").read_text()
    assert [] == [name for name in names(lister.base) if "elsewhere" in name and name != "elsewhere.txt"]


def test_a_file_that_is_gone_is_not_made(lister: Daemon) -> None:
    listing(lister).unlink()

    text = lister.cli("put", "lister", "list", new(lister, "99\n"), code=ExitCode.DAEMON)

    assert f"cannot write {listing(lister)}: No such file or directory" in text
    assert {53, 54} == listed(lister)
    assert ["node.toml"] == names(lister.file.parent)


def test_what_a_killed_daemon_left_beside_the_file_is_in_nobodys_way(lister: Daemon) -> None:
    for word in ("new", "old"):
        (lister.file.parent / f".ports.txt.{word}").write_text("1\n")

    lister.cli("put", "lister", "list", new(lister, "99\n"))

    assert {99} == listed(lister)
    assert ["node.toml", "ports.txt"] == names(lister.file.parent)
