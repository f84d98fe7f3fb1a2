# SPDX-License-Identifier: Apache-2.0
"""
What a function wants to know of the running kernel, as C: the events of its tracepoints, and the places of members of the kernel's structs.

Both differ from kernel to kernel, so nothing is assumed. They become part of the unit's text, and so of what it is cached by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xdpchain.bpf.kernel_types import member_offsets
from xdpchain.bpf.tracefs import EventField, event_fields
from xdpchain.errors import KernelError
from xdpchain.function import KernelFunction, Program


def facts(owner: str, function: KernelFunction[Any]) -> str:
    """
    The C text in front of a function's source; empty where it asks for nothing.

    Raises:
        KernelError: this kernel has no such tracepoint, field, struct or member; with the owner's name.
    """
    try:
        parts = [_event(program) for program in function.programs if program.fields]
        if function.offsets:
            places = member_offsets(function.offsets.values())
            parts.append("".join(f"#define {name} {places[path]}\t/* {path} */\n" for name, path in function.offsets.items()))
    except KernelError as error:
        message = f"{owner} cannot work with this kernel: {error.message}"
        raise KernelError(message, errno=error.errno, details=error.details, hint=error.hint) from error
    return "\n".join(('#line 1 "what the kernel says"', *parts, "")) if parts else ""


def _event(program: Program) -> str:
    known = event_fields(program.event)
    missing = [name for name in program.fields if name not in known]
    if missing:
        hint = f"in this kernel it has: {', '.join(known)}"
        raise KernelError(f"tracepoint {program.event} does not tell {', '.join(missing)}", hint=hint)
    return event_struct(f"{program.entry}_event", {name: known[name] for name in program.fields})


def event_struct(name: str, fields: Mapping[str, EventField]) -> str:
    """A struct with each field where the event has it. Packed, or the compiler would move what it takes to be unaligned."""
    lines, end = [], 0
    for field, one in sorted(fields.items(), key=lambda item: item[1].offset):
        if one.offset > end:
            lines.append(f"\tu8 xc_before_{field}[{one.offset - end}];")
        if one.array or one.size not in {1, 2, 4, 8}:
            lines.append(f"\tu8 {field}[{one.size}];")
        else:
            lines.append(f"\t{'s' if one.signed else 'u'}{8 * one.size} {field};")
        end = one.offset + one.size
    return "\n".join((f"struct {name} {{", *lines, "} __attribute__((packed, aligned(8)));\n"))
