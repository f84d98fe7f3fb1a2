# SPDX-License-Identifier: Apache-2.0
"""
The pin tree: where on the bpffs a node keeps what must outlive the daemon.

::

    ROOT/state/INSTANCE/MAP-FINGERPRINT              maps with the role state or stats
    ROOT/chains/PLACE/link-MODE                      what holds the dispatcher on its hook
    ROOT/chains/PLACE/root-GENERATION                the dispatcher's prog array, from the generation that made it
    ROOT/chains/PLACE/next-GENERATION-POSITION-INSTANCE   the prog array of each hop
    ROOT/chains/PLACE/counts-INSTANCE-FINGERPRINT    the counters of each hop

PLACE is IFINDEX-HOOK, or tracepoint-INSTANCE-ENTRY. A bpffs allows no dots in names. Prog arrays must be pinned: the kernel empties one when
its last descriptor and pin are gone, whatever programs still refer to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.chain.model import Place
from xdpchain.chain.transaction import Transaction
from xdpchain.errors import KernelError
from xdpchain.function import Hook


class Pins:
    """The pin tree below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chains = root / "chains"
        self.state = root / "state"

    def prepare(self) -> None:
        """Make the tree's directories. Raises `KernelError` where `root` is not on a bpffs."""
        try:
            for path in (self.root, self.chains, self.state):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KernelError(f"cannot make {error.filename}: {error.strerror}", errno=error.errno or 0, hint=_MOUNT) from error
        if not _on_bpffs(self.root):
            raise KernelError(f"{self.root} is not on a bpffs", hint=_MOUNT)

    def place(self, place: Place) -> Path:
        """The directory of a place."""
        return self.chains / (f"tracepoint-{place.program}" if place.program else f"{place.interface}-{place.hook.value}")

    def map(self, instance: str, name: str, fingerprint: str) -> Path:
        """Where a map of an instance is pinned."""
        return self.state / instance / f"{name}-{fingerprint}"

    def places(self) -> Iterator[Place]:
        """The places that have a directory."""
        if self.chains.is_dir():
            for path in sorted(self.chains.iterdir()):
                first, _, rest = path.name.partition("-")
                if first == "tracepoint":
                    yield Place(Hook.TRACEPOINT, 0, rest)
                else:
                    yield Place(Hook(rest), int(first))

    def next_generation(self, place: Place) -> int:
        """A number that no pin of the place bears yet."""
        folder = self.place(place)
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        parts = (name.split("-") for name in names)
        return max((int(part[1]) for part in parts if part[0] in {"root", "next"}), default=0) + 1

    def everything(self) -> Iterator[Path]:
        """All pins."""
        for base in (self.chains, self.state):
            for folder, _, names in os.walk(base):
                yield from (Path(folder) / name for name in names)

    def keep_only(self, live: Iterable[Path]) -> None:
        """Remove every pin that is not in `live`, then empty directories."""
        keep = set(live)
        for path in list(self.everything()):
            if path not in keep:
                path.unlink(missing_ok=True)
        for base in (self.chains, self.state):
            for folder in base.iterdir() if base.is_dir() else ():
                if not any(folder.iterdir()):
                    folder.rmdir()

    def remove_tree(self) -> None:
        """Remove all pins and directories."""
        if self.root.is_dir():
            self.keep_only(())
            for path in (self.chains, self.state, self.root):
                if path.is_dir():
                    path.rmdir()


def pin(handle: Handle, path: Path) -> None:
    """Pin a map, program or link."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    libbpf.obj_pin(handle.fd, str(path))
    path.chmod(0o600)


def pin_undoably(handle: Handle, path: Path, transaction: Transaction) -> None:
    """Pin as a step of a transaction."""
    pin(handle, path)
    transaction.undo(f"pin {path}", lambda: unpin(path))


def unpin(path: Path) -> None:
    """Remove a pin, if it is there."""
    path.unlink(missing_ok=True)


def open_pin(path: Path) -> Handle | None:
    """Open a pinned object; None where there is no pin."""
    return Handle(libbpf.obj_get(str(path))) if path.exists() else None


_MOUNT = "mount one: mount -t bpf bpf /sys/fs/bpf (systemd does it at boot)"


def _on_bpffs(path: Path) -> bool:
    """Whether the file system at `path` is a bpffs, by the mount table: statfs(2)'s magic number is not in Python's os module."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1] == "bpf"
    return False
