# SPDX-License-Identifier: Apache-2.0
"""Packets by the hundred thousand: BPF_PROG_TEST_RUN with nothing around it."""

from __future__ import annotations

import ctypes as ct

from xdpchain.bpf import libbpf
from xdpchain.bpf.structs import TestRunOpts

_ROOM = 16384


class Shot:
    """
    Sends frames through a program, without an allocation for each of them.

    Args:
        program: its descriptor, which somebody keeps open.
    """

    def __init__(self, program: int) -> None:
        self._program = program
        self._call = libbpf.library().bpf_prog_test_run_opts
        self._into, self._out = ct.create_string_buffer(_ROOM), ct.create_string_buffer(_ROOM)
        self._opts = TestRunOpts(sz=ct.sizeof(TestRunOpts), data_in=ct.addressof(self._into), data_out=ct.addressof(self._out))
        self._reference = ct.byref(self._opts)
        self._addresses = ct.addressof(self._into), ct.addressof(self._out)

    def __call__(self, frame: bytes) -> tuple[int, bytes]:
        """
        What the program answers, and the frame afterwards.

        Raises:
            OSError: the kernel does not take such a frame.
        """
        into, out = self._addresses
        ct.memmove(into, frame, len(frame))
        self._opts.data_size_in = len(frame)
        self._opts.data_size_out = _ROOM
        result = self._call(self._program, self._reference)
        if result:
            raise OSError(-result, f"the kernel does not take a frame of {len(frame)} bytes")
        return self._opts.retval, ct.string_at(out, self._opts.data_size_out)
