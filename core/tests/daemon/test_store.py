# SPDX-License-Identifier: Apache-2.0
"""What was applied last survives whatever happens to the daemon."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xdpchain.daemon.store import Record, Store, read_texts, then
from xdpchain.errors import DaemonError

A, B, C = ({"node.toml": text} for text in (b"a", b"b", b"c"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_nothing_was_applied_at_first(store: Store) -> None:
    assert store.read() is None


def test_what_is_written_is_read(store: Store) -> None:
    record = Record({"node.toml": b"a", "conf.d/10.toml": b"b"}, B, "/etc/x", rolled_back=True)

    store.write(record)

    assert store.read() == record
    assert read_texts(store.good) == record.good
    assert read_texts(store.previous) == B


def test_text_files_are_kept_wherever_they_lie(store: Store) -> None:
    texts = {"node.toml": b"a", "text:vips.txt": b"new\r\n", "text:/etc/../far away/\xfc.txt": "\xfc\n".encode()}
    record = Record(texts, {**texts, "text:vips.txt": b"old"}, "/etc/x")

    store.write(record)

    assert store.read() == record
    assert store.kept(store.good) == {"vips.txt": "new\r\n", "/etc/../far away/\xfc.txt": "\xfc\n"}
    assert (store.kept(store.previous) or {})["vips.txt"] == "old"


def test_a_file_that_is_no_record_has_nothing_kept_with_it(store: Store, tmp_path: Path) -> None:
    store.write(Record(A, B))

    assert store.kept(store.good) == {}
    assert store.kept(tmp_path / "node.toml") is None


def test_text_files_are_read_beside_the_file_that_names_them(tmp_path: Path) -> None:
    for name in ("node.toml", "list.txt", "other.txt"):
        (tmp_path / name).write_text(name)
    like = {"node.toml", "text:list.txt", f"text:{tmp_path}/other.txt", "text:gone.txt"}

    texts = read_texts(tmp_path / "node.toml", like)

    assert texts == {"node.toml": b"node.toml", "text:list.txt": b"list.txt", f"text:{tmp_path}/other.txt": b"other.txt"}


def test_only_the_newest_record_stays(store: Store) -> None:
    for number in range(4):
        store.write(Record({"node.toml": str(number).encode()}))

    assert sorted(path.name for path in store.state.iterdir()) == ["applied", "applied.4"]


def test_only_the_owner_can_read_it(store: Store) -> None:
    store.write(Record(A, B))

    for path in (store.state / "applied").resolve().rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_the_same_configuration_again_keeps_the_one_before() -> None:
    record = then(then(then(None, A, "f"), B, "f"), B, "f")

    assert (record.good, record.previous) == (B, A)


def test_a_rollback_changes_current_and_previous() -> None:
    record = Record(B, A, "f").back(on_disk=B)

    assert (record.good, record.previous, record.rolled_back) == (A, B, True)
    assert (record.back(on_disk=B).good, record.back(on_disk=B).rolled_back) == (B, False)


def test_there_is_nothing_before_the_first() -> None:
    with pytest.raises(DaemonError, match="no configuration to go back to"):
        Record(A).back(on_disk=A)


def test_hidden_files_beside_the_node_file_are_not_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for name in ("node.toml", "conf.d/a.toml", "conf.d/.b.toml", "conf.d/c.txt"):
        (tmp_path / name).write_text(name)

    assert set(read_texts(tmp_path / "node.toml")) == {"node.toml", "conf.d/a.toml"}


def test_a_daemon_that_is_killed_while_it_writes_leaves_a_whole_record(store: Store) -> None:
    """A child writes records, good always one more than previous, until it is killed; at no moment is one mixed."""
    script = """
import sys
from pathlib import Path
from xdpchain.daemon.store import Record, Store
number = int(sys.argv[2])
while True:
    number += 1
    text = lambda n: {"node.toml": b"%d" % n, "conf.d/x.toml": b"%d" % n}
    Store(Path(sys.argv[1])).write(Record(text(number), text(number - 1), str(number)))
"""
    number, link, newest = 0, store.state / "applied", ""
    for round_number in range(15):
        child = subprocess.Popen([sys.executable, "-c", script, str(store.state), str(number)])
        while not link.is_symlink() or link.readlink().name == newest:
            time.sleep(0.01)
        until = time.monotonic() + 0.05 + round_number * 0.013
        while time.monotonic() < until:
            assert link.is_symlink()
        child.kill()
        child.wait()

        record = store.read()

        assert record is not None
        number, newest = int(record.source), link.readlink().name
        assert set(record.good.values()) == {str(number).encode()}
        assert record.previous is not None
        assert set(record.previous.values()) == {str(number - 1).encode()}
    assert number > 15
    assert (store.state / "applied").is_symlink()
