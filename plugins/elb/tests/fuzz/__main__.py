# SPDX-License-Identifier: Apache-2.0
"""
Millions of mutated packets through the balancer: `python -m plugins.elb.tests.fuzz [--frames N] [--seed N]`, or `tox -e fuzz`.

One process for each CPU; ends with 1 when a frame was treated wrongly, or a reason was never reached.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

from plugins.elb.tests.fuzz.run import BATCH, Account, not_reached, told, work
from plugins.elb.tests.fuzz.seeds import MTUS, REACHED


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000, help="how many frames in all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same one gives the same frames")
    choice = parser.parse_args()
    processes = max(len(os.sched_getaffinity(0)), len(MTUS))
    share = -(-choice.frames // processes // BATCH) * BATCH
    print(f"seed {choice.seed}, {processes} processes of {share} frames", flush=True)
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(processes, context) as pool:
        shares = [pool.submit(work, share, choice.seed + number, MTUS[number % len(MTUS)], cache) for number in range(processes)]
        accounts = [one.result() for one in shares]
    whole = Account()
    for account in accounts:
        whole.frames += account.frames
        whole.reasons += account.reasons
        whole.faults += account.faults
    missing = not_reached(whole.reasons, REACHED)
    print(told(whole))
    print(f"{whole.frames / (time.monotonic() - began):.0f} frames a second; never reached: {', '.join(sorted(missing)) or 'nothing'}")
    return 1 if whole.faults or missing else 0


if __name__ == "__main__":
    sys.exit(main())
