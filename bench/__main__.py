# SPDX-License-Identifier: Apache-2.0
"""
Benchmarks: `python -m bench [BENCH ...] [--rounds N] [--json]`; --help names them.

Prints a table of figures beside what they are meant to be at most. Times are no tests: the exit code is 0 whatever they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
from xdpchain.bpf.compiler.compile import Compiler

from bench import agent, chains, connections, control, dsr_path, elb, elb_control, flood, limiter
from bench.measure import Result, pin

ROUNDS = 21

BENCHES: Mapping[str, Callable[[Compiler, int], Iterator[Result]]] = {
    "chain": chains.measure,
    "ratelimit": limiter.measure,
    "maxconn": connections.measure,
    "elb": elb.measure,
    "agent": agent.measure,
    "flood": flood.measure,
    # last: they move the process into namespaces of its own
    "control": control.measure,
    "elb-control": elb_control.measure,
    "dsr-path": dsr_path.measure,
}


def main() -> None:
    """Run the benchmarks that the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Figures beside their reach, as ratios to a reference of the same run."
    )
    parser.add_argument("bench", nargs="*", metavar="BENCH", help=f"{', '.join(BENCHES)}; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of which the median is taken; {ROUNDS} by default")
    parser.add_argument("--json", action="store_true", help="one object per line")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.bench) - set(BENCHES))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}: there are {', '.join(BENCHES)}")
    if os.geteuid() != 0:
        sys.exit("the benchmarks load programs into the kernel: run them as root")
    show = _as_json if arguments.json else _as_line
    with tempfile.TemporaryDirectory(prefix="xdpchain-bench-") as folder:
        compiler = Compiler(Path(folder) / "cache")
        if not arguments.json:
            print(f"ratios to a bare XDP_PASS of the same round; median of {arguments.rounds} rounds on CPU {pin()}\n")
        pin()
        for name, measure in BENCHES.items():
            if name in (arguments.bench or BENCHES):
                for result in measure(compiler, arguments.rounds):
                    print(show(result), flush=True)


def _as_line(result: Result) -> str:
    reach = "" if result.reach is None else f"{'within' if result.within else 'OVER'} {result.reach:g}"
    return f"{result.bench:10} {result.case:40} {result.value:8.2f} {result.unit:15} {reach:12} {result.detail}".rstrip()


def _as_json(result: Result) -> str:
    return json.dumps({**attrs.asdict(result), "within": result.within})


main()
