# SPDX-License-Identifier: Apache-2.0
"""
A server and clients for what is behind a virtual address: short connections, large transfers, datagrams. Each byte is proven by a hash.

`python -m lab.site_traffic serve PORT` answers TCP and UDP on all addresses. The clients print in JSON what they saw:

- `short --port PORT --number N [--at-once W] [--seconds S] [--rate R] ADDRESS...`: connections with one question each.
- `transfer --port PORT --up BYTES --down BYTES [--seconds S] [--again] ADDRESS`: one connection, both directions at once, made to last that long;
  with `--again` the same on the same connection until standard input ends.
- `datagrams --port PORT --number N --up BYTES --down BYTES ADDRESS`: one datagram each way, again after a second without an answer.
- `reuse --port PORT --direct-port PORT --number N ADDRESS DIRECT`: a source port towards one address, and then towards the other.

A question over TCP says how many bytes follow and how many are wanted; the answer is those, and then the SHA-256 of what came. Over UDP an
answer begins with the question's number and the CRC-32 of its payload.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import hashlib
import itertools
import json
import random
import resource
import select
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

QUESTION = struct.Struct("!QQ")
"""bytes that follow, bytes wanted"""
DATAGRAM = struct.Struct("!III")
"""number, bytes wanted (in an answer the CRC-32 of what came), bytes that follow"""
PATIENCE_S = 20.0
"""How long a connection may stand still: TCP has sent again a few times by then."""
AGAIN_S = 1.0
GIVE_UP_S = 6.0
MOST_FAILED = 10
"""connections: the others would fare no better"""
SHORT_UP, SHORT_DOWN = 100, 1000
FIRST_PORT = 20_000
_CHUNK = 1 << 18
_STRIDE, _SLACK = 4099, 1 << 16
_BLOCK = random.Random(2).randbytes(_CHUNK + _SLACK)
_INLINE = 1 << 16
"""bytes of an answer that are sent without a thread of their own"""


def chunks(length: int) -> Iterator[memoryview]:
    """The bytes of a direction of a transfer, whichever: no two chunks that follow each other are the same."""
    view = memoryview(_BLOCK)
    for number in range(-(-length // _CHUNK)):
        start = number * _STRIDE % _SLACK
        yield view[start : start + min(_CHUNK, length - number * _CHUNK)]


def digest(length: int) -> bytes:
    """The SHA-256 of so many of them."""
    hashed = hashlib.sha256()
    for chunk in chunks(length):
        hashed.update(chunk)
    return hashed.digest()


class Pace:
    """Waits now and then, so that `length` bytes take `seconds`."""

    def __init__(self, length: int, seconds: float) -> None:
        self._began, self._each = time.monotonic(), seconds / max(length, 1)
        self._done = 0

    def done(self, length: int) -> None:
        """So many bytes more are done."""
        self._done += length
        ahead = self._began + self._done * self._each - time.monotonic()
        if self._each and ahead > 0:
            time.sleep(ahead)


def send(connection: socket.socket, length: int, before: bytes = b"", seconds: float = 0) -> None:
    """Send that many bytes."""
    if length <= _CHUNK and not seconds:
        connection.sendall(before + b"".join(chunks(length)))
        return
    connection.sendall(before)
    pace = Pace(length, seconds)
    for chunk in chunks(length):
        connection.sendall(chunk)
        pace.done(len(chunk))


def receive(connection: socket.socket, length: int, seconds: float = 0) -> bytes:
    """Receive that many bytes; their SHA-256."""
    hashed, pace = hashlib.sha256(), Pace(length, seconds)
    buffer = memoryview(bytearray(min(length, _CHUNK) or 1))
    while length:
        got = connection.recv_into(buffer, min(length, len(buffer)))
        if not got:
            raise ConnectionError("closed")
        hashed.update(buffer[:got])
        length -= got
        pace.done(got)
    return hashed.digest()


def exactly(connection: socket.socket, length: int) -> bytes:
    """Receive that many bytes, which are few."""
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise ConnectionError("closed")
    return data


@contextlib.contextmanager
def beside(action: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread meanwhile. What goes wrong there is seen by the other end."""

    def quietly() -> None:
        with contextlib.suppress(OSError):
            action()

    thread = threading.Thread(target=quietly)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def answer(connection: socket.socket) -> None:
    """Serve one connection. The client closes first: no port of the server waits for late segments."""
    with contextlib.suppress(OSError), connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            up, down = QUESTION.unpack(exactly(connection, QUESTION.size))
            if down <= _INLINE:
                seen = receive(connection, up)
                connection.sendall(b"".join(chunks(down)) + seen)
            else:
                with beside(functools.partial(send, connection, down)):
                    seen = receive(connection, up)
                connection.sendall(seen)


def answer_datagrams(server: socket.socket) -> None:
    """Answer each datagram."""
    while True:
        data, client = server.recvfrom(65535)
        number, wanted, length = DATAGRAM.unpack_from(data)
        payload = data[DATAGRAM.size :]
        check = zlib.crc32(payload) if len(payload) == length else 0
        server.sendto(DATAGRAM.pack(number, check, wanted) + b"".join(chunks(wanted)), client)


