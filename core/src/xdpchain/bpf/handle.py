# SPDX-License-Identifier: Apache-2.0
"""Ownership of a BPF descriptor: closed when nothing refers to it any more."""

from __future__ import annotations

import os


class Handle:
    """
    Owns a descriptor of a map, program, link or BTF.

    Readers in other threads keep their own reference, so that a released generation is closed only after the last of them is done with it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def replace(self, other: Handle) -> None:
        """Own what `other` refers to, in place of what this one did."""
        os.dup2(other.fd, self.fd, inheritable=False)

    def __del__(self) -> None:
        os.close(self.fd)

    def __repr__(self) -> str:
        return f"Handle({self.fd})"
