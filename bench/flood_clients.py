# SPDX-License-Identifier: Apache-2.0
"""
Well-behaved clients: `python -m bench.flood_clients HOST PORT SECONDS PERIOD ADDRESS ...`, run as a process of its own.

Each address opens a connection every PERIOD seconds, beginning at a moment by chance, asks for something and reads the answer. Prints in JSON
how many connections there were, how many of them failed, and how many needed more than one SYN.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from lab.web import ANSWER

PATIENCE_S = 5.0
"""A connection without its answer by then has failed; its SYN was sent again after 1 s and 3 s."""
SENT_AGAIN_S = 0.95
"""A SYN is sent again after a second: what was there before that needed one."""


async def connect(host: str, port: int, address: str) -> str:
    """One connection with one request: "first" or "again", by how many SYNs it needed, or "failed"."""
    begin = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, port, local_addr=(address, 0))
            seconds = time.monotonic() - begin
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return "failed"
    if answer != ANSWER:
        return "failed"
    return "first" if seconds < SENT_AGAIN_S else "again"


async def live(host: str, port: int, address: str, end: float, period: float) -> list[str]:
    """What became of the connections of one address."""
    seen = []
    await asyncio.sleep(random.random() * period)
    while time.monotonic() < end:
        begin = time.monotonic()
        seen.append(await connect(host, port, address))
        await asyncio.sleep(max(0.0, begin + period - time.monotonic()))
    return seen


async def main() -> None:
    """Be all of them."""
    host, port, seconds, period, *addresses = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    lives = await asyncio.gather(*(live(host, int(port), address, end, float(period)) for address in addresses))
    seen = [one for life in lives for one in life]
    json.dump({"opened": len(seen), "failed": seen.count("failed"), "again": seen.count("again")}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
