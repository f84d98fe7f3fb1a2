# SPDX-License-Identifier: Apache-2.0
"""Somebody else's XDP program."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator

from xdpchain.bpf import libbpf

_PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit
_FLAGS = {"generic": 2, "native": 4}  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE


@contextlib.contextmanager
def attach_pass(interface: str, mode: str = "native") -> Iterator[int]:
    """Attach a program by netlink, as `ip link set xdp` does; yields its id."""
    program = libbpf.prog_load(6, "foreign", _PASS, attach_type=37)
    index, library = socket.if_nametoindex(interface), ctypes.CDLL("libbpf.so.1")
    assert library.bpf_xdp_attach(index, program, _FLAGS[mode], None) == 0
    try:
        yield libbpf.prog_info(program).id
    finally:
        library.bpf_xdp_detach(index, _FLAGS[mode], None)
        os.close(program)


@contextlib.contextmanager
def attach_pass_by_link(interface: str) -> Iterator[int]:
    """Attach a program by a bpf_link, which the kernel does not announce; yields its id."""
    program = libbpf.prog_load(6, "foreign", _PASS, attach_type=37)
    link = libbpf.link_create(program, socket.if_nametoindex(interface), 37)
    assert link >= 0
    try:
        yield libbpf.prog_info(program).id
    finally:
        os.close(link)
        os.close(program)
