# SPDX-License-Identifier: Apache-2.0
"""Looking tracepoints, and the layouts of their events, up in the kernel's tracefs, whether anybody has mounted one or not."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from xdpchain.bpf.handle import Handle
from xdpchain.errors import KernelError

# One number on all architectures. CREATE is FSCONFIG_CMD_CREATE of linux/mount.h.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _CREATE = 1, 6
_FIELD = re.compile(
    r"^\s*field:[^;]*?(?P<name>\w+)(?P<array>\[\d*\])?;\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<sign>\d);",
    re.MULTILINE,
)


@attrs.frozen
class EventField:
    """A field of an event: its place and size in bytes, whether it has a sign, and whether it is an array."""

    offset: int
    size: int
    signed: bool
    array: bool


def event_fields(event: str) -> Mapping[str, EventField]:
    """
    What the running kernel tells with the tracepoint `event` ("category:name"), by name.

    Raises:
        KernelError: there is no such tracepoint, or this process may not open a tracefs.
    """
    found = _FIELD.finditer(_read(event, "format"))
    return {
        one["name"]: EventField(int(one["offset"]), int(one["size"]), signed=one["sign"] == "1", array=one["array"] is not None)
        for one in found
    }


def tracepoint_number(event: str) -> int:
    """
    The number by which perf_event_open(2) knows the tracepoint `event` ("category:name").

    Raises:
        KernelError: there is no such tracepoint, or this process may not open a tracefs.
    """
    return int(_read(event, "id"))


def _read(event: str, file: str) -> str:
    """A file about an event. It is read in a tracefs of our own, mounted nowhere (fsopen(2)): systems without systemd often have none."""
    category, _, name = event.partition(":")
    tracefs = _open_tracefs()
    path = Path(f"/proc/self/fd/{tracefs.fd}/events/{category}/{name}/{file}")
    try:
        return path.read_text(encoding="ascii")
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
