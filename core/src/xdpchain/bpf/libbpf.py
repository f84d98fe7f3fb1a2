# SPDX-License-Identifier: Apache-2.0
"""
The system's libbpf.so.1 through ctypes: the low-level calls, with errors as `KernelError`.

Only calls that wrap one command of bpf(2), and those for clsact filters, are used. Descriptors are plain ints here;
`xdpchain.bpf.handle.Handle` owns them.
"""

from __future__ import annotations

import ctypes as ct
import errno
import functools
import os
from collections.abc import Iterable, Iterator

from xdpchain.bpf import structs
from xdpchain.errors import KernelError

BPF_ANY, BPF_NOEXIST = 0, 1
Buffer = bytes | ct.Array[ct.c_char]
LOG_BYTES = 1 << 20
_TOO_LARGE = {errno.E2BIG, errno.ENOMEM}
_LOG_LEVEL = 1


@functools.cache
def library() -> ct.CDLL:
    """
    The library itself, silenced.

    Raises:
        KernelError: it is not installed.
    """
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError(f"libbpf.so.1 cannot be loaded: {error}", hint="install the distribution's libbpf1 package") from error
    lib.libbpf_set_print(None)
    return lib


def check(result: int, what: str, hint: str = "") -> int:
    """Turn libbpf's negative errno into a `KernelError`."""
    if result >= 0:
        return result
    code = -result
    if not hint and code in {1, 13}:
        hint = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    raise KernelError(f"{what}: {os.strerror(code)}", errno=code, hint=hint)


def prog_load(
    kind: int, name: str, instructions: bytes, *, attach_type: int, flags: int = 0, ifindex: int = 0, licence: str = "Dual BSD/GPL"
) -> int:
    """
    Load a program and return its descriptor.

    Raises:
        KernelError: the kernel refuses; `details` is the verifier's log, empty when it was not the verifier.
    """
    buffer = (ct.c_char * len(instructions)).from_buffer_copy(instructions)

    def load(**log: object) -> int:
        opts = structs.ProgLoadOpts(
            sz=ct.sizeof(structs.ProgLoadOpts), expected_attach_type=attach_type, prog_flags=flags, prog_ifindex=ifindex, **log
        )
        count = len(instructions) // 8
        return int(library().bpf_prog_load(kind, name.encode()[:15], licence.encode(), buffer, ct.c_size_t(count), ct.byref(opts)))

    result = load()
    if result >= 0:
        return result
    log = ct.create_string_buffer(LOG_BYTES)
    result = load(log_level=_LOG_LEVEL, log_size=LOG_BYTES, log_buf=ct.cast(log, ct.c_char_p))
    if result >= 0:
        return result
    text = log.value.decode(errors="replace")
    raise KernelError(f"the kernel refuses program {name}: {os.strerror(-result)}", errno=-result, details=text)


def map_create(
    kind: int,
    name: str,
    key_size: int,
    value_size: int,
    capacity: int,
    *,
    flags: int = 0,
    btf_fd: int = 0,
    btf_key_id: int = 0,
    btf_value_id: int = 0,
    inner_fd: int = 0,
    ifindex: int = 0,
) -> int:
    """Create a map and return its descriptor."""
    opts = structs.MapCreateOpts(
        sz=ct.sizeof(structs.MapCreateOpts),
        map_flags=flags,
        btf_fd=btf_fd,
        btf_key_type_id=btf_key_id,
        btf_value_type_id=btf_value_id,
        inner_map_fd=inner_fd,
        map_ifindex=ifindex,
    )
    result = library().bpf_map_create(kind, name.encode()[:15], key_size, value_size, capacity, ct.byref(opts))
    hint = "lower the setting that sizes it: the kernel has no room for so many" if -result in _TOO_LARGE else ""
    return check(result, f"cannot create map {name} of {capacity} entries", hint)


