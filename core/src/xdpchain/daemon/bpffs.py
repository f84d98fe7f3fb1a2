# SPDX-License-Identifier: Apache-2.0
"""The BPF file system below the directory of pins: is it there, and mounting it where it is expected."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from xdpchain.errors import KernelError

USUAL = Path("/sys/fs/bpf")
"""where every distribution mounts it"""
_MOUNTINFO = Path("/proc/self/mountinfo")


def file_system_of(path: Path) -> str:
    """The type of the file system that a path is on, or would be on; by its device, since one mount may hide another."""
    while not path.exists():
        path = path.parent
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == number:
            return right.split()[0]
    return "unknown"


def ensure(root: Path) -> bool:
    """
    Make sure that `root` lies on a bpffs; mount one at its usual place where that is missing.

    Returns:
        Whether it was mounted now.

    Raises:
        KernelError: `root` is on another file system, or mounting is not permitted.
    """
    kind = file_system_of(root)
    if kind == "bpf":
        return False
    if not root.is_relative_to(USUAL):
        raise KernelError(
            f"{root} is not on a BPF file system (it is on {kind})",
            hint=f"choose a directory below {USUAL}, or: mount -t bpf bpf DIRECTORY",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", bytes(USUAL), b"bpf", 0, b"mode=0700"):
        number = ctypes.get_errno()
        raise KernelError(
            f"the BPF file system cannot be mounted at {USUAL}: {os.strerror(number)}",
            errno=number,
            hint=f"as root: mount -t bpf bpf {USUAL}; in a container, mount it from the host",
        )
    return True
