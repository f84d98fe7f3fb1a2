# SPDX-License-Identifier: Apache-2.0
"""
What was applied last, and before that: the text of the node's files, kept for a start with a bad file and for `rollback`.

`STATE/applied` is a symbolic link to the directory of the newest record. A new record is written beside it and the link is replaced in one
step, so a daemon that is killed leaves the old record or the new one. In a record: `good/` and `previous/` with `node.toml` and `conf.d/`,
and `record.json`. Text files that keys name may lie anywhere, so their texts stand in `texts.json`, by their paths as written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from xdpchain.config import NodeConfig
from xdpchain.config.sources import files_of
from xdpchain.errors import DaemonError

Texts = Mapping[str, bytes]
"""
the files of one configuration: "node.toml", "conf.d/10-limits.toml", by their path beside the node's file, and "text:PATH" for a text file that a
key names, by its path as written
"""

NODE = "node.toml"
_LINK, _RECORD, _TEXTS = "applied", "record.json", "texts.json"
_TEXT = "text:"


def read_texts(path: Path, like: Iterable[str] = ()) -> Texts:
    """
    The files that make up the configuration at `path`; empty where there is none, so that loading it can say so.

    Only a loaded configuration knows which text files it names: `like` are the names of what was loaded. Where the files in TOML are still the
    same, so are the names.
    """
    (node, *more), _ = files_of(path)
    named = {name: path.parent / name.removeprefix(_TEXT) for name in like if name.startswith(_TEXT)}
    texts = {}
    for name, part in {NODE: node, **{f"conf.d/{part.name}": part for part in more}, **named}.items():
        with contextlib.suppress(OSError):
            texts[name] = part.read_bytes()
    return texts


def with_text_files(texts: Texts, config: NodeConfig) -> Texts:
    """The texts of a configuration that was loaded from them."""
    return {**texts, **{text_name(file.path): file.text.encode() for file in config.texts}}


def text_name(path: str) -> str:
    """What a text file is called in `Texts`, by its path as written."""
    return f"{_TEXT}{path}"


def kept_of(texts: Texts) -> dict[str, str]:
    """The texts of the text files, by their paths as written."""
    return {name.removeprefix(_TEXT): text.decode() for name, text in texts.items() if name.startswith(_TEXT)}


def differing(path: Path, texts: Texts) -> list[str]:
    """The names of the files of the configuration at `path` that are not what they were."""
    now = read_texts(path, texts)
    return sorted(name for name in {*now, *texts} if now.get(name) != texts.get(name))


@attrs.frozen
class Record:
    """
    One applied configuration and the one before it.

    `source` is the file that it came from; `rolled_back` says that it was chosen by a rollback and is kept over restarts.
    """

    good: Texts
    previous: Texts | None = None
    source: str = ""
    rolled_back: bool = False

    def back(self, on_disk: Texts) -> Record:
        """
        The record after a rollback: current and previous change places. Going back to what is `on_disk` ends the rollback.

        Raises:
            DaemonError: there is nothing before the current one.
        """
        if self.previous is None:
            raise DaemonError(
                "there is no configuration to go back to", hint="a rollback needs two different configurations that were applied"
            )
        return Record(self.previous, self.good, self.source, rolled_back=self.previous != on_disk)


def then(record: Record | None, texts: Texts, source: str) -> Record:
    """The record after `texts` were applied; the same configuration again does not push the one before it out."""
    if record is None:
        return Record(texts, None, source)
    return Record(texts, record.previous if texts == record.good else record.good, source)


@attrs.frozen
class Store:
    """The records in a directory of state, which only its owner can enter."""

    state: Path

    @property
    def good(self) -> Path:
        """The node's file of what was applied last."""
        return self.state / _LINK / "good" / NODE

    @property
    def previous(self) -> Path:
        """The node's file of what was applied before that."""
        return self.state / _LINK / "previous" / NODE

    def kept(self, node: Path) -> Mapping[str, str] | None:
        """The texts of the text files that go with a node's file, by their paths; None where it is none of a record."""
        if node not in {self.good, self.previous}:
            return None
        try:
            return dict(json.loads((node.parent / _TEXTS).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def read(self) -> Record | None:
        """
        The newest record, None where nothing was applied yet.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if not self.good.is_file():
            return None
        record = json.loads((self.state / _LINK / _RECORD).read_text(encoding="utf-8"))
        previous = self._texts(self.previous) if self.previous.is_file() else None
        return Record(self._texts(self.good), previous, str(record["source"]), bool(record["rolled_back"]))

    def _texts(self, node: Path) -> Texts:
        kept = self.kept(node) or {}
        return {**read_texts(node), **{text_name(path): text.encode() for path, text in kept.items()}}

    def write(self, record: Record) -> None:
        """
        Make `record` the newest one; after a crash it is there whole or not at all.

        Raises:
            OSError: the directory of state cannot be written.
        """
        link = self.state / _LINK
        old = link.readlink().name if link.is_symlink() else ""
        new = self.state / f"{_LINK}.{(int(old.rpartition('.')[2]) if old else 0) + 1}"
        # what a killed daemon left half written
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        _write_texts(new / "good", record.good)
        if record.previous is not None:
            _write_texts(new / "previous", record.previous)
        about = {"source": record.source, "rolled_back": record.rolled_back}
        _write(new / _RECORD, json.dumps(about).encode())
        fresh = self.state / f"{_LINK}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(new.name)
        fresh.replace(link)
        _sync(self.state)
        for stale in self.state.glob(f"{_LINK}.*"):
            if stale.name != new.name:
                shutil.rmtree(stale, ignore_errors=True)


def _write_texts(directory: Path, texts: Texts) -> None:
    for path in (directory, directory / "conf.d"):
        path.mkdir(mode=0o700)
    kept = kept_of(texts)
    if kept:
        _write(directory / _TEXTS, json.dumps(kept).encode())
    for name, text in texts.items():
        if not name.startswith(_TEXT):
            _write(directory / name, text)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
