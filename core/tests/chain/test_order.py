# SPDX-License-Identifier: Apache-2.0
"""The functions that packets really pass are the configured ones, in order, after any sequence of changes."""

from __future__ import annotations

import uuid
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.engine import Engine, unload

from core.tests.chain.conftest import Configure, Wire

NAMES = "abcdefgh"
INSTANCES = {name: {"number": number} for number, name in enumerate(NAMES, 1)}

changes = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "move", "replace", "reload", "restart"]), st.integers(0, 7), st.integers(0, 7)),
    min_size=4,
    max_size=12,
)


def change(chain: list[str], what: str, first: int, second: int) -> list[str]:
    """The plain list after one change."""
    unused = [name for name in NAMES if name not in chain]
    chain = list(chain)
    if what == "insert" and unused:
        chain.insert(first % (len(chain) + 1), unused[second % len(unused)])
    elif what == "remove" and len(chain) > 1:
        chain.pop(first % len(chain))
    elif what == "move":
        chain.insert(second % len(chain), chain.pop(first % len(chain)))
    elif what == "replace" and unused:
        chain[first % len(chain)] = unused[second % len(unused)]
    return chain


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_any_sequence_of_changes_ends_in_the_configured_order(
    bpffs: Path, config: Configure, wire: Wire, compiler: Compiler, changes: list[tuple[str, int, int]]
) -> None:
    root = bpffs / uuid.uuid4().hex
    engine, chain = Engine(root, compiler), ["a"]
    try:
        engine.apply(config({"near": chain}, INSTANCES), wire.present)
        for what, first, second in changes:
            chain = change(chain, what, first, second)
            if what == "restart":
                engine = Engine(root, compiler)
            engine.apply(config({"near": chain}, INSTANCES), wire.present)

            assert [INSTANCES[name]["number"] for name in chain] == wire.path()
            assert tuple(chain) == engine.snapshot().places[0].in_kernel
    finally:
        unload(root)
