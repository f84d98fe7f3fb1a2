# SPDX-License-Identifier: Apache-2.0
"""Plugins as really installed distributions: their modules and dist-info in a directory that is on the import path."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

TRAIL = Path(__file__).parents[1] / "distributions" / "trail"


def install(folder: Path, name: str, files: Mapping[str, str], *, version: str = "1.0", entry: str = "") -> None:
    """
    Put a distribution with one plugin into `folder`, in place of another version of it.

    Args:
        folder: the directory on the import path.
        name: the name of the distribution and of its entry point.
        files: the text of each file; the plugin is the module NAME.
        version: its version.
        entry: what the entry point leads to, if not the module.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    for file, text in files.items():
        (folder / file).write_text(text)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[xdpchain]\n{name} = {entry or name}\n")


def trail_files() -> dict[str, str]:
    """The files of the plugin `trail`."""
    return {path.name: path.read_text() for path in sorted(TRAIL.iterdir()) if path.suffix in {".py", ".c"}}
