# SPDX-License-Identifier: Apache-2.0
"""Frames from outside: capture files, packets in scapy's notation, and one line about a frame. Nothing here touches the kernel."""

from __future__ import annotations

from xdpchain.errors import ExitCode, XdpchainError


class PacketError(XdpchainError):
    """Raised when a capture cannot be read to its end, or a packet's notation cannot be understood."""

    exit_code = ExitCode.USAGE
