# SPDX-License-Identifier: Apache-2.0
"""The loader: makes maps and programs of an artifact, without a compiler."""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable, Mapping

from xdpchain.bpf import libbpf
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.maps import KernelMap
from xdpchain.errors import KernelError, VerifierError
from xdpchain.function import Hook
from xdpchain.schema import Map

_LD_IMM64, _PSEUDO_MAP_FD = 0x18, 1
_CALL, _TAIL_CALL, _MOV64_IMM = 0x85, 12, 0xB7
_INSTRUCTION = struct.Struct("<BBhi")
_XDP_HAS_FRAGS = 1 << 5
PROG_ARRAY = 3

PROGRAM_TYPE = {Hook.XDP: 6, Hook.TC_INGRESS: 3, Hook.TC_EGRESS: 3, Hook.TRACEPOINT: 5, Hook.ROUTINE: 3}
"""`enum bpf_prog_type`. Routines are of the TC type: two grace periods pass around a test run of several rounds of an XDP program."""
EXPECTED_ATTACH = {Hook.XDP: 37, Hook.TC_INGRESS: 0, Hook.TC_EGRESS: 0, Hook.TRACEPOINT: 0, Hook.ROUTINE: 0}
"""`expected_attach_type` at load. One value for each hook: a prog array takes only programs with the same one."""


class Constant(enum.IntEnum):
    """
    Facts that are known when a program is loaded, not when it is compiled: the source asks for them by these 64-bit immediates.

    The verifier sees the patched value and drops the branches that it rules out.
    """

    LAST = 0x7863000000000001
    """1 where no hop follows"""
    ON_ERROR = 0x7863000000000002
    """what the hook shall return when a hop cannot be taken"""
    FRAGS = 0x7863000000000003
    """1 in a chain for packets in several buffers"""
    NETNS = 0x7863000000000004
    """the cookie of this process's network namespace"""


def create_map(schema: Map, artifact: Artifact, *, btf: Handle | None = None, ifindex: int = 0) -> KernelMap:
    """Create a map of an artifact with the kind and capacity of its schema."""
    layout = artifact.maps[schema.name]
    new_inner = inner_maker(schema, artifact, btf)
    template = new_inner() if new_inner else None
    ids = {"btf_fd": btf.fd, "btf_key_id": layout.btf_key_id, "btf_value_id": layout.btf_value_id} if btf and layout.btf_value_id else {}
    fd = libbpf.map_create(
        schema.kind.value,
        schema.name,
        layout.key_size,
        layout.value_size,
        schema.capacity,
        flags=schema.flags,
        inner_fd=template.fd if template else 0,
        ifindex=ifindex,
        **ids,
    )
    return KernelMap(Handle(fd), schema, new_inner)


def inner_maker(schema: Map, artifact: Artifact, btf: Handle | None) -> Callable[[], KernelMap] | None:
    """What makes an empty map for inside a map of maps; None for other kinds."""
    return functools.partial(create_map, schema.inner, artifact, btf=btf) if schema.inner else None


def load_btf(artifact: Artifact) -> Handle | None:
    """Load the BTF of an artifact, so that its maps show their fields in `bpftool map dump` and may hold spin locks."""
    return Handle(libbpf.btf_load(artifact.btf)) if artifact.btf else None


class ProgArray:
    """A prog array of one element: the jump of a dispatcher or of a hop. Its programs stay as long as a descriptor or a pin of it."""

    _KEY = bytes(4)

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    @classmethod
    def create(cls) -> ProgArray:
        return cls(Handle(libbpf.map_create(PROG_ARRAY, "xc_next", 4, 4, 1)))

    @property
    def fd(self) -> int:
        return self.handle.fd

    def point(self, program: Handle) -> None:
        """Make the jump lead to `program`, from the next packet on."""
        libbpf.check(libbpf.map_update(self.fd, self._KEY, struct.pack("=I", program.fd)), "cannot point a prog array at a program")

    def target(self) -> int | None:
        """The id of the program that the kernel jumps to, or None."""
        data = libbpf.map_lookup(self.fd, self._KEY, 4)
        return None if data is None else int(struct.unpack("=I", data)[0])


def load_program(
    artifact: Artifact,
    program: str,
    hook: Hook,
    maps: Mapping[str, int],
    constants: Mapping[Constant, int],
    *,
    name: str,
    frags: bool = False,
    offload_to: int = 0,
) -> Handle:
    """
    Load one program of an artifact.

    Args:
        artifact: what the compiler made.
        program: the name of the program in the artifact.
        hook: decides the program type.
        maps: descriptors of all maps that the program refers to, by name.
        constants: values of the load-time constants.
        name: what the kernel shall call it (`bpftool prog`), cut to 15 characters.
        frags: accept packets in several buffers; all programs of a chain alike.
        offload_to: the index of the interface whose hardware shall run it, or 0.

    Raises:
        VerifierError: the kernel's verifier refuses; `plugin` is `name` until somebody knows better.
        KernelError: the kernel refuses for another reason.
    """
    code = artifact.programs[program]
    patched = _patch(code.instructions, code.map_references, maps, constants)
    flags = _XDP_HAS_FRAGS if frags and hook is Hook.XDP else 0
    try:
        fd = libbpf.prog_load(PROGRAM_TYPE[hook], name, patched, attach_type=EXPECTED_ATTACH[hook], flags=flags, ifindex=offload_to)
    except KernelError as error:
        if not error.details:
            raise
        last = [line for line in error.details.splitlines() if line and not line.startswith("processed ")]
        message = f"the kernel's verifier refuses {program.removeprefix('xc_')}(): {last[-1] if last else 'no reason given'}"
        raise VerifierError(name, message, details=error.details, hint="read the log from its end") from error
    return Handle(fd)


def _patch(instructions: bytes, references: Mapping[int, str], maps: Mapping[str, int], constants: Mapping[Constant, int]) -> bytes:
    code = bytearray(instructions)
    for index, name in references.items():
        opcode, registers, offset, _ = _INSTRUCTION.unpack_from(code, index * 8)
        _INSTRUCTION.pack_into(code, index * 8, opcode, registers & 0x0F | _PSEUDO_MAP_FD << 4, offset, maps[name])
    skip = False
    for at in range(0, len(code), 8):
        if skip:
            skip = False
            continue
        opcode, registers, offset, low = _INSTRUCTION.unpack_from(code, at)
        if (opcode, registers, low) == (_CALL, 0, _TAIL_CALL) and constants.get(Constant.LAST):
            # Never reached, but a program in which it stands is entered by a longer way: r0 = 0 instead.
            _INSTRUCTION.pack_into(code, at, _MOV64_IMM, 0, 0, 0)
        if opcode != _LD_IMM64:
            continue
        skip = True
        if registers >> 4:
            continue
        high = struct.unpack_from("<i", code, at + 12)[0]
        magic = (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF
        value = _constant(magic, constants)
        if value is None:
            continue
        struct.pack_into("<i", code, at + 4, _signed(value & 0xFFFFFFFF))
        struct.pack_into("<i", code, at + 12, _signed(value >> 32 & 0xFFFFFFFF))
    return bytes(code)


def _constant(magic: int, constants: Mapping[Constant, int]) -> int | None:
    try:
        return constants[Constant(magic)]
    except ValueError:
        return None


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
