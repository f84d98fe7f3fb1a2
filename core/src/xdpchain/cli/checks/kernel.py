# SPDX-License-Identifier: Apache-2.0
"""Checks of the kernel: version, permissions, just-in-time compiler, the file systems of BPF and tracing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xdpchain.daemon.bpffs import file_system_of
from xdpchain.daemon.paths import Paths
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig

TCX = (6, 6)
"""the first kernel on which links hold TC chains"""
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_NET = Path("/proc/sys/net/core")


def findings(_: NodeConfig | None) -> Iterator[Finding]:
    """Everything about the kernel."""
    yield _version(os.uname().release)
    yield capabilities(Path("/proc/self/status").read_text(encoding="utf-8"), "capabilities", "run it as root; in a container, add them")
    yield _bpffs(Paths.choose().root)
    yield from jit(_setting(_NET / "bpf_jit_enable"), _setting(_NET / "bpf_jit_harden"))
    yield _unprivileged(_setting(Path("/proc/sys/kernel/unprivileged_bpf_disabled")))
    btf = Path("/sys/kernel/btf/vmlinux").exists()
    yield Finding("BTF", State.OK if btf else State.WARN, "the kernel has it" if btf else "the kernel has none", _unless(btf, _BTF))


_BTF = "maps are shown with fewer details; choose a kernel with CONFIG_DEBUG_INFO_BTF=y"


def _unless(fine: object, hint: str) -> str:
    return "" if fine else hint


def _setting(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _version(release: str) -> Finding:
    match = re.match(r"(\d+)\.(\d+)", release)
    fine = match is not None and (int(match[1]), int(match[2])) >= TCX
    hint = f"before {'.'.join(map(str, TCX))} a TC chain is a clsact filter, which anybody may remove; nothing older than 6.18 was tried"
    return Finding("kernel", State.OK if fine else State.WARN, release, _unless(fine, hint))


def capabilities(status: str, subject: str, hint: str) -> Finding:
    """What a process may do, by its `/proc/PID/status`; `hint` says how it may do more."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    if not effective >> _CAP_SYS_ADMIN & 1:
        return Finding(subject, State.FAIL, "no CAP_SYS_ADMIN: programs cannot be opened by their ids", hint)
    if not effective >> _CAP_NET_ADMIN & 1:
        text = "no CAP_NET_ADMIN: the kernel finds out no hardware addresses of next hops for it"
        return Finding(subject, State.WARN, text, hint)
    return Finding(subject, State.OK, "CAP_SYS_ADMIN, which includes CAP_BPF and CAP_PERFMON, and CAP_NET_ADMIN")


def _bpffs(root: Path) -> Finding:
    if file_system_of(root) == "bpf":
        return Finding("bpffs", State.OK, f"{root} is on one")
    return Finding("bpffs", State.FAIL, f"{root} is not on a BPF file system", f"mount -t bpf bpf /sys/fs/bpf; {_NAMESPACE}")


_NAMESPACE = "`ip netns exec` hides it (a mount of its own for /sys): use nsenter --net=/run/netns/NAME"


def jit(enabled: int | None, hardened: int | None) -> Iterator[Finding]:
    """What the just-in-time compiler's settings mean for a chain."""
    on = enabled in {1, 2, None}
    yield Finding(
        "JIT",
        State.OK if on else State.WARN,
        "on" if on else "off: programs are interpreted",
        _unless(on, "sysctl net.core.bpf_jit_enable=1"),
    )
    slow = hardened == 2
    text = "constants of root's programs are blinded: each hop takes an indirect jump" if slow else "not for root's programs"
    yield Finding("JIT hardening", State.WARN if slow else State.OK, text, _unless(not slow, "sysctl net.core.bpf_jit_harden=1"))


def _unprivileged(disabled: int | None) -> Finding:
    fine = disabled != 0
    text = "not allowed" if fine else "every user may load programs"
    return Finding("BPF for everybody", State.OK if fine else State.WARN, text, _unless(fine, "sysctl kernel.unprivileged_bpf_disabled=1"))
