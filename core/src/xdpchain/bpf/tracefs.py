# SPDX-License-Identifier: Apache-2.0
"""Looking tracepoints up in the kernel's tracefs, whether anybody has mounted one or not."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from xdpchain.bpf.handle import Handle
from xdpchain.errors import KernelError

# One number on all architectures. CREATE is FSCONFIG_CMD_CREATE of linux/mount.h.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _CREATE = 1, 6


def tracepoint_number(event: str) -> int:
    """
    The number by which perf_event_open(2) knows the tracepoint `event` ("category:name").

    It stands in a file of tracefs. This is one of our own, mounted nowhere (fsopen(2)): systems without systemd often have none.

    Raises:
        KernelError: there is no such tracepoint, or this process may not open a tracefs.
    """
    category, _, name = event.partition(":")
    tracefs = _open_tracefs()
    path = Path(f"/proc/self/fd/{tracefs.fd}/events/{category}/{name}/id")
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError as error:
        hint = "`xdpchain doctor` says which kernel this is; the running one does not have it"
        raise KernelError(f"tracepoint {event} is not to be found", errno=error.errno or 0, hint=hint) from error


def _open_tracefs() -> Handle:
    context = Handle(_call(_FSOPEN, ctypes.c_char_p(b"tracefs"), _CLOEXEC))
    _call(_FSCONFIG, context.fd, _CREATE, None, None, 0)
    return Handle(_call(_FSMOUNT, context.fd, _CLOEXEC, 0))


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise KernelError(
            f"cannot open tracefs: {os.strerror(code)}", errno=code, hint="tracepoints need CAP_SYS_ADMIN, and a kernel with tracing"
        )
    return int(result)
