# SPDX-License-Identifier: Apache-2.0
"""One daemon for one node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from xdpchain.daemon import bpffs as file_system
from xdpchain.daemon import lock
from xdpchain.errors import DaemonError, KernelError


def test_the_second_one_is_told_who_is_there(tmp_path: Path) -> None:
    held = lock.own_state(tmp_path)

    with pytest.raises(DaemonError, match=rf"another xdpchaind \(pid {os.getpid()}\)"):
        lock.own_state(tmp_path)
    os.close(held)
    os.close(lock.own_state(tmp_path))


def test_the_pins_have_one_owner_whatever_the_state_directory_is(bpffs: Path) -> None:
    root = bpffs / "xdpchain"
    assert not lock.is_owned(root)
    held = lock.own_root(root)

    with pytest.raises(DaemonError, match="is owned by another xdpchaind"):
        lock.own_root(root)
    assert lock.is_owned(root)
    os.close(held)
    assert not lock.is_owned(root)


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    script = "import os, sys, pathlib; from xdpchain.daemon import lock; lock.own_state(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)

    os.close(lock.own_state(tmp_path))


def test_a_directory_on_a_bpffs_is_fine(bpffs: Path) -> None:
    assert file_system.file_system_of(bpffs / "xdpchain") == "bpf"
    assert not file_system.ensure(bpffs / "xdpchain")


def test_another_file_system_is_refused_with_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="is not on a BPF file system") as caught:
        file_system.ensure(tmp_path / "xdpchain")

    assert "mount -t bpf" in caught.value.hint


def test_the_usual_place_is_mounted_where_nobody_has() -> None:
    assert file_system.file_system_of(file_system.USUAL) == "sysfs"
    try:
        assert file_system.ensure(file_system.USUAL / "xdpchain")
        assert file_system.file_system_of(file_system.USUAL / "xdpchain") == "bpf"
    finally:
        subprocess.run([shutil.which("umount") or "umount", str(file_system.USUAL)], check=True)
