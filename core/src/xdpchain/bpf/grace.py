# SPDX-License-Identifier: Apache-2.0
"""Waiting until no CPU runs a program that was reachable before."""

from __future__ import annotations

import ctypes
import os
import platform

from xdpchain.errors import KernelError

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_GLOBAL = 1


def wait_grace_period() -> None:
    """
    Return when every packet that was under way has left the programs that it was in.

    membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for one RCU grace period (kernel/sched/membarrier.c), about 10 ms.

    Raises:
        KernelError: the kernel has no membarrier.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = _MEMBARRIER.get(platform.machine())
    if number is None:
        raise KernelError(f"membarrier's number on {platform.machine()} is not known", hint="add it to xdpchain.bpf.grace")
    if libc.syscall(number, _GLOBAL, 0, 0) < 0:
        code = ctypes.get_errno()
        raise KernelError(f"membarrier: {os.strerror(code)}", errno=code)
