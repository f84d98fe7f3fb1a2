# SPDX-License-Identifier: Apache-2.0
"""Attaching a program to its hook by a bpf_link, which the kernel keeps as long as a pin of it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.errors import InterfaceError, KernelError
from xdpchain.function import Hook

_BPF_XDP, _BPF_PERF_EVENT, _BPF_TCX_INGRESS, _BPF_TCX_EGRESS = 37, 41, 46, 47
_XDP_FLAGS = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_TRACEPOINT, _PERF_FLAG_FD_CLOEXEC = 2, 8

_LINK_TYPE_XDP, _LINK_TYPE_TCX = 6, 11


def attach_xdp(program: Handle, interface: int, name: str, mode: str) -> tuple[Handle, str]:
    """
    Attach to an interface's XDP hook; returns the link and the mode that it got.

    `auto` is native where the driver can, else generic.

    Raises:
        InterfaceError: somebody else's program is there, or the driver cannot do the mode.
    """
    result = 0
    for wanted in ("native", "generic") if mode == "auto" else (mode,):
        result = libbpf.link_create(program.fd, interface, _BPF_XDP, flags=_XDP_FLAGS[wanted])
        if result >= 0:
            return Handle(result), wanted
        if result in {-errno.EBUSY, -errno.EEXIST}:
            raise InterfaceError(
                f"{name}: another XDP program is attached there",
                hint=f"`ip link show {name}` and `bpftool net` name it; it is never replaced, detach it first",
            )
    raise InterfaceError(f"{name}: {mode} XDP refused: {os.strerror(-result)}", hint=_MODE_HINT.get(mode, _MODE_HINT["auto"]))


_MODE_HINT = {
    "native": 'the driver has no native XDP, or not for this MTU or number of queues; xdp_mode = "generic" works everywhere, slower',
    "offload": "the network card or its driver cannot run this program in hardware",
    "auto": "`xdpchain doctor` says what the interface can do",
}


def attach_tc(program: Handle, interface: int, name: str, hook: Hook) -> Handle:
    """
    Attach to an interface's TC hook by tcx (Linux 6.6).

    Raises:
        InterfaceError: the kernel has no tcx, or the interface is gone.
    """
    kind = _BPF_TCX_INGRESS if hook is Hook.TC_INGRESS else _BPF_TCX_EGRESS
    result = libbpf.link_create(program.fd, interface, kind)
    if result < 0:
        raise InterfaceError(
            f"{name}: {hook.value} refused: {os.strerror(-result)}", hint="TC programs are attached by tcx: Linux 6.6 or newer"
        )
    return Handle(result)


def attach_tracepoint(program: Handle, event: str) -> Handle:
    """
    Attach to the tracepoint `event` ("category:name").

    Raises:
        KernelError: there is no such tracepoint, or no tracefs to look it up in.
    """
    category, _, name = event.partition(":")
    number = next((path for base in _TRACEFS if (path := base / "events" / category / name / "id").exists()), None)
    if number is None:
        mounted = any((base / "events").is_dir() for base in _TRACEFS)
        hint = "the running kernel does not have it" if mounted else "mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing"
        raise KernelError(f"tracepoint {event} is not to be found", hint=hint)
    perf = Handle(_perf_event(int(number.read_text(encoding="ascii"))))
    what = f"cannot attach to the tracepoint {event}"
    return Handle(libbpf.check(libbpf.link_create(program.fd, perf.fd, _BPF_PERF_EVENT), what))


def _perf_event(number: int) -> int:
    """perf_event_open(2) for a tracepoint: one event reaches the programs of all CPUs."""
    attributes = struct.pack("=IIQ", _PERF_TYPE_TRACEPOINT, 128, number).ljust(128, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    everyone, first_cpu = -1, 0
    fd = libc.syscall(_PERF_EVENT_OPEN[platform.machine()], attributes, everyone, first_cpu, -1, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise KernelError(f"perf_event_open: {os.strerror(code)}", errno=code, hint="CAP_PERFMON is needed")
    return int(fd)


def link_interface(link: Handle) -> int:
    """The index of the interface that a link hangs on; 0 when the interface is gone, and for tracepoints."""
    info = libbpf.link_info(link.fd)
    return int(info.first) if info.type in {_LINK_TYPE_XDP, _LINK_TYPE_TCX} else 0
