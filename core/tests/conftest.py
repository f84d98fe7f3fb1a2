# SPDX-License-Identifier: Apache-2.0
"""
The core's tests run in namespaces of their own: a network with nothing but loopback, and mounts that nobody else sees.

Whatever a test leaves behind ends with the process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000


@pytest.fixture(scope="session", autouse=True)
def own_namespaces() -> None:
    """Leave the machine's network and mounts alone."""
    if os.geteuid() != 0:
        pytest.exit("the tests load programs into the kernel: run them as root", returncode=4)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        pytest.exit(f"unshare: {os.strerror(ctypes.get_errno())}", returncode=4)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture
def bpffs(tmp_path: Path) -> Path:
    """An empty bpffs."""
    path = tmp_path / "bpffs"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    return path