def btf_load(blob: bytes) -> int:
    """Load BTF and return its descriptor."""
    buffer = (ct.c_char * len(blob)).from_buffer_copy(blob)
    return check(library().bpf_btf_load(buffer, ct.c_size_t(len(blob)), None), "cannot load BTF")


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value at `key` (`value_bytes` long: all CPUs' values for a per-CPU map), or None."""
    value = ct.create_string_buffer(value_bytes)
    result = library().bpf_map_lookup_elem(fd, key, value)
    if result == -2:
        return None
    check(result, "cannot read a map element")
    return value.raw


def map_lookup_many(fd: int, keys: Iterable[bytes], value_bytes: int) -> list[bytes | None]:
    """The values at `keys`, one by one: as `map_lookup`, with one buffer for all."""
    value = ct.create_string_buffer(value_bytes)
    lookup, found = library().bpf_map_lookup_elem, []
    for key in keys:
        result = lookup(fd, key, value)
        if result not in {0, -errno.ENOENT}:
            check(result, "cannot read a map element")
        found.append(None if result else value.raw)
    return found


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> int:
    """Write `value` at `key`; returns 0 or a negative errno, so that callers can tell "exists" and "full" from failures."""
    return int(library().bpf_map_update_elem(fd, key, value, ct.c_uint64(flags)))


def map_delete(fd: int, key: bytes) -> bool:
    """Delete `key`; False where it was not there."""
    result = library().bpf_map_delete_elem(fd, key)
    if result == -2:
        return False
    check(result, "cannot delete a map element")
    return True


def map_keys(fd: int, key_size: int) -> Iterator[bytes]:
    """Walk the keys one by one. A key deleted meanwhile makes the kernel start again: callers bound the walk."""
    key: bytes | None = None
    following = ct.create_string_buffer(key_size)
    while True:
        result = library().bpf_map_get_next_key(fd, key, following)
        if result == -2:
            return
        check(result, "cannot walk a map")
        key = following.raw
        yield key


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Write `count` elements in one call."""
    done = ct.c_uint32(count)
    opts = structs.BatchOpts(sz=ct.sizeof(structs.BatchOpts))
    check(library().bpf_map_update_batch(fd, keys, values, ct.byref(done), ct.byref(opts)), f"cannot write {count} map elements")


Chunk = tuple[int, Buffer, Buffer]
"""How many elements, and the buffers in which their keys and values begin. The next chunk may come in the same buffers."""


def map_lookup_chunks(fd: int, key_size: int, value_bytes: int, chunk: int = 4096) -> Iterator[Chunk]:
    """Read all elements by chunks; raises KernelError with EINVAL/ENOTSUPP where the map's kind has no batch calls."""
    position: bytes | None = None
    cursor = ct.create_string_buffer(max(key_size, 8))
    opts = structs.BatchOpts(sz=ct.sizeof(structs.BatchOpts))
    keys, values = ct.create_string_buffer(key_size * chunk), ct.create_string_buffer(value_bytes * chunk)
    while True:
        count = ct.c_uint32(chunk)
        result = library().bpf_map_lookup_batch(fd, position, cursor, keys, values, ct.byref(count), ct.byref(opts))
        if result == -errno.ENOSPC:  # a hash bucket holds more than a chunk
            chunk *= 2
            keys, values = ct.create_string_buffer(key_size * chunk), ct.create_string_buffer(value_bytes * chunk)
            continue
        if result != -errno.ENOENT:
            check(result, "cannot read map elements")
        yield count.value, keys, values
        if result == -errno.ENOENT:
            return
        position = cursor.raw


def obj_pin(fd: int, path: str) -> None:
    """Pin a map, program or link at `path` on a bpffs."""
    check(library().bpf_obj_pin(fd, path.encode()), f"cannot pin {path}", hint="is a bpffs mounted there? `xdpchain doctor` says more")


def obj_get(path: str) -> int:
    """Open a pinned object."""
    return check(library().bpf_obj_get(path.encode()), f"cannot open the pin {path}")


def link_create(prog_fd: int, target: int, attach_type: int, *, flags: int = 0) -> int:
    """Attach a program to `target` (an interface's index, or a perf event's descriptor); returns 0 or more, or a negative errno."""
    opts = structs.LinkCreateOpts(
        sz=structs.LinkCreateOpts.target_btf_id.offset, flags=flags
    )  # the fields behind are for other kinds of links
    return int(library().bpf_link_create(prog_fd, target, attach_type, ct.byref(opts)))


def link_update(link_fd: int, prog_fd: int) -> None:
    """Replace the program of a link, atomically."""
    check(library().bpf_link_update(link_fd, prog_fd, None), "cannot replace the program of a link")


def link_detach(link_fd: int) -> None:
    """Detach a link from its target, whoever else holds it."""
    check(library().bpf_link_detach(link_fd), "cannot detach a link")


_TC_REPLACE = 1
_TC_HANDLE, _TC_PRIORITY = 0x7863, 0x7863
"""Our filter among those of a hook: at most one, so that these numbers name it."""


def _tc_hook(interface: int, *, egress: bool) -> structs.TcHook:
    return structs.TcHook(sz=ct.sizeof(structs.TcHook), ifindex=interface, attach_point=2 if egress else 1)


def tc_attach(prog_fd: int, interface: int, *, egress: bool, replace: bool = False) -> int:
    """Make a program our filter at an interface's clsact qdisc, which is made if need be; returns 0 or a negative errno."""
    hook = _tc_hook(interface, egress=egress)
    result = library().bpf_tc_hook_create(ct.byref(hook))
    if result not in {0, -errno.EEXIST}:
        return int(result)
    flags = _TC_REPLACE if replace else 0
    opts = structs.TcOpts(sz=ct.sizeof(structs.TcOpts), prog_fd=prog_fd, flags=flags, handle=_TC_HANDLE, priority=_TC_PRIORITY)
    return int(library().bpf_tc_attach(ct.byref(hook), ct.byref(opts)))


def tc_detach(interface: int, *, egress: bool) -> int:
    """Remove our filter; returns 0 or a negative errno. The qdisc stays: others may use it."""
    opts = structs.TcOpts(sz=ct.sizeof(structs.TcOpts), handle=_TC_HANDLE, priority=_TC_PRIORITY)
    return int(library().bpf_tc_detach(ct.byref(_tc_hook(interface, egress=egress)), ct.byref(opts)))


def tc_program(interface: int, *, egress: bool) -> int:
    """The id of the program that is our filter; 0 where there is none."""
    opts = structs.TcOpts(sz=ct.sizeof(structs.TcOpts), handle=_TC_HANDLE, priority=_TC_PRIORITY)
    result = library().bpf_tc_query(ct.byref(_tc_hook(interface, egress=egress)), ct.byref(opts))
    return int(opts.prog_id) if result == 0 else 0


def _info(fd: int, into: ct.Structure) -> None:
    size = ct.c_uint32(ct.sizeof(into))
    check(library().bpf_obj_get_info_by_fd(fd, ct.byref(into), ct.byref(size)), "cannot read what the kernel knows of a BPF object")


def map_info(fd: int) -> structs.MapInfo:
    """What the kernel knows of a map."""
    info = structs.MapInfo()
    _info(fd, info)
    return info


def link_info(fd: int) -> structs.LinkInfo:
    """What the kernel knows of a link."""
    info = structs.LinkInfo()
    _info(fd, info)
    return info


def prog_info(fd: int) -> structs.ProgInfo:
    """What the kernel knows of a program."""
    info = structs.ProgInfo()
    _info(fd, info)
    return info


def prog_map_ids(fd: int) -> list[int]:
    """The ids of the maps that a program uses."""
    info = prog_info(fd)
    ids = (ct.c_uint32 * max(info.nr_map_ids, 1))()
    asked = structs.ProgInfo(nr_map_ids=info.nr_map_ids, map_ids=ct.addressof(ids))
    _info(fd, asked)
    return list(ids[: info.nr_map_ids])


def prog_by_id(number: int) -> int:
    """Open a loaded program by its id."""
    return check(library().bpf_prog_get_fd_by_id(number), f"cannot open program {number}")


def map_by_id(number: int) -> int:
    """Open a map by its id."""
    return check(library().bpf_map_get_fd_by_id(number), f"cannot open map {number}")


def _ids(call: str) -> Iterator[int]:
    number = ct.c_uint32(0)
    following = ct.c_uint32(0)
    while getattr(library(), call)(number, ct.byref(following)) == 0:
        yield following.value
        number = ct.c_uint32(following.value)


def program_ids() -> Iterator[int]:
    """The ids of all programs in the kernel."""
    return _ids("bpf_prog_get_next_id")


def map_ids() -> Iterator[int]:
    """The ids of all maps in the kernel."""
    return _ids("bpf_map_get_next_id")


def link_ids() -> Iterator[int]:
    """The ids of all links in the kernel."""
    return _ids("bpf_link_get_next_id")


def test_run(
    prog_fd: int, data: bytes, *, room: int = 0, context: bytes | None = None, repeat: int = 0, flags: int = 0, cpu: int = 0, batch: int = 0
) -> tuple[int, bytes, int]:
    """
    BPF_PROG_TEST_RUN: returns the program's return value, the packet afterwards and the mean duration in nanoseconds.

    `room` is the size of the buffer for the packet (0: none comes back). See Documentation/bpf/bpf_prog_run.rst for `flags` and `batch`.
    """
    source = ct.create_string_buffer(data, max(len(data), 1))
    out = ct.create_string_buffer(max(room, 1))
    ctx = ct.create_string_buffer(context or b"\0", max(len(context or b""), 1))
    opts = structs.TestRunOpts(
        sz=ct.sizeof(structs.TestRunOpts),
        data_in=ct.addressof(source),
        data_size_in=len(data),
        data_out=ct.addressof(out) if room else None,
        data_size_out=room,
        ctx_in=ct.addressof(ctx) if context else None,
        ctx_size_in=len(context) if context else 0,
        repeat=repeat,
        flags=flags,
        cpu=cpu,
        batch_size=batch,
    )
    check(library().bpf_prog_test_run_opts(prog_fd, ct.byref(opts)), "cannot run a program on a test packet")
    return opts.retval, out.raw[: opts.data_size_out] if room else b"", opts.duration
