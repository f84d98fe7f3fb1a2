# SPDX-License-Identifier: Apache-2.0
"""Which features of an interface are on, as `ethtool -k` has it: by the ioctl, since this is all that is asked (linux/ethtool.h)."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES = 0x1B, 0x37, 0x3A
_FEATURES = 4
"""ETH_SS_FEATURES: the set of the features' names"""
_NAME_BYTES = 32
_BLOCK = struct.Struct("=4I")
"""32 features: available, requested, active, never changed"""


def names(interface: str) -> list[str]:
    """
    The names of all features, in the order of their bits.

    Raises:
        OSError: there is no such interface, or it does not say.
    """
    about = ask(interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _FEATURES, 0))
    (count,) = struct.unpack_from("=I", about, 16)
    text = ask(interface, struct.pack("=III", _GSTRINGS, _FEATURES, count) + bytes(_NAME_BYTES * count))
    return [text[at : at + _NAME_BYTES].split(b"\0")[0].decode() for at in range(12, len(text), _NAME_BYTES)]


def active(interface: str) -> frozenset[str]:
    """
    The features that are on.

    Raises:
        OSError: there is no such interface, or it does not say.
    """
    known = names(interface)
    blocks = (len(known) + 31) // 32
    data = ask(interface, struct.pack("=II", _GFEATURES, blocks) + bytes(_BLOCK.size * blocks))
    words = [_BLOCK.unpack_from(data, 8 + _BLOCK.size * block)[2] for block in range(blocks)]
    return frozenset(name for at, name in enumerate(known) if words[at // 32] >> at % 32 & 1)


def ask(interface: str, question: bytes) -> bytes:
    """
    What the kernel makes of a question.

    Raises:
        OSError: it answers with an error.
    """
    buffer = ctypes.create_string_buffer(question, len(question))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        # struct ifreq: the name, and a pointer in a union of 24 bytes
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(buffer)))
    return buffer.raw
