# SPDX-License-Identifier: Apache-2.0
"""Runs the compiler's worker: with nothing of this process's environment, bounded, and leaving nothing behind whatever ends it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

PYTHON = "/usr/bin/python3"
"""The system's interpreter: the distribution's bcc belongs to it, whatever environment this process runs in."""
WORKER = Path(__file__).with_name("worker.py")
KERNEL_TREE = Path(__file__).parent.parent / "kernel"
MEMORY_BYTES = 3 << 30
"""Address space of the worker; LLVM's libraries alone map some 0.5 GB."""
BUSY = 4
"""How many times as long a worker may take on a machine that does something else, too."""


@attrs.frozen
class Outcome:
    """
    How a worker ended: its `answer`, or None when it died or was stopped.

    `output` is all that LLVM and the verifier wrote, `status` the exit status (negative: the signal), `stopped` says that time was up.
    """

    answer: Mapping[str, Any] | None
    output: str
    status: int
    stopped: bool


def run_worker(request: Mapping[str, Any], timeout_s: float, python: str = PYTHON) -> Outcome:
    """
    Run one request through a worker of its own.

    `timeout_s` is of processor time; a worker that waits for something is stopped after `BUSY` times as long.

    Its input, answer and output are files in memory, so there is nothing to clean up, even if this process is killed; the worker dies with it.
    """
    limits = {"memory_bytes": MEMORY_BYTES, "cpu_s": math.ceil(timeout_s), "parent": os.getpid()}
    with _memory_file("request") as given, _memory_file("answer") as answer, _memory_file("output") as output:
        os.pwrite(given, json.dumps({**request, **limits}).encode(), 0)
        process = subprocess.Popen(
            [python, "-I", "-B", str(WORKER)],
            stdin=given,
            stdout=answer,
            stderr=output,
            cwd=KERNEL_TREE,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "BCC_KERNEL_SOURCE": str(KERNEL_TREE)},
            start_new_session=True,
        )
        stopped = False
        try:
            process.wait(BUSY * timeout_s)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            # Whatever interrupts the waiting. Until it is waited for, nobody else can have its process id.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        status = process.returncode
        text = _read(answer)
        complete = status == 0 and not stopped and text
        return Outcome(json.loads(text) if complete else None, _read(output), status, stopped or status == -signal.SIGXCPU)


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(f"xdpchain-{name}")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")
