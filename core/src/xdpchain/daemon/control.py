# SPDX-License-Identifier: Apache-2.0
"""
The control socket: requests of the command line, one JSON object in a line (see `wire`).

Only root and the daemon's own user are answered, whatever the modes of the socket say. Clients are served side by side; one that is slow or
says nothing keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from xdpchain.daemon import log as events
from xdpchain.daemon.wire import MAX_DATA, REQUEST_BYTES, encode, error_data
from xdpchain.errors import DaemonError, XdpchainError

IDLE_S = 30.0
"""how long a client may think before its next request"""
WRITE_S = 10.0
"""how long a client may take to read an answer"""
MAX_CLIENTS = 32

Method = Callable[..., Awaitable[Mapping[str, Any]]]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Control:
    """Serves `methods` (by the word in "do") at a Unix socket."""

    def __init__(self, path: Path, methods: Mapping[str, Method]) -> None:
        self._path = path
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._log = events.get_logger()

    async def open(self) -> None:
        """
        Begin to serve. A socket that a killed daemon left is replaced: the lock on the state says that it is dead.

        Raises:
            DaemonError: the socket cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            # nobody can connect before it listens, so nobody sees the mode of the umask
            self._path.chmod(0o600)
        except OSError as error:
            listener.close()
            text = f"cannot make the control socket {self._path}: {error.strerror or error}"
            raise DaemonError(text, hint="choose a short path in a directory that can be written: --socket PATH") from error
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=REQUEST_BYTES)

    async def close(self) -> None:
        """Take no more clients, and end those that are idle."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            self._log.info("client_failed", error=str(error) or type(error).__name__)
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid, _ = _CREDENTIALS.unpack(
            writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        while True:
            async with asyncio.timeout(IDLE_S):
                # a line longer than the limit is a ValueError
                line = await reader.readline()
            if not line:
                return
            if uid not in {0, os.geteuid()}:
                self._log.warning("client_refused", pid=pid, uid=uid)
                refusal = DaemonError(f"user {uid} may not control this node", hint="run it as root")
                await self._send(writer, {"error": error_data(refusal)})
                return
            try:
                method, arguments, size = self._parse(line)
            except DaemonError as error:
                await self._send(writer, {"error": error_data(error)})
                if b'"bytes"' not in line:
                    continue
                async with asyncio.timeout(IDLE_S):
                    while await reader.read(REQUEST_BYTES):
                        pass  # data of nobody: the client reads its answer when it has sent them
                return
            if size is not None:
                async with asyncio.timeout(IDLE_S):
                    arguments["data"] = await reader.readexactly(size)
            await self._send(writer, await self._answer(method, arguments))

    async def _send(self, writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
        writer.write(encode(answer))
        async with asyncio.timeout(WRITE_S):
            await writer.drain()

    async def _answer(self, method: Method, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": await method(**arguments)}
        except XdpchainError as error:
            return {"error": error_data(error)}
        except Exception as error:  # noqa: BLE001 - a fault in one method must not end the server
            self._log.exception("internal_error", during="a request")
            return {"error": error_data(error)}

    def _parse(self, line: bytes) -> tuple[Method, dict[str, Any], int | None]:
        """The method, its arguments, and how many bytes of data follow the line; None: its method takes none."""
        hint = 'a request is one line such as {"do": "status"}'
        try:
            request = json.loads(line)
            word = request.pop("do")
            method = self._methods[word]
            size = request.pop("bytes", None)
        except (ValueError, RecursionError, AttributeError, TypeError) as error:
            raise DaemonError("the request is not a JSON object", hint=hint) from error
        except KeyError as error:
            raise DaemonError(f"the request asks for no method of {sorted(self._methods)}", hint=hint) from error
        with contextlib.suppress(TypeError):
            # what is to come has its place; JSON has no bytes, so nobody else can take it
            whole = request if size is None else {**request, "data": b""}
            bound = inspect.signature(method).bind(**whole)
            if _is_size(size) and all(_fits(method, name, value) for name, value in bound.arguments.items()):
                return method, request, size
        raise DaemonError(f"these are no arguments of {word!r}: {', '.join(request)}", hint=f"{word}{inspect.signature(method)}")


def _is_size(size: Any) -> bool:
    return size is None or (isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_DATA)


def _fits(method: Method, name: str, value: Any) -> bool:
    """Whether an argument has the type of its annotation: one of those below."""
    wanted = str(inspect.signature(method).parameters[name].annotation)
    kinds = {
        "str": str,
        "int": int,
        "float": int | float,
        "bool": bool,
        "bytes": bytes,
        "str | None": str | None,
        "Mapping[str, Any]": dict,
    }
    return isinstance(value, kinds[wanted]) and isinstance(value, bool) == (wanted == "bool")
