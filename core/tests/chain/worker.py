# SPDX-License-Identifier: Apache-2.0
"""A function with a map of maps and a routine, for the tests of writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
from xdpchain import Array, Hook, KernelFunction, Map, MapKind, Maps, Program, Role, Struct, Write, option, u32, u64
from xdpchain.schema import Type

WIDTH = 1000
"""Words of a shelf."""

WORKER_C = """
#include "xdpchain.h"

#define WIDTH 1000

struct worker_shelf {
	u32 word[WIDTH];
};

struct worker_job {
	u32 at;		/* the word that is next; WIDTH: all are written */
	u32 step;
	u32 runs;
};

struct worker_prefix {
	u32 length;
	u32 word;
};

struct worker_pair {
	u32 left;
	u32 right;
};

BPF_TABLE("array", u32, struct worker_shelf, worker_shelf, 1);
BPF_ARRAY_OF_MAPS(worker_shelves, "worker_shelf", BY_SCHEMA);
BPF_TABLE("hash", u32, struct worker_pair, worker_form, BY_SCHEMA);
BPF_HASH_OF_MAPS(worker_books, u32, "worker_form", BY_SCHEMA);
BPF_TABLE("array", u32, struct worker_job, worker_job, BY_SCHEMA);
BPF_TABLE("hash", u32, u64, worker_names, BY_SCHEMA);
BPF_F_TABLE("lpm_trie", struct worker_prefix, u64, worker_trie, BY_SCHEMA, 1);
BPF_TABLE("percpu_array", u32, struct worker_pair, worker_seen, BY_SCHEMA);
BPF_TABLE("array", u32, u64, worker_ready, BY_SCHEMA);

/* Writes the words 0, step, 2 * step ... to the shelf at 0, one in each run. */
static __always_inline int worker_fill(struct xdp_md *ctx)
{
	struct worker_shelf *shelf;
	struct worker_job *job;
	u32 zero = 0, at;
	void *inner;

	job = worker_job.lookup(&zero);
	inner = worker_shelves.lookup(&zero);
	if (!job || !inner)
		return 0;
	shelf = bpf_map_lookup_elem(inner, &zero);
	if (!shelf)
		return 0;
	job->runs++;
	at = job->at;
	if (at >= WIDTH)
		return 0;
	shelf->word[at] = at * job->step;
	job->at++;
	return job->at < WIDTH;
}

static __always_inline int worker_never(struct xdp_md *ctx)
{
	return 1;
}

/* TX if the shelf at 1 was filled with a step of 7 and the pair 7 of the book 7 has 9 on its right. */
static __always_inline verdict worker(struct xdp_md *ctx, struct packet *packet)
{
	u32 zero = 0, one = 1, seven = 7;
	struct worker_shelf *shelf;
	struct worker_pair *pair;
	void *inner;

	inner = worker_shelves.lookup(&one);
	if (!inner)
		return next(NO_REASON);
	shelf = bpf_map_lookup_elem(inner, &zero);
	if (!shelf || shelf->word[WIDTH - 1] != 7 * (WIDTH - 1))
		return next(NO_REASON);
	inner = worker_books.lookup(&seven);
	if (!inner)
		return next(NO_REASON);
	pair = bpf_map_lookup_elem(inner, &seven);
	if (!pair)
		return next(NO_REASON);
	return pair->right == 9 ? tx(NO_REASON) : next(NO_REASON);
}
"""

SHELF = Struct("worker_shelf", {"word": Array(u32, WIDTH)})
JOB = Struct("worker_job", {"at": u32, "step": u32, "runs": u32})
PREFIX = Struct("worker_prefix", {"length": u32, "word": u32})
PAIR = Struct("worker_pair", {"left": u32, "right": u32})


@attrs.frozen
class WorkerConfig:
    """Nothing but a number, so that there are other configs."""

    number: int = option(default=0, help="Any.")


class Worker(KernelFunction[WorkerConfig]):
    """Its config handler answers with the writes that the test has put into `writes`."""

    api = 1
    name = "worker"
    summary = "does what the test says"
    config = WorkerConfig
    programs: ClassVar[Sequence[Program]] = (
        Program(Hook.XDP, "worker"),
        Program(Hook.ROUTINE, "worker_fill"),
        Program(Hook.ROUTINE, "worker_never"),
    )

    def __init__(self, folder: Path, text: str = WORKER_C) -> None:
        self.source = folder / "worker.bpf.c"  # type: ignore[misc]
        self.source.write_text(text)
        self.writes: Sequence[Write] = ()

    def maps(self, config: WorkerConfig) -> Sequence[Map]:
        def state(name: str, kind: MapKind, value: Type, capacity: int, inner: Map | None = None, role: Role = Role.STATE) -> Map:
            return Map(name=name, kind=kind, key=u32, value=value, capacity=capacity, role=role, help="", inner=inner)

        shelf, form = state("worker_shelf", MapKind.ARRAY, SHELF, 1), state("worker_form", MapKind.HASH, PAIR, 10)
        return (
            state("worker_shelves", MapKind.ARRAY_OF_MAPS, u32, 600, shelf),
            state("worker_books", MapKind.HASH_OF_MAPS, u32, 16, form),
            state("worker_job", MapKind.ARRAY, JOB, 1, role=Role.SCRATCH),
            state("worker_names", MapKind.HASH, u64, 5000),
            attrs.evolve(state("worker_trie", MapKind.LPM_TRIE, u64, 9), key=PREFIX, flags=1),
            state("worker_seen", MapKind.PERCPU_ARRAY, PAIR, 8),
            state("worker_ready", MapKind.ARRAY, u64, 3),
        )

    def configure(self, old: WorkerConfig | None, new: WorkerConfig, maps: Maps) -> Iterable[Write]:
        return self.writes

    def upkeep(self, config: WorkerConfig, maps: Maps) -> Iterable[Write]:
        return self.writes
