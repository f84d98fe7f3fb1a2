# SPDX-License-Identifier: Apache-2.0
"""
The compiler's worker: the only place that imports bcc, a script that lives for one unit.

It runs on the system's own python3, where the distribution's bcc is, and imports nothing of xdpchain. A JSON request comes on stdin, a JSON
result goes to what was stdout. LLVM and the verifier write their diagnostics to descriptor 2 only, so that is where the parent reads
them. LLVM may end the process over somebody's C: no result is the result then.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BPF_MAP_CREATE, BPF_OBJ_GET_INFO_BY_FD, BPF_BTF_GET_FD_BY_ID = 0, 15, 19
BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY = 2, 3
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
LD_IMM64, PSEUDO_MAP_FD = 0x18, 1
PR_SET_PDEATHSIG = 1
BPF_LOG_STATS = 4
MAX_BTF = 1 << 20
MAX_LOG = 1 << 16
MAX_OUTPUT = 64 << 20

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Answer the request on stdin."""
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    limit(request)
    result = json.dumps(work(request)).encode()
    while result:
        result = result[os.write(answer, result) :]


def limit(request: dict[str, Any]) -> None:
    """Bound what one unit may take, and die with the parent."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != request["parent"]:
        sys.exit("the parent is gone already")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT, MAX_OUTPUT))
    resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"], request["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"] + 1))


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Compile the unit of the request and load each of its programs once, for the verifier's opinion."""
    if not may_load():
        return {"outcome": "denied"}
    try:
        from bcc import lib
    except (ImportError, OSError) as error:
        return {"outcome": "missing", "message": str(error)}
    declare(lib)
    module = compile_unit(lib, request["text"], request["flags"])
    if not module:
        return {"outcome": "refused"}
    tables = {lib.bpf_table_fd_id(module, i): lib.bpf_table_name(module, i).decode() for i in range(lib.bpf_num_tables(module))}
    maps, btf = map_layouts(tables)
    programs: dict[str, Any] = {}
    rejected: list[dict[str, Any]] = []
    absent: list[str] = []
    for name, (kind, attach) in request["programs"].items():
        start = lib.bpf_function_start(module, name.encode())
        if not start:
            absent.append(name)
            continue
        code = ctypes.string_at(start, lib.bpf_function_size(module, name.encode()))
        programs[name] = {"instructions": base64.b64encode(code).decode(), "map_references": references(code, tables)}
        number, log = load(lib, module, name, code, kind, attach)
        if number == errno.EPERM:
            return {"outcome": "denied"}
        if number:
            rejected.append({"program": name, "log": log})
    return {"outcome": "compiled", "programs": programs, "maps": maps, "btf": btf, "rejected": rejected, "absent": absent}


def load(lib: ctypes.CDLL, module: int, name: str, code: bytes, kind: int, attach: int) -> tuple[int, str]:
    """Load a program and forget it. Returns 0 or the error number, and the verifier's log, in which bcc has named lines of the source."""
    own, own_jumps = with_own_jumps(code)
    program = (module, kind, name.encode(), own, len(code), b"GPL", 0)
    log_start = os.fstat(2).st_size
    loaded = lib.bcc_func_load(*program, 0, None, 0, None, attach)
    number = ctypes.get_errno() if loaded < 0 else 0
    log = os.pread(2, os.fstat(2).st_size - log_start, log_start)
    if number == errno.E2BIG:
        # bcc shows no log of a program that is too complex. A full one of a million steps would take many seconds.
        buffer = ctypes.create_string_buffer(MAX_LOG)
        lib.bcc_func_load(*program, BPF_LOG_STATS, buffer, MAX_LOG, None, attach)
        log = buffer.value
    for descriptor in [*own_jumps, *([] if number else [loaded])]:
        os.close(descriptor)
    return number, log.decode(errors="replace")


def may_load() -> bool:
    """Whether this process has the rights that bcc needs: it creates the maps while it compiles."""
    try:
        descriptor, _ = bpf(BPF_MAP_CREATE, struct.pack("=IIII", BPF_MAP_TYPE_ARRAY, 4, 4, 1))
    except PermissionError:
        return False
    os.close(descriptor)
    return True


