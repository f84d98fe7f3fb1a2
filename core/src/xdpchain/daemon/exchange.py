# SPDX-License-Identifier: Apache-2.0
"""Another text in a file that a key names: written when it is known to be right, and taken back where it cannot be applied."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import attrs

from xdpchain.config.trust import MAX_BYTES
from xdpchain.daemon.store import Texts, differing, kept_of, text_name
from xdpchain.errors import ConfigError, DaemonError, Problem


@attrs.define
class Exchange:
    """
    Within it the file has the new text. Left by an exception, the file is the old one again, with all that it was.

    `file` is where it lies, `path` as the key names it, `kept` the texts of all such files of the configuration by their paths, with the new one.
    A daemon that is killed within leaves the old file or the new one, whole, and the other one beside it under a hidden name.
    """

    file: Path
    path: str
    data: bytes = attrs.field(repr=False)
    kept: Mapping[str, str] = attrs.field(repr=False)
    _old: Path | None = None

    @classmethod
    def of(cls, node_file: Path, key: tuple[str, str, str], file: Path, path: str, data: bytes, running: Texts) -> Exchange:
        """
        Prepare it.

        Args:
            node_file: the node's file.
            key: key path of the key that names the file.
            file: the file.
            path: the same as the key has it.
            data: the new text.
            running: the texts of what runs.

        Raises:
            ConfigError: it is no text, or other files were changed and not applied: this apply would be theirs, too.
        """
        if len(data) > MAX_BYTES:
            raise ConfigError((Problem(key, f"{len(data)} bytes are too many", f"a file may have {MAX_BYTES} bytes"),))
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            hint = "save the text in the UTF-8 encoding"
            raise ConfigError((Problem(key, f"this is not UTF-8 text (byte {error.start})", hint),)) from None
        changed = [name for name in differing(node_file, running) if name != text_name(path)]
        if changed:
            hint = "run `xdpchain apply` first, or take the change back"
            raise ConfigError(tuple(Problem((), "was changed and not applied: this would apply it, too", hint, name) for name in changed))
        return cls(file, path, data, {**kept_of(running), path: text})

    def __enter__(self) -> None:
        try:
            self._write()
        except OSError as error:
            hint = "the daemon must be able to write there, and to keep its owner: see ReadWritePaths= in its unit"
            raise DaemonError(f"cannot write {self.file}: {error.strerror or error}", hint=hint) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._old is None:
            return
        if kind is None:
            self._old.unlink(missing_ok=True)
        else:
            self._old.replace(self.file)
        _sync(self.file.parent)

    def _write(self) -> None:
        """Write beside it, then rename: a reader, and a crash, find the old text or the new one."""
        self.file = self.file.resolve(strict=True)
        if self.file.read_bytes() == self.data:
            return
        new, old = (self.file.with_name(f".{self.file.name}.{word}") for word in ("new", "old"))
        for left in (new, old):
            left.unlink(missing_ok=True)
        try:
            about = self.file.stat()
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.data)
                mine = os.fstat(descriptor)
                if (mine.st_uid, mine.st_gid) != (about.st_uid, about.st_gid):
                    os.fchown(descriptor, about.st_uid, about.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(about.st_mode))
                file.flush()
                os.fsync(descriptor)
            os.link(self.file, old)
            new.replace(self.file)
        except OSError:
            for left in (new, old):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            raise
        self._old = old
        _sync(self.file.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
