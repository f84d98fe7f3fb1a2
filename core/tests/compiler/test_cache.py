# SPDX-License-Identifier: Apache-2.0
"""The artifacts on disk: kept whole, and never believed when somebody else could have written them."""

import hashlib
import json
import os
from pathlib import Path

import attrs
import pytest
from xdpchain.bpf.artifact import Artifact, MapLayout, ProgramCode
from xdpchain.bpf.compiler import cache
from xdpchain.bpf.compiler.cache import Cache, key_of

NOBODY = 65534
ARTIFACT = Artifact(
    "k" * 64,
    {"xc_f": ProgramCode("xc_f", bytes(range(16)), {0: "f_map"})},
    {"f_map": MapLayout("f_map", 13, 4, 8, 1, flags=1, btf_key_id=2, btf_value_id=3, inner="f_inner")},
    b"\x9f\xeb",
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def entry(path):
    Cache(path).put(ARTIFACT)
    (file,) = path.iterdir()
    return file


def test_what_is_kept_comes_back(path, entry):
    assert Cache(path).get(ARTIFACT.key) == ARTIFACT
    assert Cache(path).get("another") is None
    assert entry.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o700


def poison_truncate(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-10])


def poison_empty(entry: Path) -> None:
    entry.write_bytes(b"")


def poison_flip_a_byte(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)


def poison_foreign_owner(entry: Path) -> None:
    os.chown(entry, NOBODY, NOBODY)


def poison_group_writable(entry: Path) -> None:
    entry.chmod(0o620)


def poison_world_writable(entry: Path) -> None:
    entry.chmod(0o602)


def poison_symlink(entry: Path) -> None:
    entry.rename(entry.with_name("real"))
    entry.symlink_to("real")


def poison_directory(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


def poison_fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry, 0o600)


def poison_other_format(entry: Path) -> None:
    body = json.dumps({**json.loads(ARTIFACT.to_json()), "format": 0})
    entry.write_text(hashlib.sha256(body.encode()).hexdigest() + "\n" + body)


def poison_other_key(entry: Path) -> None:
    Cache(entry.parent).put(attrs.evolve(ARTIFACT, key="other"))
    entry.with_name("other.artifact").replace(entry)


def poison_not_json(entry: Path) -> None:
    body = "[]"
    entry.write_text(hashlib.sha256(body.encode()).hexdigest() + "\n" + body)


POISONS = [function for name, function in sorted(globals().items()) if name.startswith("poison_")]


@pytest.mark.parametrize("poison", POISONS, ids=lambda function: function.__name__)
def test_a_poisoned_entry_is_as_if_it_were_not_there(path, entry, poison):
    poison(entry)

    assert Cache(path).get(ARTIFACT.key) is None


@pytest.mark.parametrize("poison", [p for p in POISONS if p is not poison_directory], ids=lambda function: function.__name__)
def test_a_poisoned_entry_is_written_anew(path, entry, poison):
    poison(entry)

    Cache(path).put(ARTIFACT)

    assert Cache(path).get(ARTIFACT.key) == ARTIFACT
    assert not [file for file in path.iterdir() if file.name.endswith(".new")]


def test_the_directory_of_somebody_else_keeps_nothing(path, entry):
    os.chown(path, NOBODY, NOBODY)

    assert Cache(path).get(ARTIFACT.key) is None
    Cache(path).put(attrs.evolve(ARTIFACT, key="new"))

    assert [file.name for file in path.iterdir()] == [entry.name]


def test_a_directory_behind_a_symlink_keeps_nothing(tmp_path, path, entry):
    link = tmp_path / "link"
    link.symlink_to(path)

    assert Cache(link).get(ARTIFACT.key) is None


def test_an_open_directory_is_closed_to_others(path, entry):
    path.chmod(0o777)

    assert Cache(path).get(ARTIFACT.key) == ARTIFACT
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    unusable = Cache(tmp_path / "file" / "cache")

    unusable.put(ARTIFACT)

    assert unusable.get(ARTIFACT.key) is None


def test_the_least_recently_used_go_when_there_are_too_many(path, monkeypatch):
    monkeypatch.setattr(cache, "KEEP", 3)
    for number in range(3):
        Cache(path).put(attrs.evolve(ARTIFACT, key=f"key{number}"))
        os.utime(path / f"key{number}.artifact", (number, number))
    (path / "unrelated").write_text("")

    assert Cache(path).get("key0")
    Cache(path).put(attrs.evolve(ARTIFACT, key="key3"))

    assert sorted(file.name for file in path.iterdir()) == ["key0.artifact", "key2.artifact", "key3.artifact", "unrelated"]


def test_the_key_follows_the_unit_and_the_kernel(monkeypatch):
    identity = {"text": "int x;", "programs": {"f": "xdp"}}
    key = key_of(identity)

    assert key_of(dict(identity)) == key
    assert key_of({**identity, "text": "int y;"}) != key
    assert key_of({**identity, "programs": {"f": "tc_ingress"}}) != key
    monkeypatch.setattr(cache, "_machine", lambda: ["x86_64", "another kernel"])
    assert key_of(identity) != key


def test_the_key_knows_the_library_of_bcc():
    assert any("libbcc" in str(library[0]) for library in cache._bcc())
