# SPDX-License-Identifier: Apache-2.0
"""
Millions of mutated packets through each of the agent's programs: `python -m plugins.dsr_agent.tests.fuzz [--frames N] [--seed N]`.

Ends with 1 when a frame was treated wrongly, or a reason was never reached.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

from plugins.dsr_agent.tests.fuzz.run import BATCH, WAYS, missing, told, work


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000, help="how many frames for each program")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same one gives the same frames")
    choice = parser.parse_args()
    share = -(-choice.frames // BATCH) * BATCH
    print(f"seed {choice.seed}, {share} frames for each of {len(WAYS)} programs", flush=True)
    wrong = False
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        shares = [pool.submit(work, share, choice.seed + number, number, cache) for number in range(len(WAYS))]
        for way, one in zip(WAYS, shares, strict=True):
            account = one.result()
            print(told(account, way))
            never = missing(account, way)
            print(f"never reached: {', '.join(sorted(never)) or 'nothing'}")
            wrong |= bool(account.faults or never)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
