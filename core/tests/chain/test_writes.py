# SPDX-License-Identifier: Apache-2.0
"""What the writes of a config handler do in the kernel, and what is left of them when one fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from xdpchain import Delete, Hook, KernelFunction, Move, Program, Put, PutMany, Run, Verdict, Write
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.engine import Engine
from xdpchain.config import InstanceConfig, loads
from xdpchain.errors import KernelError, PluginError, VerifierError
from xdpchain.testing import LoadedChain

from core.tests.chain.conftest import HEADER, Wire
from core.tests.chain.worker import WIDTH, WORKER_C, Worker

DOCUMENT = {"interface": {"eth0": {"chain": ["worker"]}}}
JOB: list[Write] = [Put("worker_shelves", 0, ()), Put("worker_job", 0, {"at": 0, "step": 7, "runs": 0}), Run("worker_fill", most=WIDTH)]
"""What fills the shelf at 0."""
BROKEN = Run("worker_never", most=10)
"""A write that fails, for all those before it to be taken back."""
FILLED = [(0, {"word": [7 * at for at in range(WIDTH)]})]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tmp_path_factory.mktemp("worker"))


@pytest.fixture
def chain(worker: Worker, compiler: Compiler) -> LoadedChain:
    worker.writes = ()
    return LoadedChain(DOCUMENT, "eth0", [worker], compiler)


def maps(chain: LoadedChain) -> Mapping[str, KernelMap]:
    return chain.maps["worker"]


def apply(chain: LoadedChain, worker: Worker, writes: Sequence[Write]) -> None:
    """Have the config handler answer with these writes."""
    worker.writes = writes
    chain.configure("worker", {"number": chain.config.instances["worker"].config.number + 1})


def state(chain: LoadedChain) -> dict[str, Any]:
    """All that is in the maps, inner maps with their ids, but for what routines work on."""
    found: dict[str, Any] = {}
    for name, one in maps(chain).items():
        if name != "worker_job":
            found[name] = sorted((repr(key), repr(value)) for key, value in one.items())
            if one.schema.inner:
                found |= {f"{name} {key}": content(one, key) for key, _ in one.items()}
    return found


def job(chain: LoadedChain) -> dict[str, int]:
    """How far the routine is."""
    (found,) = (value for _, value in maps(chain)["worker_job"].items())
    return dict(found)


def shelf(first: int) -> tuple[int, Any]:
    return 0, {"word": [first] * WIDTH}


def content(outer: KernelMap, key: int) -> list[tuple[Any, Any]]:
    """What is in an inner map that must be there."""
    inner = outer.inner(key)
    assert inner is not None
    return list(inner.items())


def firsts(shelves: KernelMap) -> dict[int, int]:
    """The first word of each shelf."""
    return {key: content(shelves, key)[0][1]["word"][0] for key, _ in shelves.items()}


def test_an_inner_map_has_the_content_that_is_put(chain: LoadedChain, worker: Worker) -> None:
    apply(
        chain,
        worker,
        [Put("worker_shelves", 1, [shelf(3)]), Put("worker_books", 7, [(7, {"left": 1, "right": 9})]), Put("worker_books", 8, ())],
    )
    shelves, books = maps(chain)["worker_shelves"], maps(chain)["worker_books"]

    assert {1} == {key for key, _ in shelves.items()}
    assert [(7, {"left": 1, "right": 9})] == content(books, 7)
    assert [] == content(books, 8)
    assert [shelf(3)] == content(shelves, 1)
    assert shelves.inner(2) is None
    assert books.get(7) == getattr(books.inner(7), "number", None)


def test_packets_find_the_inner_maps(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, [Put("worker_shelves", 1, FILLED)])
    before = chain.send(HEADER + bytes(50)).verdict
    apply(chain, worker, [Put("worker_books", 7, [(7, {"left": 0, "right": 9})])])

    assert [Verdict.PASS, Verdict.TX] == [before, chain.send(HEADER + bytes(50)).verdict]


def test_many_puts_are_as_each_of_them(chain: LoadedChain, worker: Worker) -> None:
    names, seen = maps(chain)["worker_names"], maps(chain)["worker_seen"]
    apply(
        chain,
        worker,
        [
            Put("worker_names", 1, 5),
            PutMany("worker_names", [1, 2, 1], [6, 7, 8]),
            PutMany("worker_names", (), ()),
            PutMany("worker_names", [bytes([3, 0, 0, 0])], [bytes([9, *bytes(7)])]),
            PutMany("worker_seen", [0], [{"left": 1, "right": 2}]),
            PutMany("worker_books", [7, 8], [[(1, {"left": 1, "right": 1})], ()]),
        ],
    )

    assert {1: 8, 2: 7, 3: 9} == dict(names.items())
    assert {(1, 2)} == {(one["left"], one["right"]) for one in seen.get(0) or ()}
    assert [[1], []] == [[key for key, _ in content(maps(chain)["worker_books"], book)] for book in (7, 8)]


def test_what_many_puts_have_overwritten_comes_back(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, [Put("worker_names", 1, 5), Put("worker_names", 2, 6)])
    before = state(chain)

    with pytest.raises(KernelError):
        apply(chain, worker, [PutMany("worker_names", [2, 3, 2], [7, 8, 9]), BROKEN])

    assert before == state(chain)


def test_keys_without_values_are_refused(chain: LoadedChain, worker: Worker) -> None:
    before = state(chain)

    with pytest.raises(PluginError, match="3 keys and 1 values for worker_names"):
        apply(chain, worker, [PutMany("worker_names", [1, 2, 3], [4])])

    assert before == state(chain)


def test_a_put_replaces_the_inner_map_as_a_whole(chain: LoadedChain, worker: Worker) -> None:
    books = maps(chain)["worker_books"]
    apply(chain, worker, [Put("worker_books", 7, [(1, {"left": 1, "right": 1})])])
    before = books.inner(7)
    apply(chain, worker, [Put("worker_books", 7, [(2, {"left": 2, "right": 2})])])

    assert before is not None
    assert [1] == [key for key, _ in before.items()]
    assert [2] == [key for key, _ in content(books, 7)]


def test_a_put_that_keeps_leaves_an_inner_map_alone(chain: LoadedChain, worker: Worker) -> None:
    books = maps(chain)["worker_books"]
    apply(chain, worker, [Put("worker_books", 7, ())])
    number = books.get(7)
    apply(chain, worker, [Put("worker_books", 7, (), keep=True), Put("worker_books", 8, (), keep=True)])

    assert number == books.get(7)
    assert {7, 8} == {key for key, _ in books.items()}


def test_a_deleted_inner_map_is_gone_and_deleting_nothing_is_no_error(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, [Put(name, key, ()) for name in ("worker_shelves", "worker_books") for key in (1, 2, 3)])
    apply(chain, worker, [Delete(name, key) for name in ("worker_shelves", "worker_books") for key in (1, 3, 5)])

    assert [2] == [key for key, _ in maps(chain)["worker_shelves"].items()]
    assert [2] == [key for key, _ in maps(chain)["worker_books"].items()]


def test_a_move_takes_the_inner_map_along_and_leaves_its_key_empty(chain: LoadedChain, worker: Worker) -> None:
    shelves = maps(chain)["worker_shelves"]
    apply(chain, worker, [Put("worker_shelves", 0, [shelf(5)]), Put("worker_shelves", 1, [shelf(6)])])
    number = shelves.get(0)
    apply(chain, worker, [Move("worker_shelves", 0, 1)])

    assert [(1, number)] == list(shelves.items())


def test_moves_in_a_row_follow_each_other(chain: LoadedChain, worker: Worker) -> None:
    writes: list[Write] = []
    for number in (1, 2, 3):
        writes += [Put("worker_shelves", 0, [shelf(number)]), Move("worker_shelves", 0, number)]
    apply(chain, worker, [*writes, Move("worker_shelves", 3, 4), Put("worker_shelves", 0, [shelf(9)])])
    shelves = maps(chain)["worker_shelves"]

    assert {0: 9, 1: 1, 2: 2, 4: 3} == firsts(shelves)


def test_a_move_of_nothing_is_the_plugins_fault(chain: LoadedChain, worker: Worker) -> None:
    with pytest.raises(PluginError, match="nothing is there") as caught:
        apply(chain, worker, [Put("worker_names", 1, 1), Move("worker_shelves", 5, 1)])

    assert "worker" == caught.value.plugin
    assert [] == list(maps(chain)["worker_names"].items())


def test_more_inner_maps_than_fit_one_update_are_put_and_taken_out(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, [Put("worker_shelves", key, ()) for key in range(600)])
    put = dict(maps(chain)["worker_shelves"].items())
    apply(chain, worker, [Delete("worker_shelves", key) for key in range(1, 600)])

    assert set(range(600)) == set(put)
    assert 600 == len(set(put.values()))
    assert [(0, put[0])] == list(maps(chain)["worker_shelves"].items())


def test_a_routine_runs_until_it_is_done(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, [*JOB, Move("worker_shelves", 0, 1)])

    assert FILLED == content(maps(chain)["worker_shelves"], 1)
    assert {"at": WIDTH, "step": 7} == {name: job(chain)[name] for name in ("at", "step")}


def test_a_routine_runs_in_the_first_config_too(worker: Worker, compiler: Compiler) -> None:
    worker.writes = [*JOB, Move("worker_shelves", 0, 1), *JOB, Move("worker_shelves", 0, 2)]
    chain = LoadedChain(DOCUMENT, "eth0", [worker], compiler)
    shelves = maps(chain)["worker_shelves"]

    assert [1, 2] == [key for key, _ in shelves.items()]
    assert [FILLED, FILLED] == [content(shelves, key) for key in (1, 2)]


def test_a_routine_that_does_not_end_is_stopped(chain: LoadedChain, worker: Worker) -> None:
    with pytest.raises(KernelError, match=r"worker_never\(\) is not done after 1000 runs"):
        apply(chain, worker, [Run("worker_never", most=1000)])


def test_a_routine_runs_no_more_often_than_it_may(chain: LoadedChain, worker: Worker) -> None:
    with pytest.raises(KernelError, match="not done"):
        apply(chain, worker, [*JOB[:-1], Run("worker_fill", most=WIDTH - 1)])

    assert WIDTH - 1 == job(chain)["runs"]


@pytest.mark.parametrize("write", [Put("worker_none", 0, 0), Run("worker"), Run("worker_none")], ids=str)
def test_a_write_to_what_is_not_there_names_the_plugin(chain: LoadedChain, worker: Worker, write: Write) -> None:
    with pytest.raises(PluginError, match="configure") as caught:
        apply(chain, worker, [write])

    assert "worker" == caught.value.plugin
    assert "has" in caught.value.hint


def test_a_routine_that_the_verifier_refuses_names_the_plugin(tmp_path: Path, compiler: Compiler) -> None:
    text = WORKER_C.replace("!job || !inner", "!job")

    with pytest.raises(VerifierError, match="worker_fill") as caught:
        LoadedChain(DOCUMENT, "eth0", [Worker(tmp_path, text)], compiler)

    assert "worker" == caught.value.plugin


FULL = [Put("worker_names", key, key) for key in range(5000)]
STARTED: list[Write] = [
    Put("worker_ready", 2, 2),
    Put("worker_trie", {"length": 8, "word": 3}, 8),
    Put("worker_seen", 2, {"left": 5, "right": 6}),
    Put("worker_books", 7, [(7, {"left": 0, "right": 9})]),
    Put("worker_shelves", 1, [shelf(8)]),
    Put("worker_shelves", 2, [shelf(9)]),
]
CHANGES: dict[str, list[Write]] = {
    "put": [Put("worker_names", key, 1) for key in range(3)],
    "put again": [Put("worker_names", 1, 1), Put("worker_names", 1, 2), Put("worker_ready", 1, 1), Put("worker_names", 1, 3)],
    "delete": [Delete("worker_names", key) for key in range(4990, 5010)],
    "replace": [Delete("worker_names", 5), Put("worker_names", 6000, 1), Put("worker_names", 6, 0)],
    "keep": [Delete("worker_names", 5), Put("worker_names", 7000, 1, keep=True), Put("worker_names", 6, 0, keep=True)],
    "array": [Put("worker_ready", 0, 1), Delete("worker_ready", 2)],
    "per cpu": [Put("worker_seen", 3, {"left": 1, "right": 2}), Delete("worker_seen", 2)],
    "inner": [Put("worker_shelves", 1, [shelf(1)]), Put("worker_books", 7, ()), Put("worker_books", 9, ())],
    "inner deleted": [Delete("worker_shelves", 1), Delete("worker_shelves", 2), Delete("worker_books", 7), Delete("worker_books", 9)],
    "moved": [Move("worker_shelves", 1, 3), Move("worker_shelves", 2, 1), Put("worker_names", 1, 2), Move("worker_shelves", 3, 300)],
    "moved with a routine": [*JOB, Move("worker_shelves", 0, 1), Put("worker_ready", 1, 1)],
    "trie": [Put("worker_trie", {"length": 24, "word": 0x00010203}, 1), Put("worker_trie", {"length": 16, "word": 0x00000203}, 2)],
    "trie deleted": [Delete("worker_trie", {"length": 24, "word": 0x00010203}), Delete("worker_trie", {"length": 8, "word": 0x00000003})],
    "many": [Put("worker_shelves", key, ()) for key in range(300)],
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_failed_change_has_written_is_taken_back(chain: LoadedChain, worker: Worker, name: str) -> None:
    apply(chain, worker, [*FULL, *STARTED])
    before = state(chain)
    apply(chain, worker, ())
    with pytest.raises(KernelError, match="not done"):
        apply(chain, worker, [*CHANGES[name], BROKEN])

    assert before == state(chain)


def test_what_was_written_for_a_routine_is_not_taken_back(chain: LoadedChain, worker: Worker) -> None:
    with pytest.raises(KernelError, match="not done"):
        apply(chain, worker, [Put("worker_job", 0, {"at": 1, "step": 2, "runs": 3}), BROKEN])

    assert {"at": 1, "step": 2, "runs": 3} == job(chain)


@pytest.mark.parametrize("name", CHANGES)
def test_every_one_of_those_changes_does_change_something(chain: LoadedChain, worker: Worker, name: str) -> None:
    apply(chain, worker, [*FULL, *STARTED])
    before = state(chain)
    apply(chain, worker, CHANGES[name])

    assert before != state(chain)


def test_a_map_that_gets_full_is_brought_back_to_what_it_was(chain: LoadedChain, worker: Worker) -> None:
    apply(chain, worker, FULL[:4000])
    before = state(chain)
    with pytest.raises(KernelError, match="worker_names is full: 5000 entries"):
        apply(chain, worker, [Put("worker_names", key, 1) for key in range(3000, 9000)])

    assert before == state(chain)


def test_writes_that_no_apply_asks_for_are_carried_out_and_counted(chain: LoadedChain, worker: Worker) -> None:
    worker.writes = [Put("worker_names", 1, 2), Put("worker_ready", 0, 1)]

    assert [2, 1] == [chain.upkeep("worker"), chain.carry_out("worker", [Delete("worker_names", 1)])]
    assert 0 == len(maps(chain)["worker_names"])
    assert 1 == maps(chain)["worker_ready"].get(0)


def test_upkeep_that_fails_is_named_and_leaves_what_it_has_done(chain: LoadedChain, worker: Worker) -> None:
    worker.writes = [Put("worker_ready", 0, 1), Put("worker_none", 0, 1)]
    with pytest.raises(PluginError, match=r"upkeep\(\) writes to map 'worker_none'"):
        chain.upkeep("worker")

    assert 1 == maps(chain)["worker_ready"].get(0)


def engine_config(worker: Worker, number: int, chain: Sequence[str] = ("worker",)) -> Any:
    functions: Mapping[str, KernelFunction[Any]] = {"worker": worker}
    return loads({"interface": {"near": {"chain": list(chain)}}, "function": {"worker": {"number": number}}}, functions)


def test_inner_maps_outlive_the_engine(engine: Engine, wire: Wire, worker: Worker, compiler: Compiler) -> None:
    worker.writes = [Put("worker_shelves", 4, [shelf(8)]), Put("worker_books", 7, [(1, {"left": 2, "right": 3})])]
    engine.apply(engine_config(worker, 1), wire.present)
    numbers = [engine.maps("worker")["worker_shelves"].get(4), engine.maps("worker")["worker_books"].get(7)]
    engine.close()
    successor = Engine(engine.pins.root, compiler)
    worker.writes = [Put("worker_shelves", 5, [shelf(9)]), Move("worker_shelves", 4, 6)]
    successor.apply(engine_config(worker, 1), wire.present)
    shelves, books = successor.maps("worker")["worker_shelves"], successor.maps("worker")["worker_books"]

    assert numbers == [shelves.get(6), books.get(7)]
    assert {5: 9, 6: 8} == firsts(shelves)
    assert [(1, {"left": 2, "right": 3})] == content(books, 7)


def test_a_first_config_that_fails_changes_nothing_of_the_inner_maps_that_are_kept(
    engine: Engine, wire: Wire, worker: Worker, compiler: Compiler
) -> None:
    worker.writes = [Put("worker_shelves", 4, [shelf(8)])]
    engine.apply(engine_config(worker, 1), wire.present)
    number = engine.maps("worker")["worker_shelves"].get(4)
    worker.writes = [Put("worker_shelves", 4, [shelf(9)]), Move("worker_shelves", 4, 5), BROKEN]
    with pytest.raises(KernelError, match="not done"):
        Engine(engine.pins.root, compiler).apply(engine_config(worker, 1), wire.present)

    assert [(4, number)] == list(engine.maps("worker")["worker_shelves"].items())


def test_an_engine_carries_out_writes_between_two_applies(engine: Engine, wire: Wire, worker: Worker) -> None:
    worker.writes = ()
    engine.apply(engine_config(worker, 1), wire.present)

    assert 2 == engine.carry_out("worker", (Put("worker_ready", key, 5) for key in (0, 2)))
    assert [5, 0, 5] == engine.maps("worker")["worker_ready"].get_many([0, 1, 2])


def test_a_routine_beside_tracepoints_binds_no_function_to_an_interface(tmp_path: Path) -> None:
    watcher = Worker(tmp_path)
    watcher.programs = (Program(Hook.TRACEPOINT, "seen", event="a:b"), Program(Hook.ROUTINE, "work"))  # type: ignore[misc]

    assert InstanceConfig("watcher", watcher, None).node_wide


def test_a_routine_hangs_nowhere(engine: Engine, wire: Wire, worker: Worker) -> None:
    worker.writes = ()
    plan = engine.apply(engine_config(worker, 1), wire.present)

    assert ["worker", "near xdp"] == [action.subject for action in plan.actions]
    assert ["2/xdp"] == [str(place.place).replace(str(wire.index), "2") for place in engine.snapshot().places]