def serve(port: int) -> None:
    """Serve on all addresses of both families."""
    threading.stack_size(1 << 18)
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    threading.Thread(target=answer_datagrams, args=(datagrams,), daemon=True).start()
    print("ready", flush=True)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def ask(address: str, port: int, question: Question, *, source_port: int = 0, again: Callable[[], bool] = lambda: False) -> str:
    """One connection to its end, with questions for as long as `again` says so: "ok", or what went wrong."""
    with socket.socket(family_of(address), socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(PATIENCE_S)
            if source_port:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                connection.bind(("", source_port))
            connection.connect((address, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            right = question.ask(connection)
            while right and again():
                right = question.ask(connection)
            connection.shutdown(socket.SHUT_WR)
            rest = connection.recv(1)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return f"{error.strerror or error}".lower()
    return "ok" if right and rest == b"" else "wrong bytes"


class Question:
    """So many bytes there and back, which take so long."""

    def __init__(self, up: int, down: int, seconds: float = 0) -> None:
        self._up, self._down, self._seconds = up, down, seconds
        self._expected = digest(down), digest(up)
        self._header = QUESTION.pack(up, down)

    def ask(self, connection: socket.socket) -> bool:
        """Ask it; whether every byte was right, there and back."""
        if self._up <= _INLINE:
            send(connection, self._up, self._header)
            return self._answer(connection) == self._expected
        with beside(lambda: send(connection, self._up, self._header, self._seconds)):
            return self._answer(connection) == self._expected

    def _answer(self, connection: socket.socket) -> tuple[bytes, bytes]:
        return receive(connection, self._down, self._seconds), exactly(connection, len(self._expected[1]))


SHORT = Question(SHORT_UP, SHORT_DOWN)


def family_of(address: str) -> socket.AddressFamily:
    """Of an address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def short(choice: argparse.Namespace) -> dict[str, object]:
    """Short connections, some at once, to the addresses in turn; until `number` were made or `seconds` have passed."""
    seen: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    numbers, lock = itertools.count(), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers)
            enough = number >= choice.number or sum(seen.values()) - seen["ok"] >= MOST_FAILED
            if enough or (choice.seconds and time.monotonic() - began > choice.seconds):
                return
            if choice.rate:
                time.sleep(max(0.0, began + number / choice.rate - time.monotonic()))
            result = ask(choice.address[number % len(choice.address)], choice.port, SHORT)
            with lock:
                seen[result] += 1

    threads = [threading.Thread(target=work) for _ in range(choice.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seen": dict(seen), "seconds": time.monotonic() - began}


def _not_told() -> bool:
    """Whether standard input goes on."""
    return not select.select([sys.stdin], [], [], 0)[0]


def transfer(choice: argparse.Namespace) -> dict[str, object]:
    """One connection with many bytes."""
    began = time.monotonic()
    question = Question(choice.up, choice.down, choice.seconds or 0)
    result = ask(choice.address[0], choice.port, question, again=_not_told if choice.again else lambda: False)
    return {"seen": {result: 1}, "seconds": time.monotonic() - began}


def datagrams(choice: argparse.Namespace) -> dict[str, object]:
    """Datagrams, one after the other, each from a socket of its own; `again` counts those that were sent more than once."""
    seen: collections.Counter[str] = collections.Counter()
    again, began = 0, time.monotonic()
    up = b"".join(chunks(choice.up))
    expected = zlib.crc32(up).to_bytes(4, "big") + choice.down.to_bytes(4, "big") + b"".join(chunks(choice.down))
    for number in range(choice.number):
        with socket.socket(family_of(choice.address[0]), socket.SOCK_DGRAM) as one:
            one.settimeout(AGAIN_S)
            one.connect((choice.address[0], choice.port))
            result, end = "timeout", time.monotonic() + GIVE_UP_S
            while time.monotonic() < end:
                try:
                    one.send(DATAGRAM.pack(number, choice.down, choice.up) + up)
                    result = "ok" if one.recv(65535) == number.to_bytes(4, "big") + expected else "wrong bytes"
                    break
                except OSError:  # nothing came; or it was too large for the path, and the kernel makes the next one's fragments smaller
                    again += 1
            seen[result] += 1
        if result == "timeout":  # the others would fare no better
            break
    return {"seen": dict(seen), "again": again, "seconds": time.monotonic() - began}


def reuse(choice: argparse.Namespace) -> dict[str, object]:
    """A source port towards the first address and then, when that is closed, towards the second."""
    seen: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    for number in range(choice.number):
        for address, port in zip(choice.address, (choice.port, choice.direct_port), strict=True):
            seen[ask(address, port, SHORT, source_port=FIRST_PORT + number)] += 1
        if sum(seen.values()) - seen["ok"] >= MOST_FAILED:
            break
    return {"seen": dict(seen), "seconds": time.monotonic() - began}


def main() -> None:
    """Serve, or be one of the clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["short", "transfer", "datagrams", "reuse"])
    parser.add_argument("address", nargs="+")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--direct-port", type=int)
    parser.add_argument("--number", type=int, default=sys.maxsize)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, help="connections a second, all together")
    parser.add_argument("--again", action="store_true", help="until standard input ends")
    parser.add_argument("--up", type=int, default=0)
    parser.add_argument("--down", type=int, default=0)
    choice = parser.parse_args()
    print(json.dumps({"short": short, "transfer": transfer, "datagrams": datagrams, "reuse": reuse}[choice.what](choice)))


if __name__ == "__main__":
    main()
