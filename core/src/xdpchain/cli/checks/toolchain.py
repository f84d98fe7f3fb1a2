# SPDX-License-Identifier: Apache-2.0
"""Checks of what compiles and loads programs: bcc in the system's Python, libbpf, the kernel's user-space headers."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain.bpf.compiler.process import PYTHON
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

_INCLUDE = Path("/usr/include")
_TIMEOUT_S = 30


def findings(_: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the toolchain."""
    yield _bcc()
    yield _libbpf()
    yield _headers(_INCLUDE)


def _bcc(python: str = PYTHON) -> Finding:
    script = "import bcc; print(bcc.__version__)"
    try:
        done = subprocess.run(
            [python, "-I", "-c", script], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("bcc", State.FAIL, f"{python} cannot be run: {error}", "apt install python3 python3-bpfcc")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return Finding(
            "bcc", State.FAIL, f"{python} cannot import it: {last[0]}", "apt install python3-bpfcc (the bcc of PyPI is something else)"
        )
    return Finding("bcc", State.OK, f"{done.stdout.strip()} in {python}")


def _libbpf() -> Finding:
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        return Finding("libbpf", State.FAIL, str(error), "apt install libbpf1")
    library.libbpf_version_string.restype = ctypes.c_char_p
    return Finding("libbpf", State.OK, library.libbpf_version_string().decode())


def _headers(include: Path) -> Finding:
    missing = [name for name in ("linux/if_ether.h", "linux/tcp.h") if not (include / name).is_file()]
    if not missing and not list(include.glob("*/asm/types.h")) and not (include / "asm/types.h").is_file():
        missing = ["asm/types.h"]
    text = f"missing below {include}: {', '.join(missing)}" if missing else f"in {include}"
    return Finding("headers", State.FAIL if missing else State.OK, text, "apt install linux-libc-dev" if missing else "")
