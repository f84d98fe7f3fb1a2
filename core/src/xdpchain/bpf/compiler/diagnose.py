# SPDX-License-Identifier: Apache-2.0
"""What the compiler and the verifier said becomes one sentence, a place in the source, and what to do about it. Pure."""

from __future__ import annotations

import re
import signal
import struct

from xdpchain.bpf.compiler.lines import NumberedText
from xdpchain.bpf.compiler.process import Outcome
from xdpchain.errors import CompileError, VerifierError

_NOISE = re.compile(r"\d+ (warning|error)s?( and \d+ errors?)? generated\.|HINT: |bpf: Failed to load program: ")
_ERROR = re.compile(r"(?P<place>[^:]*:\d+(?::\d+)?: )?(?:fatal )?error: (?P<what>.*)", re.IGNORECASE)
_LLVM_ERROR = re.compile(r"LLVM ERROR: (?P<what>.*)")
_MAP_ERROR = re.compile(r"could not open bpf map: (?P<map>\w+), error: (?P<what>.*)")
_TALLY = re.compile(r"processed \d+ insns|verification time |stack depth |max_states_per_insn|$")
_TRACE = re.compile(r"\d+: |; |from \d+ |R\d+(_\w+)?=|mark_precise|BPF program .*Processed|func#")

_COMPILE_HINTS = (
    (r"'(linux|asm|asm-generic)/\S+' file not found", "is it a header of the kernel's interface? apt install linux-libc-dev brings those"),
    (r"stack limit|stack arguments", "keep large values in a per-CPU array map, not on the stack"),
    (
        r"implicit declaration of function '__sync|Cannot select|[Uu]nsupported (libcall|atomic)",
        "BPF has atomic operations on 32 and 64 bits only",
    ),
    (r"implicit declaration|undeclared", "declare it before its first use, or correct its name"),
    (r"unsupported map type", "see the map kinds of xdpchain.schema.MapKind; in C they are written in lower case"),
)
_VERIFIER_HINTS = (
    (r"map_value_or_null|ptr_.*or_null", "check what the lookup returned for NULL before you use it"),
    (r"invalid access to packet|outside of the packet", "check against data_end before you read, or use the headers in struct packet"),
    (r"last insn is not an exit|unknown opcode 8d|jump out of range", "a function was not inlined: write static __always_inline before it"),
    (
        r"invalid (indirect )?(read|access) (from|of|to) stack|invalid indirect",
        "give every byte of the value a value first, padding included: = {}",
    ),
    (r"back-edge|infinite loop|loop detected", "give the loop a bound that is a constant"),
    (r"too large|too many|sequence of \d+ jumps", "fewer branches, smaller loops: the verifier follows every path"),
    (r"unbounded|min value is negative|outside of the allowed|invalid access to map value", "limit the offset (& mask, or if) before use"),
    (r"R0 !read_ok", "return a value on every path"),
    (r"helper call is not allowed|unknown func|program of this type cannot use helper", "this helper is not there for this hook or kernel"),
)
_GLOBALS_HINT = "global variables and constant tables are not carried over: keep the data in a map, or in local variables"
_MAX_LOG_LINES = 1000
_LD_IMM64, _INSTRUCTION_BYTES = 0x18, 8


def refusal(owner: str, text: NumberedText, output: str) -> CompileError:
    """Clang refuses the source, or bcc a map of it."""
    details = clean(text.translate(output))
    if failure := _MAP_ERROR.search(output):
        origin = text.declaration(failure["map"])
        place = f"{origin}: " if origin else ""
        return CompileError(
            owner,
            f"{place}the kernel refuses the map {failure['map']}: {failure['what']}",
            details=details,
            hint="do its kind, key, value and flags go together?",
        )
    first = next(filter(None, map(_ERROR.search, details.splitlines())), None)
    if first is None:
        return CompileError(owner, "the compiler refuses the source and does not say why", details=details, hint="try with less of it")
    message = (first["place"] or "") + first["what"]
    return CompileError(owner, message, details=details, hint=_hint(_COMPILE_HINTS, message, "correct the source there and try again"))


def death(owner: str, text: NumberedText, outcome: Outcome, timeout_s: float) -> CompileError:
    """The worker is gone without an answer."""
    details = clean(text.translate(outcome.output))
    if outcome.stopped:
        return CompileError(
            owner,
            f"the compiler was stopped: not done after {timeout_s:g} s",
            details=details,
            hint="look for macros that multiply, and for unrolled loops with many steps",
        )
    if "Traceback (most recent call last)" in details:
        last = details.rstrip().splitlines()[-1]
        return CompileError(
            owner, f"the compiler's worker failed: {last}", details=details, hint="`xdpchain doctor` looks at the installation"
        )
    how = signal.Signals(-outcome.status).name if outcome.status < 0 else f"status {outcome.status}"
    said = [match for line in details.splitlines() if (match := _LLVM_ERROR.search(line) or _ERROR.search(line))]
    why = (said[-1].groupdict().get("place") or "") + said[-1]["what"] if said else "most often a stack over 512 bytes"
    hint = _hint(_COMPILE_HINTS, why, "make the function smaller until it compiles; the last lines of the output say where it was")
    return CompileError(owner, f"the compiler ended with {how}: LLVM gave up: {why}", details=details, hint=hint)


def rejection(owner: str, text: NumberedText, program: str, instructions: bytes, log: str) -> VerifierError:
    """The verifier refuses a program; errors name it by the author's function, without the prefix of the entry that the core generates."""
    lines = log.splitlines()
    left_out = max(0, len(lines) - _MAX_LOG_LINES)
    log = "\n".join(lines[left_out:])
    details = clean(text.translate(log))
    places = [origin for origin in text.places(log) if origin.line]
    place = f"{places[-1]}: " if places else ""
    said = _conclusion(details)
    hint = _GLOBALS_HINT if uses_globals(instructions) else _hint(_VERIFIER_HINTS, said, "read the log from its end")
    if left_out:
        details = f"({left_out} lines left out)\n{details}"
    return VerifierError(owner, f"{place}the kernel's verifier refuses {program.removeprefix('xc_')}: {said}", details=details, hint=hint)


def clean(output: str) -> str:
    """The output without its chatter."""
    return "\n".join(line for line in output.splitlines() if not _NOISE.match(line))


def uses_globals(instructions: bytes) -> bool:
    """Whether a program loads the address 0: what is left of a global variable, since nothing relocates it."""
    at = 0
    while at < len(instructions):
        opcode, registers, _, low = struct.unpack_from("=BBhi", instructions, at)
        if opcode == _LD_IMM64:
            (high,) = struct.unpack_from("=i", instructions, at + _INSTRUCTION_BYTES + 4)
            if registers >> 4 == 0 and low == high == 0:
                return True
            at += _INSTRUCTION_BYTES
        at += _INSTRUCTION_BYTES
    return False


def _conclusion(log: str) -> str:
    """The verifier's own words at the end of its log: what follows the last instruction that it looked at."""
    lines = [line.strip() for line in log.splitlines() if not _TALLY.match(line)]
    said: list[str] = []
    for line in reversed(lines):
        if _TRACE.match(line):
            break
        said.insert(0, line)
    return "; ".join(said[-3:]) or (lines[-1] if lines else "no reason given")


def _hint(table: tuple[tuple[str, str], ...], message: str, default: str) -> str:
    return next((hint for pattern, hint in table if re.search(pattern, message)), default)
