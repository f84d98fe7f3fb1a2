# SPDX-License-Identifier: Apache-2.0
"""
An HTTP server and a client that counts, both plain: what the lab's traffic is made of.

`python -m lab.web serve PORT` answers every request, on all addresses. `python -m lab.web load URL --connections N [--rate R]` opens N connections
at once or R a second, each with one request, and prints in JSON what became of them, and how many seconds passed until the last one began.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import sys
import time
from urllib.parse import urlsplit

ANSWER = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nxdpchain\n"
PATIENCE_S = 0.8
"""A SYN that is lost is sent again after one second: who waits less sees it."""


async def serve(port: int) -> None:
    """Answer every request with 200."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, None, port, backlog=4096)
    await server.serve_forever()


async def request(host: str, port: int, patience_s: float, begun: list[float]) -> str:
    """One connection with one request: "ok", "refused", "timeout" or "wrong answer". When it began is added to `begun`."""
    begun.append(time.monotonic())
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return "timeout"
    except OSError:
        return "refused"
    return "ok" if answer == ANSWER else "wrong answer"


async def load(url: str, connections: int, rate: float | None, seconds: float | None, patience_s: float) -> tuple[dict[str, int], float]:
    """
    Open connections, all at once or `rate` a second, for `seconds` or until `connections` are made.

    Returns:
        How many there were of what, and the seconds between the first one's begin and the last one's.
    """
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    tasks: list[asyncio.Task[str]] = []
    begun: list[float] = []
    began = time.monotonic()
    while (len(tasks) < connections) if seconds is None else (time.monotonic() - began < seconds):
        tasks.append(asyncio.create_task(request(host, port, patience_s, begun)))
        if rate:
            await asyncio.sleep(max(0.0, began + len(tasks) / rate - time.monotonic()))
    seen = dict(collections.Counter(await asyncio.gather(*tasks)))
    return seen, max(begun) - min(begun)


def main() -> None:
    """Serve or load."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    server = modes.add_parser("serve")
    server.add_argument("port", type=int)
    client = modes.add_parser("load")
    client.add_argument("url")
    client.add_argument("--connections", type=int, default=1)
    client.add_argument("--rate", type=float)
    client.add_argument("--seconds", type=float)
    client.add_argument("--patience", type=float, default=PATIENCE_S)
    choice = parser.parse_args()
    if choice.mode == "serve":
        asyncio.run(serve(choice.port))
    else:
        seen, seconds = asyncio.run(load(choice.url, choice.connections, choice.rate, choice.seconds, choice.patience))
        json.dump({"seen": seen, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
