# SPDX-License-Identifier: Apache-2.0
"""Names in a node file: interfaces and their patterns, instances, and the one that was probably meant."""

from __future__ import annotations

import re

from xdpchain.config.misfit import MisfitError, quoted

INSTANCE_PATTERN = "[a-z][a-z0-9_]{0,31}"
MAX_INTERFACE_NAME = 15
"""Bytes; the kernel's IFNAMSIZ is 16 with the closing zero (linux/if.h)."""

_WILDCARD = re.compile(r"[*?\[]")
_SET = re.compile(r"\[!?[^\]]+\]")


def is_pattern(name: str) -> bool:
    """Whether a name stands for many: it has `*`, `?` or `[...]`, as in a shell."""
    return _WILDCARD.search(name) is not None


def literal_prefix(pattern: str) -> str:
    """What stands before the first wildcard."""
    return _WILDCARD.split(pattern, maxsplit=1)[0]


def check_interface_name(name: str) -> None:
    """
    Refuses what no interface can be called: the rules of the kernel's `dev_valid_name()`, for patterns too.

    Raises:
        MisfitError: with what is wrong.
    """
    bad = re.search(r"[\s/:]", name)
    if bad is not None:
        message = f"is not a name of an interface: it has {quoted(bad.group())} in it"
        raise MisfitError(message, hint="the kernel takes no blanks, slashes and colons")
    if name in {"", ".", ".."}:
        raise MisfitError("is not a name of an interface", hint='a name such as "eth0" or a pattern such as "tap*"')
    without_sets = _SET.sub("?", name)
    if "[" in without_sets:
        raise MisfitError("is not a pattern: a set of characters is not closed", hint='a set is written "eth[0-3]"')
    shortest = len(without_sets.replace("*", "").encode())
    if shortest > MAX_INTERFACE_NAME:
        message = f"is longer than the name of an interface can be: {shortest} of {MAX_INTERFACE_NAME} bytes"
        raise MisfitError(message, hint='"ip link" shows the names of this machine')


def check_instance_name(name: str) -> None:
    """
    Refuses what cannot be a pin, a metric's label and a TOML key at once.

    Raises:
        MisfitError: with what is wrong.
    """
    if re.fullmatch(INSTANCE_PATTERN, name) is None:
        likely = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:32]
        hint = "a lower case letter, then lower case letters, digits and underscores, 32 in all"
        raise MisfitError("is not a name of an instance", hint=f'{hint}: "{likely}"' if re.fullmatch(INSTANCE_PATTERN, likely) else hint)
