# SPDX-License-Identifier: Apache-2.0
"""
Where members are in the running kernel's own structs, by its BTF.

libbpf reads it: it is megabytes of text and tables, of which a few names are wanted. They are let go at once.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
from collections.abc import Iterable, Iterator, Mapping

from xdpchain.bpf.libbpf import library
from xdpchain.errors import KernelError

_STRUCT, _UNION, _TYPEDEF, _VOLATILE, _CONST, _TYPE_TAG = 4, 5, 8, 9, 10, 18  # BTF_KIND_*
_ALIASES = {_TYPEDEF, _VOLATILE, _CONST, _TYPE_TAG}
_BIT_FIELDS = 1 << 31
_HINT = "choose a kernel with CONFIG_DEBUG_INFO_BTF=y; `xdpchain doctor` says whether this one has it"


class _Type(ct.Structure):
    """`struct btf_type` of linux/btf.h."""

    _fields_ = (("name", ct.c_uint32), ("info", ct.c_uint32), ("type", ct.c_uint32))


class _Member(ct.Structure):
    """`struct btf_member`: `offset` is in bits."""

    _fields_ = (("name", ct.c_uint32), ("type", ct.c_uint32), ("offset", ct.c_uint32))


def member_offsets(paths: Iterable[str]) -> Mapping[str, int]:
    """
    The place in bytes of each "struct.member.member" of the running kernel.

    Raises:
        KernelError: the kernel has no BTF, or no such struct or member.
    """
    with _kernel() as btf:
        return {path: btf.offset(path) for path in paths}


class _Kernel:
    """The kernel's BTF, opened by libbpf."""

    def __init__(self, lib: ct.CDLL, handle: ct.c_void_p) -> None:
        self._lib = lib
        self._handle = handle

    def offset(self, path: str) -> int:
        first, *members = path.split(".")
        number = self._lib.btf__find_by_name_kind(self._handle, first.encode(), _STRUCT)
        if number < 0:
            raise KernelError(f"the kernel has no struct {first}", errno=errno.ENOENT, hint="it is older or newer than the plugin")
        bits = 0
        for name in members:
            found = self._find(number, name.encode())
            if found is None:
                text = f"the kernel's struct {first} has no {'.'.join(members)}"
                raise KernelError(text, errno=errno.ENOENT, hint="it is older or newer than the plugin")
            bits, number = bits + found[0], found[1]
        return bits // 8

    def _find(self, number: int, name: bytes) -> tuple[int, int] | None:
        """The bits before a member and its type; members without a name are looked into."""
        kind = self._type(number)
        while (kind.info >> 24 & 0x1F) in _ALIASES:
            kind = self._type(kind.type)
        if (kind.info >> 24 & 0x1F) not in {_STRUCT, _UNION}:
            return None
        members = ct.cast(ct.addressof(kind) + ct.sizeof(_Type), ct.POINTER(_Member * (kind.info & 0xFFFF))).contents
        for member in members:
            bits = member.offset & 0xFFFFFF if kind.info & _BIT_FIELDS else member.offset
            own = self._lib.btf__name_by_offset(self._handle, member.name)
            if own == name:
                return bits, member.type
            inside = None if own else self._find(member.type, name)
            if inside is not None:
                return bits + inside[0], inside[1]
        return None

    def _type(self, number: int) -> _Type:
        kind: _Type = self._lib.btf__type_by_id(self._handle, number).contents
        return kind


@contextlib.contextmanager
def _kernel() -> Iterator[_Kernel]:
    lib = _lib()
    handle = ct.c_void_p(lib.btf__load_vmlinux_btf())
    # libbpf 1 says NULL, and why in errno
    if not handle.value:
        raise KernelError("the kernel tells nothing of its structs (it has no BTF)", errno=ct.get_errno(), hint=_HINT)
    try:
        yield _Kernel(lib, handle)
    finally:
        lib.btf__free(handle)


def _lib() -> ct.CDLL:
    """Libbpf with the types of its calls for BTF, which are no ints."""
    lib = library()
    lib.btf__load_vmlinux_btf.restype = ct.c_void_p
    lib.btf__find_by_name_kind.argtypes = (ct.c_void_p, ct.c_char_p, ct.c_uint32)
    lib.btf__type_by_id.argtypes, lib.btf__type_by_id.restype = (ct.c_void_p, ct.c_uint32), ct.POINTER(_Type)
    lib.btf__name_by_offset.argtypes, lib.btf__name_by_offset.restype = (ct.c_void_p, ct.c_uint32), ct.c_char_p
    lib.btf__free.argtypes, lib.btf__free.restype = (ct.c_void_p,), None
    return lib
