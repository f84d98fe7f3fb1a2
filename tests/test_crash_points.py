# SPDX-License-Identifier: Apache-2.0
"""
The death of an apply at each of its steps, one after the other: before every call that changes something in the kernel or on the bpffs.

Where `test_crash` kills a daemon at random moments, here no moment is left out. An apply runs in a process of its own, which kills itself.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from xdpchain.bpf import libbpf
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine, unload
from xdpchain.config import loads
from xdpchain.netlink import list_interfaces

from core.tests.chain.conftest import Wire
from tests.distributions.trail.trail import xdpchain_functions
from tests.helpers.kernel import Objects, objects, order, pins
from tests.helpers.node import node_file, until
from tests.helpers.traffic import own_names

CHANGING = (
    "bpf_prog_load",
    "bpf_map_create",
    "bpf_map_update_elem",
    "bpf_map_update_batch",
    "bpf_obj_pin",
    "bpf_link_create",
    "bpf_link_update",
    "bpf_link_detach",
)
NUMBERS = {"a": 1, "b": 2, "c": 3}
OWN = own_names(NUMBERS)
NOTHING = Objects(Counter(), dispatchers=0, links=0)
NODES: Mapping[str, Mapping[str, Any]] = {
    "base": {"near": "ab", "far": "c"},
    "another order": {"near": "cba", "far": "c"},
    "another dispatcher": {"near": "ab", "far": "c", "on_error": "drop"},
    "another schema": {"near": "ab", "far": "c", "room": 2},
    "another number": {"near": "ab", "far": "c", "a": 9},
    "one interface less": {"near": "ab"},
}


@pytest.fixture
def compiler(cache: Path) -> Compiler:
    """The compiler, with the cache of all tests."""
    return Compiler(cache)


@pytest.fixture
def root(namespaces: None, bpffs: Path) -> Iterator[Path]:
    """Where the engines pin."""
    yield bpffs / "xdpchain"
    unload(bpffs / "xdpchain")
    until(lambda: loaded() == NOTHING)


def document(near: str = "", far: str = "", on_error: str = "pass", room: int = 1, a: int = 1) -> str:
    chains = {name: [OWN[one] for one in chain] for name, chain in (("near", near), ("far", far)) if chain}
    tables = {OWN[name]: {"plugin": "trail", "number": a if name == "a" else number, "room": room} for name, number in NUMBERS.items()}
    return node_file(chains, tables, on_error=on_error)


def apply(root: Path, compiler: Compiler, text: str) -> None:
    """What a daemon does that starts with this file, or reads it again."""
    functions = {function.name: function for function in xdpchain_functions()}
    Engine(root, compiler).apply(loads(text, functions), list_interfaces())


def dies_before(step: int, action: Callable[[], object]) -> bool:
    """Do something in a process that kills itself before its change number `step`; whether it did not get to the end."""
    process = os.fork()
    if process == 0:
        try:
            _die_before(step)
            action()
        except BaseException as error:  # noqa: BLE001 - nothing may escape into the copy of pytest
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)

    assert status in {0, signal.SIGKILL}

    return status != 0


def _die_before(step: int) -> None:
    left = [step]

    def counting(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **named)

        return counted

    library = libbpf.library()
    for name in CHANGING:
        setattr(library, name, counting(getattr(library, name)))
    for name in ("mkdir", "rmdir", "unlink"):
        setattr(Path, name, counting(getattr(Path, name)))


def loaded() -> Objects:
    return objects(OWN.values())


def numbers(chain: Sequence[str], a: int = 1) -> list[int]:
    return [a if name == "a" else NUMBERS[name] for name in chain]


@pytest.mark.parametrize("change", [name for name in NODES if name != "base"])
def test_an_apply_may_die_at_every_step(change: str, root: Path, wire: Wire, compiler: Compiler) -> None:
    old, new = NODES["base"], NODES[change]
    apply(root, compiler, document(**old))
    before = pins(root)
    objects_before = loaded()
    step = 1
    while dies_before(step, lambda: apply(root, compiler, document(**new))):
        runs = tuple(order(root, "near")), tuple(order(root, "far"))
        assert runs[0] in {tuple(OWN[name] for name in one["near"]) for one in (old, new)}
        assert runs[1] in {tuple(OWN[name] for name in one.get("far", "")) for one in (old, new)}
        assert wire.path() in [numbers(one["near"], one.get("a", 1)) for one in (old, new)]
        apply(root, compiler, document(**old))
        assert before == pins(root)
        until(lambda: loaded() == objects_before, lambda: f"{loaded()}, not {objects_before}", patience_s=5)
        assert wire.path() == numbers(old["near"])
        step += 1
    print(f"\n{change}: {step - 1} steps", end="")

    assert step > 10
    assert tuple(OWN[name] for name in new["near"]) == tuple(order(root, "near"))
    assert wire.path() == numbers(new["near"], new.get("a", 1))


def test_an_unload_may_die_at_every_step(root: Path, wire: Wire, compiler: Compiler) -> None:
    apply(root, compiler, document(**NODES["base"]))
    before = pins(root)
    step = 1
    while dies_before(step, lambda: unload(root)):
        assert wire.path() in (numbers("ab"), [])
        apply(root, compiler, document(**NODES["base"]))
        assert before == pins(root)
        step += 1

    assert step > 10
    assert not root.exists()
    until(lambda: loaded() == NOTHING)
    assert wire.path() == []
