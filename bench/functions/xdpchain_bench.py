# SPDX-License-Identifier: Apache-2.0
"""Functions that only the benchmarks use. The dist-info beside makes a plugin of them wherever this directory is on the path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
from xdpchain import API_VERSION, Hook, KernelFunction, Program, hookimpl


@attrs.frozen
class Nothing:
    """No keys."""


class Noop(KernelFunction[Nothing]):
    """Parses the packet and lets it go on."""

    api = API_VERSION
    summary = "parses the packet and lets it go on"
    source = Path(__file__).with_name("noop.bpf.c")
    config = Nothing

    def __init__(self, name: str, *, frags: bool = True) -> None:
        self.name = name  # type: ignore[misc]
        self.programs = (Program(Hook.XDP, "noop", frags=frags),)  # type: ignore[misc]


@hookimpl
def xdpchain_functions() -> Iterable[KernelFunction[Any]]:
    """Two of them, so that a node can have three functions with ratelimit."""
    return (Noop("noop"), Noop("another_noop"))
