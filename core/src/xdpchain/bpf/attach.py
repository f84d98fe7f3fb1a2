# SPDX-License-Identifier: Apache-2.0
"""
Attaching a program to its hook.

What holds it there is a bpf_link, which the kernel keeps as long as a pin of it. Before Linux 6.6 the TC hooks know no links: there it is a
filter of the clsact qdisc, which stays until it is removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.tracefs import tracepoint_number
from xdpchain.errors import InterfaceError, KernelError
from xdpchain.function import Hook

_BPF_XDP, _BPF_PERF_EVENT, _BPF_TCX_INGRESS, _BPF_TCX_EGRESS = 37, 41, 46, 47
_XDP_FLAGS = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_TRACEPOINT, _PERF_FLAG_FD_CLOEXEC = 2, 8

_LINK_TYPE_XDP, _LINK_TYPE_TCX = 6, 11


class Link:
    """A program held on its hook by a bpf_link. `handle` is what to pin."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    @property
    def interface(self) -> int:
        """The index of the interface that it is on; 0 when the interface is gone, somebody has detached it, and for tracepoints."""
        info = libbpf.link_info(self.handle.fd)
        return int(info.first) if info.type in {_LINK_TYPE_XDP, _LINK_TYPE_TCX} else 0

    @property
    def program(self) -> int:
        """The id of the program."""
        return int(libbpf.link_info(self.handle.fd).prog_id)

    def put(self, program: Handle) -> None:
        """Hold another program, from the next packet on."""
        libbpf.link_update(self.handle.fd, program.fd)

    def detach(self) -> None:
        """Detach at once. Perf event links know no forced detachment: they go with their last descriptor and pin."""
        if self.interface:
            libbpf.link_detach(self.handle.fd)


class Filter:
    """A program held on a TC hook by a clsact filter. `handle`, what to pin, is the program's own."""

    def __init__(self, program: Handle, interface: int, hook: Hook) -> None:
        self.handle = Handle(os.dup(program.fd))
        self._interface = interface
        self._egress = hook is Hook.TC_EGRESS

    @property
    def interface(self) -> int:
        """The index of the interface; 0 when it is gone, or the filter is not ours any more."""
        return self._interface if libbpf.tc_program(self._interface, egress=self._egress) == self.program else 0

    @property
    def program(self) -> int:
        """The id of the program."""
        return int(libbpf.prog_info(self.handle.fd).id)

    def put(self, program: Handle) -> None:
        """Hold another program, from the next packet on. The pin must follow."""
        libbpf.check(libbpf.tc_attach(program.fd, self._interface, egress=self._egress, replace=True), "cannot replace a TC filter")
        self.handle.replace(program)

    def detach(self) -> None:
        """Remove the filter."""
        if self.interface:
            libbpf.check(libbpf.tc_detach(self._interface, egress=self._egress), "cannot remove a TC filter")


Hold = Link | Filter


def attach_xdp(program: Handle, interface: int, name: str, mode: str) -> tuple[Link, str]:
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
            return Link(Handle(result)), wanted
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


def attach_tc(program: Handle, interface: int, name: str, hook: Hook) -> tuple[Hold, str]:
    """
    Attach to an interface's TC hook; returns what holds it there and how: "tcx" (Linux 6.6), else "clsact".

    Raises:
        InterfaceError: the kernel refuses both.
    """
    kind = _BPF_TCX_INGRESS if hook is Hook.TC_INGRESS else _BPF_TCX_EGRESS
    result = libbpf.link_create(program.fd, interface, kind)
    if result >= 0:
        return Link(Handle(result)), "tcx"
    if result == -errno.EINVAL:
        result = libbpf.tc_attach(program.fd, interface, egress=hook is Hook.TC_EGRESS)
    if result < 0:
        hint = f"`tc filter show dev {name}` shows who is there; `xdpchain doctor` what the kernel can do"
        raise InterfaceError(f"{name}: {hook.value} refused: {os.strerror(-result)}", hint=hint)
    return Filter(program, interface, hook), "clsact"


def attach_tracepoint(program: Handle, event: str) -> Link:
    """
    Attach to the tracepoint `event` ("category:name").

    Raises:
        KernelError: there is no such tracepoint, or it may not be looked up.
    """
    perf = Handle(_perf_event(tracepoint_number(event)))
    what = f"cannot attach to the tracepoint {event}"
    return Link(Handle(libbpf.check(libbpf.link_create(program.fd, perf.fd, _BPF_PERF_EVENT), what)))


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
