# SPDX-License-Identifier: Apache-2.0
"""
Artifacts on disk, by the hash of everything that makes them.

What is found there is loaded into the kernel, so nothing is believed that somebody else could have written: the directory must belong to this
user, who closes it to others; an entry must belong to this user, be writable by nobody else, say its own key, and be whole. Anything else
is as if it were not there, and is written anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from xdpchain.bpf.artifact import FORMAT, Artifact
from xdpchain.bpf.compiler.process import KERNEL_TREE, WORKER

KEEP = 256
"""How many artifacts stay, the most recently used ones."""

_SUFFIX, _TEMPORARY = ".artifact", ".new"
_LIBC_HEADERS = Path("/usr/include/linux/version.h")
_BCC_LIBRARIES = ("lib/*/libbcc.so.0", "lib/libbcc.so.0", "lib64/libbcc.so.0", "local/lib*/libbcc.so.0")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of what is compiled here and now: what the unit says, and the compiler, its headers and the kernel."""
    system = [_machine(), _file_hash(_LIBC_HEADERS), _bcc(), _own_files()]
    return hashlib.sha256(json.dumps([FORMAT, identity, system], sort_keys=True).encode()).hexdigest()


@attrs.frozen
class Cache:
    """The artifacts in one directory. A directory that cannot be used or trusted is an empty one that keeps nothing."""

    path: Path

    def get(self, key: str) -> Artifact | None:
        """The artifact of a key."""
        with self._directory() as directory:
            if directory is None:
                return None
            try:
                artifact = _load(key + _SUFFIX, directory)
            except (OSError, ValueError):
                return None
            if artifact.key != key:
                return None
            with contextlib.suppress(OSError):
                os.utime(key + _SUFFIX, dir_fd=directory)
            return artifact

    def put(self, artifact: Artifact) -> None:
        """Keep an artifact, and only the newest `KEEP` in all. A full disk is no reason to fail: the artifact is at hand."""
        name = artifact.key + _SUFFIX
        temporary = f"{name}.{os.getpid()}.{os.urandom(4).hex()}{_TEMPORARY}"
        with self._directory() as directory, contextlib.suppress(OSError):
            if directory is None:
                return
            try:
                _store(temporary, artifact, directory)
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                os.unlink(temporary, dir_fd=directory)
                raise
            _prune(directory)

    @contextlib.contextmanager
    def _directory(self) -> Iterator[int | None]:
        """The directory, opened once, so that nobody can exchange it between check and use."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            ours = os.fstat(descriptor).st_uid == os.geteuid()
            if ours:
                os.fchmod(descriptor, 0o700)
            yield descriptor if ours else None
        finally:
            os.close(descriptor)


def _load(name: str, directory: int) -> Artifact:
    """Read an entry; ValueError if it is not ours or not whole."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(descriptor, encoding="ascii") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _ours(status):
            raise ValueError("written by somebody else")
        digest, _, body = file.read().partition("\n")
    if digest != hashlib.sha256(body.encode()).hexdigest():
        raise ValueError("not whole")
    return Artifact.from_json(body)


def _store(name: str, artifact: Artifact, directory: int) -> None:
    body = artifact.to_json()
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(hashlib.sha256(body.encode()).hexdigest() + "\n" + body)


def _prune(directory: int) -> None:
    """Remove the artifacts that were not used for longest, and what a killed writer left."""
    ages = {}
    for name in os.listdir(directory):
        if name.endswith((_SUFFIX, _TEMPORARY)):
            with contextlib.suppress(FileNotFoundError):
                ages[name] = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    for name in sorted(ages, key=ages.__getitem__, reverse=True)[KEEP:]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def _machine() -> list[str]:
    system = os.uname()
    return [system.machine, system.release]


def _bcc() -> list[list[str | int]]:
    """Which bcc: its library's file by name (the version is in it), size and time. Asking bcc itself would cost 0.1 s."""
    libraries = {path.resolve() for pattern in _BCC_LIBRARIES for path in Path("/usr").glob(pattern)}
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(libraries)]


@functools.cache
def _own_files() -> list[str]:
    """The header tree and the worker; they change only with the installed package."""
    files = [WORKER, *sorted(path for path in KERNEL_TREE.rglob("*") if path.is_file())]
    return [f"{path.relative_to(KERNEL_TREE.parent)} {_file_hash(path)}" for path in files]


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
