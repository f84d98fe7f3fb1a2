# SPDX-License-Identifier: Apache-2.0
"""From units to artifacts: out of the cache, or through a worker."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from xdpchain.bpf.artifact import Artifact, MapLayout, ProgramCode
from xdpchain.bpf.compiler import diagnose
from xdpchain.bpf.compiler.cache import Cache, key_of
from xdpchain.bpf.compiler.lines import NumberedText
from xdpchain.bpf.compiler.process import PYTHON, Outcome, run_worker
from xdpchain.bpf.loader import PROGRAM_TYPE
from xdpchain.errors import CompileError, KernelError, PluginError
from xdpchain.function import Hook
from xdpchain.schema import MapKind

WORKERS = 2
"""How many compile at a time: each takes a CPU and some 150 MB."""

FLAGS = (
    "-O2",
    "-Wall",
    "-Wno-unused-function",  # headers are made of functions that not everybody needs
    "-Werror=implicit-function-declaration",  # the verifier's word for it is hard to understand
    "-Werror=return-type",
    "-include",
    "xdpchain/corrections.h",
)

_BPF_XDP, _BY_TYPE = 37, 0xFFFFFFFF  # expected_attach_type; bcc takes -1 as "whatever the type wants"
_MAPS_OF_MAPS = {MapKind.ARRAY_OF_MAPS.value, MapKind.HASH_OF_MAPS.value}


@attrs.frozen
class Unit:
    """
    The final C text of one function: core header, reasons, the author's source, generated entries.

    `owner` is the plugin that errors name, `programs` the C function and hook of each program.
    """

    owner: str
    text: str = attrs.field(repr=False)
    programs: Mapping[str, Hook] = attrs.field(hash=False)


class Compiler:
    """
    Compiles units, each at most once.

    Args:
        cache: the directory of the artifacts, made when it is missing; None keeps nothing.
        timeout_s: how long one unit may take, in processor time; see `run_worker`.
        python: the interpreter that has bcc.
    """

    def __init__(self, cache: Path | None, timeout_s: float = 30.0, python: str = PYTHON) -> None:
        self._cache = Cache(cache) if cache else None
        self._timeout_s = timeout_s
        self._python = python

    def cached(self, unit: Unit) -> bool:
        """Whether `compile` needs no compiler for this unit."""
        return self._cache is not None and self._cache.get(key_of(_identity(unit))) is not None

    def compile(self, unit: Unit) -> Artifact:
        """
        The artifact of a unit.

        Raises:
            CompileError: clang refuses the text, or its worker died, was stopped, or cannot be run.
            VerifierError: the kernel refuses one of its programs.
            KernelError: this process may not load BPF programs.
        """
        key = key_of(_identity(unit))
        found = self._cache.get(key) if self._cache else None
        if found:
            return found
        artifact = self._run(unit, key)
        if self._cache:
            self._cache.put(artifact)
        return artifact

    def compile_many(self, units: Sequence[Unit]) -> list[Artifact]:
        """
        The artifacts of several units, in their order; equal units are compiled once.

        Raises:
            PluginError: as `compile`, for the first unit that fails; what other units have to say is in `details`.
        """
        with ThreadPoolExecutor(WORKERS, "compile") as pool:
            jobs: dict[str, Future[Artifact]] = {}
            keys = [key_of(_identity(unit)) for unit in units]
            for key, unit in zip(keys, units, strict=True):
                if key not in jobs:
                    jobs[key] = pool.submit(self.compile, unit)
        failures = [error for job in jobs.values() if (error := job.exception())]
        if failures:
            first, *others = failures
            if isinstance(first, PluginError):
                first.details = "\n".join([first.details, *(f"also: {error}" for error in others)])
            raise first
        return [jobs[key].result() for key in keys]

    def _run(self, unit: Unit, key: str) -> Artifact:
        text = NumberedText(unit.text)
        request = {
            "text": text.text,
            "flags": FLAGS,
            "programs": {name: (PROGRAM_TYPE[hook], _BPF_XDP if hook is Hook.XDP else _BY_TYPE) for name, hook in unit.programs.items()},
        }
        try:
            outcome = run_worker(request, self._timeout_s, self._python)
        except OSError as error:
            message = f"the compiler cannot be run: {error.strerror}: {error.filename}"
            raise CompileError(unit.owner, message, hint="apt install python3 python3-bpfcc") from error
        answer = self._answer(unit, text, outcome)
        for rejected in answer["rejected"]:
            name = rejected["program"]
            raise diagnose.rejection(unit.owner, text, name, _program(answer, name).instructions, rejected["log"])
        if answer["absent"]:
            missing = ", ".join(answer["absent"])
            raise CompileError(
                unit.owner, f"the source has no function {missing}", hint="is `entry` in Program the name of the C function?"
            )
        programs = {name: _program(answer, name) for name in unit.programs}
        maps = {item["name"]: _layout(unit, item) for item in answer["maps"]}
        return Artifact(key, programs, maps, base64.b64decode(answer["btf"]))

    def _answer(self, unit: Unit, text: NumberedText, outcome: Outcome) -> Mapping[str, Any]:
        if outcome.answer is None:
            raise diagnose.death(unit.owner, text, outcome, self._timeout_s)
        kind = outcome.answer["outcome"]
        if kind == "refused":
            raise diagnose.refusal(unit.owner, text, outcome.output)
        if kind == "missing":
            message = f"bcc is not there: {outcome.answer['message']}"
            raise CompileError(unit.owner, message, hint=f"{self._python} needs it: apt install python3-bpfcc")
        if kind == "denied":
            raise KernelError("not allowed to load BPF programs", hint="run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
        return outcome.answer


def _identity(unit: Unit) -> dict[str, Any]:
    return {"text": unit.text, "flags": FLAGS, "programs": {name: hook.value for name, hook in unit.programs.items()}}


def _program(answer: Mapping[str, Any], name: str) -> ProgramCode:
    data = answer["programs"][name]
    return ProgramCode(name, base64.b64decode(data["instructions"]), dict(data["map_references"]))


def _layout(unit: Unit, item: Mapping[str, Any]) -> MapLayout:
    inner = _inner(unit, item["name"]) if item["kind"] in _MAPS_OF_MAPS else None
    return MapLayout(**item, inner=inner)


def _inner(unit: Unit, name: str) -> str:
    """The template of a map of maps; neither bcc nor the kernel tells, so the source does."""
    by_macro = re.search(rf'BPF_(?:ARRAY|HASH)_OF_MAPS\s*\(\s*{name}\s*,[^")]*"(\w+)"', unit.text)
    by_table = re.search(rf'BPF_(?:F_)?TABLE\s*\(\s*"(?:array|hash)_of_maps\$(\w+)"[^)]*\b{name}\b', unit.text)
    found = by_macro or by_table
    if found is None:
        hint = f'write BPF_ARRAY_OF_MAPS({name}, "TEMPLATE", BY_SCHEMA) or BPF_HASH_OF_MAPS({name}, KEY, "TEMPLATE", BY_SCHEMA)'
        raise CompileError(unit.owner, f"the template of the map of maps {name} cannot be found in the source", hint=hint)
    return found[1]
