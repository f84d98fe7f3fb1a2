# SPDX-License-Identifier: Apache-2.0
"""From functions to artifacts: the units of a config's instances, their fingerprints, and their compilation."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.layout import check_schema, fingerprint
from xdpchain.bpf.unit import dispatcher_unit, function_unit
from xdpchain.chain.instance import plugin_call
from xdpchain.config import InstanceConfig
from xdpchain.function import Hook, KernelFunction


class Units:
    """
    The units of functions, each read once.

    A package that is upgraded under a running daemon so changes nothing before the restart: old Python and new C would not fit together.
    """

    def __init__(self) -> None:
        self._units: dict[KernelFunction[Any], Unit] = {}

    def of(self, function: KernelFunction[Any]) -> Unit:
        """The unit of a function. Raises `CompileError` where its source cannot be read."""
        if function not in self._units:
            self._units[function] = function_unit(function.name, function)
        return self._units[function]


class Sources:
    """The units of one config's instances."""

    def __init__(self, instances: Mapping[str, InstanceConfig], units: Units) -> None:
        self._instances = instances
        self._units = {instance.function.name: units.of(instance.function) for instance in instances.values()}

    @functools.cached_property
    def codes(self) -> Mapping[str, str]:
        """For each instance the fingerprint of its source and its map schema."""
        return {name: self._code(instance) for name, instance in self._instances.items()}

    def _code(self, instance: InstanceConfig) -> str:
        with plugin_call(instance.function, "maps"):
            schemas = [f"{schema.name}-{schema.role.value}-{fingerprint(schema)}" for schema in instance.function.maps(instance.config)]
        text = "\n".join((self._units[instance.function.name].text, *schemas))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def compile(self, compiler: Compiler, names: Iterable[str], hooks: Iterable[Hook]) -> tuple[dict[str, Artifact], dict[Hook, Artifact]]:
        """
        The artifacts of some instances, their schemas checked against what the compiler saw, and of the dispatchers of some hooks.

        Raises:
            CompileError, VerifierError, SchemaError: with the function's name.
        """
        wanted = [self._instances[name] for name in names]
        functions = list({instance.function.name: instance.function for instance in wanted})
        kinds = list(dict.fromkeys(hooks))
        units = [*(self._units[name] for name in functions), *(dispatcher_unit(hook) for hook in kinds)]
        artifacts = compiler.compile_many(units)
        by_function = dict(zip(functions, artifacts, strict=False))
        for instance in wanted:
            with plugin_call(instance.function, "maps"):
                schemas = tuple(instance.function.maps(instance.config))
            check_schema(instance.function.name, schemas, by_function[instance.function.name])
        by_instance = {instance.name: by_function[instance.function.name] for instance in wanted}
        return by_instance, dict(zip(kinds, artifacts[len(functions) :], strict=True))
