# SPDX-License-Identifier: Apache-2.0
"""From a parsed table to an object of a config class, with every problem in it and not just the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs
from cattrs import Converter
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from xdpchain.config.keypath import KeyPath, key_path
from xdpchain.config.kinds import Items, Keyed, Kind, Table, shape_of
from xdpchain.config.misfit import MisfitError, given, nearest, one_of
from xdpchain.config.option import Key, keys_of, to_toml
from xdpchain.errors import Problem

ConfigT = TypeVar("ConfigT", bound=attrs.AttrsInstance)


def structure(cls: type[ConfigT], table: Mapping[str, Any], path: KeyPath) -> tuple[ConfigT | None, list[Problem]]:
    """
    The config in `table`, or None and what is wrong with it; `path` is the table's key path.

    Whatever else the class does wrong (a type that no file can hold, a validator with a bug) is raised as it is.
    """
    try:
        return _CONVERTER.structure(table, cls), []
    except (BaseValidationError, MisfitError) as error:
        return None, list(_problems(error, path))


def _problems(error: Exception, path: KeyPath) -> Iterator[Problem]:
    match error:
        case ClassValidationError():
            noted, bare = error.group_exceptions()
            for inner, note in noted:
                yield from _problems(inner, (*path, note.name))
            for inner in bare:
                yield from _problems(inner, path)
        case IterableValidationError():
            for inner, place in error.group_exceptions()[0]:
                yield from _problems(inner, (*path, place.index))
        case ForbiddenExtraKeysError():
            known = [key.name for key in keys_of(error.cl)]
            for name in sorted(error.extra_fields):
                yield Problem((*path, name), "is not a known key", nearest(name, known, f"known here: {', '.join(known)}"))
        case MisfitError():
            yield Problem(path, error.message, error.hint.replace(_HEADER, _header(path)) or _example(error.example, path))
        case ValueError():  # of the class as a whole, from its __attrs_post_init__
            yield Problem(path, str(error))
        case _:
            raise error


_HEADER = "[...]"  # in hints: the header of the table in question, which its reader does not know


def _header(path: KeyPath) -> str:
    """The header of the table at `path`, in double brackets where it is one of a list."""
    name = key_path(tuple(part for part in path if isinstance(part, str)))
    return f"[[{name}]]" if isinstance(path[-1], int) else f"[{name}]"


def _example(example: str, path: KeyPath) -> str:
    if not example:
        return ""
    return f"for example: {path[-1]} = {example}" if path and isinstance(path[-1], str) else f"for example: {example}"


def _hook(annotation: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """How a value of this annotation is read; cattrs keeps the answer."""
    shape = shape_of(annotation)
    match shape:
        case Kind():
            return lambda value, _: shape.parse(value)
        case Items():
            read_list = list_structure_factory(list[shape.annotation], converter)  # type: ignore[name-defined]
            return lambda value, _: tuple(read_list(_list(value, shape), list))
        case Keyed():
            read_mapping = mapping_structure_factory(dict[str, shape.annotation], converter)  # type: ignore[name-defined]
            return lambda value, _: read_mapping(_table(value), dict)
        case Table():
            return _table_hook(shape.cls, converter)


def _table_hook(cls: type[attrs.AttrsInstance], converter: Converter) -> Callable[[Any, Any], Any]:
    keys = list(keys_of(cls))
    overrides: dict[str, Any] = {key.name: override(struct_hook=_key_hook(key, converter)) for key in keys}
    read = make_dict_structure_fn(cls, converter, **overrides)
    required = [key for key in keys if key.required]

    def read_table(value: Any, _: Any) -> Any:
        table = dict(_table(value))
        for key in required:
            table.setdefault(key.name, _ABSENT)
        return read(table, cls)

    return read_table


_ABSENT = object()


def _key_hook(key: Key, converter: Converter) -> Callable[[Any, Any], Any]:
    """Reads one key and judges the value while its place is still known: a class's own validators stop at the first refusal."""
    read = converter.get_structure_hook(key.attribute.type)

    def read_key(value: Any, _: Any) -> Any:
        if value is _ABSENT:
            raise MisfitError("is missing", hint=f"this key is required: {key.help}" if key.help else "this key is required")
        result = read(value, key.attribute.type)
        try:
            key.bounds.check(result, lambda limit: to_toml(key.shape, limit))
            if key.attribute.validator is not None:
                key.attribute.validator(None, key.attribute, result)
        except MisfitError as misfit:
            misfit.hint = misfit.hint or misfit.example or key.help
            raise
        except (ValueError, TypeError) as error:
            raise MisfitError(str(error.args[0]) if error.args else "is not allowed", hint=key.help) from error
        return result

    return read_key


def _list(value: Any, shape: Items) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(shape.item, Table):
        raise MisfitError(f"must be a list of tables, not {given(value)}", hint=f"write its header in double brackets: [{_HEADER}]")
    noun = shape.item.noun if isinstance(shape.item, Kind) else "a list"
    hint = f"write it in brackets: [{one_of([value]) if isinstance(value, str) else value}]" if isinstance(value, str | int) else ""
    raise MisfitError(f"must be a list, each item {noun}, not {given(value)}", hint=hint)


def _table(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise MisfitError(f"must be a table, not {given(value)}", hint=f"write it under the header {_HEADER}")


def _is_supported(annotation: Any) -> bool:
    try:
        shape_of(annotation)
    except TypeError:
        return False
    return True


def _converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook_factory(_is_supported, _hook)
    # cattrs asks these by class, before any factory, and would convert: "1" to 1, 1 to True
    for plain in (bool, int, float, str):
        converter.register_structure_hook(plain, lambda value, annotation: _hook(annotation, converter)(value, annotation))
    return converter


_CONVERTER = _converter()