def declare(lib: ctypes.CDLL) -> None:
    """Give ctypes the prototypes that bcc's own module leaves out."""
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    lib.bpf_num_tables.restype = ctypes.c_ulonglong
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_fd_id.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    lib.bpf_table_fd_id.restype = ctypes.c_int


def compile_unit(lib: ctypes.CDLL, text: str, flags: list[str]) -> int | None:
    """Have bcc compile; not through its `BPF` class, which attaches functions of certain names by itself."""
    include = Path("/usr/include")
    machine = sysconfig.get_config_var("MULTIARCH")
    directories = [include, *([include / machine] if machine else include.glob("*-linux-gnu*"))]
    arguments = [*flags, f"-DPAGE_SIZE={resource.getpagesize()}"]
    arguments += [word for directory in directories for word in ("-isystem", str(directory))]
    array = (ctypes.c_char_p * len(arguments))(*(argument.encode() for argument in arguments))
    module: int | None = lib.bpf_module_create_c_from_string(text.encode(), 0, array, len(arguments), True, None)  # noqa: FBT003 - C has no names
    return module


def references(code: bytes, tables: dict[int, str]) -> list[tuple[int, str]]:
    """Which instruction loads which map: bcc has put the descriptors of its own maps there."""
    return [(at // 8, tables[descriptor]) for at, descriptor in map_loads(code)]


def with_own_jumps(code: bytes) -> tuple[ctypes.Array[ctypes.c_char], list[int]]:
    """
    The code with prog arrays of its own, and their descriptors.

    A prog array takes on the type of the first program that refers to it and refuses all others, and a unit may have programs for several hooks.
    """
    own, created = ctypes.create_string_buffer(code, len(code)), []
    for at, descriptor in map_loads(code):
        (kind,) = struct.unpack_from("=I", object_info(descriptor, 88))
        if kind == BPF_MAP_TYPE_PROG_ARRAY:
            created.append(bpf(BPF_MAP_CREATE, struct.pack("=IIII", kind, 4, 4, 1))[0])
            struct.pack_into("=i", own, at + 4, created[-1])
    return own, created


def map_loads(code: bytes) -> Iterator[tuple[int, int]]:
    """Where the code loads the address of a map, in bytes, and the descriptor there."""
    at = 0
    while at < len(code):
        opcode, registers, _, descriptor = struct.unpack_from("=BBhi", code, at)
        if opcode == LD_IMM64 and registers >> 4 == PSEUDO_MAP_FD:
            yield at, descriptor
        at += 16 if opcode == LD_IMM64 else 8


def map_layouts(tables: dict[int, str]) -> tuple[list[dict[str, Any]], str]:
    """What the kernel knows about the maps that bcc has made, and the BTF that they share."""
    maps: list[dict[str, Any]] = []
    blob = b""
    for descriptor, name in tables.items():
        # struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags; behind name, ifindex and others the BTF ids
        info = object_info(descriptor, 88)
        kind, _, key_size, value_size, capacity, flags = struct.unpack_from("=6I", info)
        btf_id, key_id, value_id = struct.unpack_from("=3I", info, 64)
        maps.append(
            {
                "name": name,
                "kind": kind,
                "key_size": key_size,
                "value_size": value_size,
                "capacity": capacity,
                "flags": flags,
                "btf_key_id": key_id,
                "btf_value_id": value_id,
            }
        )
        if btf_id and not blob:
            blob = raw_btf(btf_id)
    return maps, base64.b64encode(blob).decode()


def raw_btf(btf_id: int) -> bytes:
    """The BTF blob of an id."""
    descriptor, _ = bpf(BPF_BTF_GET_FD_BY_ID, struct.pack("=I", btf_id))
    blob = ctypes.create_string_buffer(MAX_BTF)
    # struct bpf_btf_info: where to put the blob and how much fits; the kernel answers with its size
    info = object_info(descriptor, 32, struct.pack("=QI", ctypes.addressof(blob), MAX_BTF))
    os.close(descriptor)
    (size,) = struct.unpack_from("=I", info, 8)
    return blob.raw[:size]


def object_info(descriptor: int, size: int, given: bytes = b"") -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD."""
    info = ctypes.create_string_buffer(given, size)
    bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, size, ctypes.addressof(info)))
    return info.raw


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Make the system call; its result, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYS_BPF[os.uname().machine], command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw


if __name__ == "__main__":
    main()
