# SPDX-License-Identifier: Apache-2.0
"""The keys of a config class: a field with its help text and bounds, which messages, schema and reference share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

import attrs

from xdpchain.config.kinds import Items, Keyed, Kind, Shape, Table, shape_of
from xdpchain.config.misfit import MisfitError

_HELP = "xdpchain.help"
_BOUNDS = "xdpchain.bounds"


@attrs.frozen
class Bounds:
    """Both ends included: of a number (a duration in nanoseconds), or of the length of a list or string."""

    min: int | float | None = None
    max: int | float | None = None

    def check(self, value: Any, show: Callable[[Any], Any] = str) -> None:
        """Refuses a value outside; `show` writes numbers as TOML would."""
        if value is None:
            return
        sized = not isinstance(value, int | float) and isinstance(value, Sized)  # numbers first: asking for Sized is slow
        size: Any = len(value) if sized else value
        if self.min is not None and size < self.min:
            limit, word = self.min, "least"
        elif self.max is not None and size > self.max:
            limit, word = self.max, "most"
        else:
            return
        if not sized:
            raise MisfitError(f"must be at {word} {show(limit)}, not {show(size)}", hint=f"{self.range(show)} is allowed")
        thing = "character" if isinstance(value, str) else "item"
        raise MisfitError(f"must have at {word} {limit} {thing}{'' if limit == 1 else 's'}, not {size}")

    def range(self, show: Callable[[Any], Any] = str) -> str:
        """`from 1 to 10`, `at least 1`, or nothing."""
        if self.min is not None and self.max is not None:
            return f"from {show(self.min)} to {show(self.max)}"
        return f"at least {show(self.min)}" if self.min is not None else f"at most {show(self.max)}" if self.max is not None else ""

    def __call__(self, instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """The attrs validator, for configs that are made in Python."""
        self.check(value)


def option(
    *,
    help: str,
    default: Any = attrs.NOTHING,
    validator: Callable[[Any, attrs.Attribute[Any], Any], None] | None = None,
    min: int | float | None = None,
    max: int | float | None = None,
) -> Any:
    """
    A key of a config class.

    Args:
        help: one sentence for the reference and the JSON Schema.
        default: what an absent key means; without it the key is required.
        validator: an attrs validator that judges this value alone: its first argument is None while a file is read. What concerns several
            keys belongs into `KernelFunction.check`.
        min: the least value (a `Duration` for durations), or the least length of a list or string.
        max: the greatest.

    Returns:
        A field of an attrs class; make the class `kw_only`, so that required keys may follow others.
    """
    bounds = Bounds(min, max)
    validators = [judge for judge in (bounds if bounds != Bounds() else None, validator) if judge is not None]
    return attrs.field(default=default, validator=validators or None, metadata={_HELP: help, _BOUNDS: bounds})


@attrs.frozen
class Key:
    """A key of a config class as messages, schema and reference see it."""

    name: str
    shape: Shape
    help: str
    bounds: Bounds
    attribute: attrs.Attribute[Any]

    @property
    def required(self) -> bool:
        return self.attribute.default is attrs.NOTHING

    @property
    def default(self) -> Any:
        """The default as TOML would hold it; None where the key is required, or where being absent has a meaning of its own."""
        value: Any = self.attribute.default
        if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # attrs types its class as a function
            value = value.factory()
        return None if value is attrs.NOTHING or value is None else to_toml(self.shape, value)


def keys_of(cls: type[attrs.AttrsInstance]) -> Iterator[Key]:
    """The keys of a config class, in the order of its fields."""
    attrs.resolve_types(cls)
    for attribute in attrs.fields(cls):
        if attribute.init:
            metadata: Mapping[str, Any] = attribute.metadata
            yield Key(attribute.name, shape_of(attribute.type), metadata.get(_HELP, ""), metadata.get(_BOUNDS, Bounds()), attribute)


def has_defaults(cls: type[attrs.AttrsInstance]) -> bool:
    """Whether an empty table is a valid config."""
    return not any(key.required for key in keys_of(cls))


def to_toml(shape: Shape, value: Any) -> Any:
    """A config value as TOML would hold it."""
    match shape:
        case Kind():
            return shape.show(value)
        case Items():
            return [to_toml(shape.item, item) for item in value]
        case Keyed():
            return {name: to_toml(shape.item, item) for name, item in value.items()}
        case Table():
            set_keys = [key for key in keys_of(shape.cls) if getattr(value, key.name) is not None]
            return {key.name: to_toml(key.shape, getattr(value, key.name)) for key in set_keys}
