# SPDX-License-Identifier: Apache-2.0
"""
Servers and a client for load balancers: thousands of connections that ask again and again who serves them, and check every byte.

`python -m lab.balance_traffic serve NAME PORT...` answers on all addresses. `python -m lab.balance_traffic drive` does what it reads, line by
line in JSON, from its standard input, and answers each line with one on its standard output; `Driver` speaks with it.

A question is a number, and how many bytes come with it and are wanted back; an answer is the server's name, the number, a checksum of what
came, and the bytes.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import socket
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

QUESTION = struct.Struct("!III")
"""number, bytes that follow, bytes wanted"""
ANSWER = struct.Struct("!8sIII")
"""name, number, CRC-32 of the bytes that came, bytes that follow"""
PATIENCE_S = 15.0
"""How long an answer may take: TCP has sent again a few times by then."""
PAUSE_S = 0.4
"""Between an answer and the next question of a connection."""
OPENING_AT_ONCE = 200
_PATTERN = bytes((7 * number + number // 251) % 256 for number in range(4096))
_NO_PORT_YET = 24  # IP_BIND_ADDRESS_NO_PORT


def payload(number: int, length: int) -> bytes:
    """The bytes that go with a question or an answer."""
    start = number % 1009
    return (_PATTERN * ((start + length) // len(_PATTERN) + 1))[start : start + length]


class Server(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._seen = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while len(self._seen) >= QUESTION.size:
            number, length, wanted = QUESTION.unpack_from(self._seen)
            end = QUESTION.size + length
            if len(self._seen) < end:
                return
            check = zlib.crc32(self._seen[QUESTION.size : end])
            del self._seen[:end]
            self._transport.write(ANSWER.pack(self._name, number, check, wanted) + payload(number, wanted))


class Conversation(asyncio.Protocol):
    """
    One connection of the client. `broken` says what ended it against its will; `server` is who answered first.

    Args:
        up: bytes that go with each question.
        down: bytes that are wanted with each answer.
    """

    def __init__(self, number: int, up: int, down: int) -> None:
        self._number, self._up, self._down = number, up, down
        self._seen = bytearray()
        self._transport: asyncio.Transport | None = None
        self._answered = asyncio.Event()
        self.server, self.broken, self.answers = "", "", 0
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if len(self._seen) < ANSWER.size:
            return
        name, number, check, length = ANSWER.unpack_from(self._seen)
        if len(self._seen) < ANSWER.size + length:
            return
        server = name.rstrip(b"\0").decode()
        right = (number, check, length) == (self._number, zlib.crc32(payload(self._number, self._up)), self._down)
        if not right or bytes(self._seen[ANSWER.size :]) != payload(self._number, self._down):
            self._break("wrong answer")
        elif self.server and self.server != server:
            self._break("moved")
        self.server = server
        self._seen.clear()
        self.answers += 1
        self._answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._break("reset" if exc else "closed")

    def _break(self, why: str) -> None:
        self.broken = self.broken or why
        self._answered.set()

    async def ask(self) -> None:
        """Ask once, until there is an answer or it is broken."""
        assert self._transport is not None
        if self.broken:
            return
        self._number += 1
        self._answered.clear()
        self._transport.write(QUESTION.pack(self._number, self._up, self._down) + payload(self._number, self._up))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._answered.wait()
        except TimeoutError:
            self._break("timeout")

    async def go_on(self) -> None:
        """Ask for as long as it holds."""
        while not self.broken:
            await asyncio.sleep(PAUSE_S)
            await self.ask()

    def close(self) -> None:
        """End it in good order."""
        self._closing = True
        if self._transport:
            self._transport.close()


class Client:
    """All connections of the client."""

    def __init__(self) -> None:
        self._held: list[Conversation] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = 0
        self._at_once = asyncio.Semaphore(OPENING_AT_ONCE)

    async def _open(self, target: tuple[str, int], source: str, up: int, down: int) -> Conversation | str:
        """One connection with its first answer, or what became of it instead."""
        self._numbers += 1
        one = Conversation(self._numbers * 100_000 % (1 << 31), up, down)
        async with self._at_once:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.get_running_loop().create_connection(lambda: one, sock=await _connected(target, source))
            except TimeoutError:
                return "no connection"
            except OSError:
                return "refused"
            await one.ask()
        return one

    async def _open_many(
        self, number: int, targets: Sequence[str], sources: Sequence[str], port: int, up: int, down: int
    ) -> list[Conversation | str]:
        ways = [(target, source) for target in targets for source in sources if (":" in target) == (":" in source)]
        return await asyncio.gather(
            *(self._open((ways[at % len(ways)][0], port), ways[at % len(ways)][1], up, down) for at in range(number))
        )

    async def open(self, **how: Any) -> dict[str, int]:
        """Open connections and keep them, asking; how many each server has."""
        opened = await self._open_many(**how)
        for one in opened:
            if isinstance(one, Conversation) and not one.broken:
                self._held.append(one)
                self._tasks.append(asyncio.create_task(one.go_on()))
        return _tally(opened)

    async def probe(self, **how: Any) -> dict[str, int]:
        """Open connections, ask once and close them; how many each server had."""
        opened = await self._open_many(**how)
        for one in opened:
            if isinstance(one, Conversation):
                one.close()
        return _tally(opened)

    async def report(self) -> dict[str, dict[str, int]]:
        """
        After every connection that holds has had two more answers, so that at least one question was asked after this call: how many hold and
        how many are broken, by server.
        """
        before = [one.answers for one in self._held]
        while any(not one.broken and one.answers < count + 2 for one, count in zip(self._held, before, strict=True)):  # noqa: ASYNC110 (thousands of them)
            await asyncio.sleep(0.02)
        return {
            "holds": _tally(one for one in self._held if not one.broken),
            "broken": _tally(f"{one.server} {one.broken}" for one in self._held if one.broken),
            "answers": {"all": sum(one.answers for one in self._held)},
        }

    async def close(self) -> dict[str, int]:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        for one in self._held:
            one.close()
        number = len(self._held)
        self._held, self._tasks = [], []
        await asyncio.sleep(0)
        return {"closed": number}


async def _connected(target: tuple[str, int], source: str) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM)
    try:
        one.setblocking(False)  # noqa: FBT003 (the socket module's own)
        one.setsockopt(socket.SOL_IP, _NO_PORT_YET, 1)  # ports are chosen by source and target together: there are enough then
        one.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(one, target)
    except BaseException:
        one.close()
        raise
    return one


def _tally(many: Iterable[Conversation | str]) -> dict[str, int]:
    names = (one if isinstance(one, str) else f"{one.server} {one.broken}".strip() for one in many)
    return dict(sorted(collections.Counter(names).items()))


async def drive() -> None:
    """Do what comes in, and answer it."""
    client = Client()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        answer = await getattr(client, order.pop("do"))(**order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def serve(name: str, ports: Sequence[int]) -> None:
    """Answer on all addresses of both families."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Server(name), None, port, backlog=65535) for port in ports]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Serve or drive."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match sys.argv[1:]:
        case ["serve", name, *ports]:
            asyncio.run(serve(name, [int(port) for port in ports]))
        case ["drive"]:
            asyncio.run(drive())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
