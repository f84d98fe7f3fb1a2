# SPDX-License-Identifier: Apache-2.0
"""The control socket against clients that do not behave."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from xdpchain.cli.client import NotRunningError, call
from xdpchain.daemon import control
from xdpchain.daemon.control import MAX_CLIENTS, Control
from xdpchain.daemon.wire import MAX_DATA, REQUEST_BYTES
from xdpchain.errors import ConfigError, DaemonError, ExitCode, Problem, VerifierError


async def status() -> Mapping[str, Any]:
    return {"fine": True}


async def show(instance: str, map: str | None = None, limit: int = 1, *, loud: bool = False) -> Mapping[str, Any]:
    return {"instance": instance, "map": map, "limit": limit, "loud": loud}


async def slow() -> Mapping[str, Any]:
    await asyncio.sleep(0.5)
    return {}


async def faulty() -> Mapping[str, Any]:
    raise ZeroDivisionError("oh")


async def refuse() -> Mapping[str, Any]:
    raise ConfigError((Problem(("interface", "eth0", "chain", 1), "no", "yes", "/etc/node.toml", 3),))


async def verify() -> Mapping[str, Any]:
    raise VerifierError("limiter", "the kernel refuses it", hint="look", details="R1 is bad")


async def large() -> Mapping[str, Any]:
    return {"text": "x" * 20_000_000}


async def put(key: str, data: bytes) -> Mapping[str, Any]:
    return {"key": key, "size": len(data), "end": data[-3:].decode()}


METHODS = {one.__name__: one for one in (status, show, slow, faulty, refuse, verify, large, put)}


def serve(path: Path, client: Callable[[], Awaitable[Any]]) -> Any:
    """What `client` returns, while the methods are served at `path`."""

    async def run() -> Any:
        server = Control(path, METHODS)
        await server.open()
        try:
            async with asyncio.timeout(30):
                return await client()
        finally:
            await server.close()

    return asyncio.run(run())


async def ask(path: Path, line: bytes) -> Any:
    """The answer to a line, None where the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 26)
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return json.loads(answer) if answer else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


def test_the_socket_is_for_its_owner_only(path: Path) -> None:
    def modes() -> tuple[int, int]:
        return stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)

    assert serve(path, lambda: asyncio.to_thread(modes)) == (0o600, 0o750)
    assert not path.exists()


def test_a_method_is_called_with_its_arguments(path: Path) -> None:
    answer = serve(path, lambda: ask(path, b'{"do": "show", "instance": "a", "limit": 7, "loud": true}\n'))

    assert answer == {"ok": {"instance": "a", "map": None, "limit": 7, "loud": True}}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"hello\n", "not a JSON object"),
        (b"[1]\n", "not a JSON object"),
        (b"null\n", "not a JSON object"),
        (b"[" * 5000 + b"\n", "not a JSON object"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b'{"do": ["status"]}\n', "not a JSON object"),
        (b"{}\n", "asks for no method"),
        (b'{"do": "__class__"}\n', "asks for no method"),
        (b'{"do": "show"}\n', "no arguments of 'show'"),
        (b'{"do": "show", "instance": 5}\n', "no arguments of 'show'"),
        (b'{"do": "show", "instance": "a", "limit": true}\n', "no arguments of 'show'"),
        (b'{"do": "show", "instance": "a", "loud": 1}\n', "no arguments of 'show'"),
        (b'{"do": "show", "instance": "a", "color": 1}\n', "no arguments of 'show'"),
        (b'{"do": "status", "self": 1}\n', "no arguments of 'status'"),
        (b'{"do": "put", "key": "a", "data": "text"}\n', "no arguments of 'put'"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_what_is_wrong(path: Path, line: bytes, says: str) -> None:
    error = serve(path, lambda: ask(path, line))["error"]

    assert says in error["message"]
    assert error["exit_code"] == ExitCode.DAEMON


def test_bytes_may_follow_a_request(path: Path) -> None:
    async def both() -> tuple[Any, Any]:
        with_line = b'{"do": "put", "key": "a", "bytes": 5}\nab\ncd'
        return await ask(path, with_line), await ask(path, b'{"do": "put", "key": "a", "bytes": 0}\n')

    assert ({"ok": {"key": "a", "size": 5, "end": "\ncd"}}, {"ok": {"key": "a", "size": 0, "end": ""}}) == serve(path, both)


def test_megabytes_may_follow_a_request(path: Path) -> None:
    answer = serve(path, lambda: asyncio.to_thread(call, "put", socket=path, key="a", data=b"x" * 5_000_000 + b"end"))

    assert answer == {"key": "a", "size": 5_000_003, "end": "end"}


@pytest.mark.parametrize("size", [b"-1", b"true", b'"5"', b"1.5", str(MAX_DATA + 1).encode(), b"[]"])
def test_a_number_of_bytes_that_makes_no_sense_is_answered(path: Path, size: bytes) -> None:
    error = serve(path, lambda: ask(path, b'{"do": "put", "key": "a", "bytes": ' + size + b"}\nhello\n"))["error"]

    assert "no arguments of 'put'" in error["message"]


def test_data_for_a_method_that_takes_none_is_answered_however_much_it_is(path: Path) -> None:
    async def client() -> str:
        try:
            await asyncio.to_thread(call, "status", socket=path, data=b"x\n" * 2_000_000)
        except DaemonError as error:
            return error.message
        return ""

    assert "no arguments of 'status'" in serve(path, client)


def test_an_endless_request_ends_its_connection_and_nothing_else(path: Path) -> None:
    async def both() -> tuple[Any, Any]:
        try:
            endless = await ask(path, b"x" * (REQUEST_BYTES * 4))
        except ConnectionError:
            endless = None
        return endless, await ask(path, b'{"do": "status"}\n')

    assert serve(path, both) == (None, {"ok": {"fine": True}})


def test_a_fault_of_a_method_is_an_answer_and_the_server_goes_on(path: Path) -> None:
    async def both() -> tuple[Any, Any]:
        return await ask(path, b'{"do": "faulty"}\n'), await ask(path, b'{"do": "status"}\n')

    faulty, fine = serve(path, both)

    assert faulty["error"]["message"] == "internal error: ZeroDivisionError: oh"
    assert faulty["error"]["exit_code"] == ExitCode.INTERNAL
    assert fine == {"ok": {"fine": True}}


def test_clients_that_hang_keep_nobody_waiting(path: Path) -> None:
    async def beside_others() -> Any:
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(5)]
        half = await asyncio.open_unix_connection(str(path))
        half[1].write(b'{"do": "sta')
        busy = asyncio.create_task(ask(path, b'{"do": "slow"}\n'))
        await asyncio.sleep(0)
        async with asyncio.timeout(0.4):
            answer = await ask(path, b'{"do": "status"}\n')
        await busy
        for _, writer in [*silent, half]:
            writer.close()
        return answer

    assert serve(path, beside_others) == {"ok": {"fine": True}}


def test_a_client_that_does_not_read_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "WRITE_S", 0.2)

    async def stuck() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, str(path))
            await loop.sock_sendall(client, b'{"do": "large"}\n')
            await asyncio.sleep(1)
            read = 0
            while data := await loop.sock_recv(client, 1 << 20):
                read += len(data)
            return read < 20_000_000

    assert serve(path, stuck)


def test_an_idle_client_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.1)

    assert serve(path, lambda: ask(path, b"")) is None


def test_there_is_a_limit_of_clients(path: Path) -> None:
    async def many() -> Any:
        others = [await asyncio.open_unix_connection(str(path)) for _ in range(MAX_CLIENTS)]
        for _, writer in others:
            writer.write(b'{"do": "status"}\n')
        await asyncio.gather(*(reader.readline() for reader, _ in others))
        try:
            refused = await ask(path, b'{"do": "status"}\n')
        except ConnectionError:
            refused = None
        for _, writer in others:
            writer.close()
        return refused

    assert serve(path, many) is None


def test_another_user_is_refused_whatever_the_modes_say(path: Path) -> None:
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        """s.send(b'{"do": "status"}\\n'); print(s.makefile().readline())"""
    )

    def as_nobody() -> str:
        for directory in path.parents:
            if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
                directory.chmod(0o755)
        path.chmod(0o666)
        return subprocess.run([sys.executable, "-I", "-c", script, str(path)], capture_output=True, text=True, check=True).stdout

    assert json.loads(serve(path, lambda: asyncio.to_thread(as_nobody)))["error"]["message"] == "user 65534 may not control this node"


def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    assert serve(path, lambda: ask(path, b'{"do": "status"}\n')) == {"ok": {"fine": True}}


def test_a_socket_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match="cannot make the control socket"):
        serve(tmp_path / ("x" * 120) / "s", status)


def test_the_client_raises_what_the_daemon_raised(path: Path) -> None:
    async def from_client() -> tuple[Exception, Exception]:
        caught: list[Exception] = []
        for do in ("refuse", "verify"):
            try:
                await asyncio.to_thread(call, do, socket=path)
            except (ConfigError, VerifierError) as error:
                caught.append(error)
        return caught[0], caught[1]

    refused, verifier = serve(path, from_client)

    assert refused.problems == (Problem(("interface", "eth0", "chain", 1), "no", "yes", "/etc/node.toml", 3),)
    assert refused.exit_code is ExitCode.CONFIG
    assert isinstance(verifier, VerifierError)
    assert (verifier.plugin, verifier.hint, verifier.details) == ("limiter", "look", "R1 is bad")
    assert str(verifier) == "plugin 'limiter': the kernel refuses it"


def test_the_client_says_when_nobody_listens(path: Path) -> None:
    with pytest.raises(NotRunningError, match="xdpchaind is not running") as caught:
        call("status", socket=path)

    assert caught.value.exit_code is ExitCode.DAEMON
    assert "systemctl start" in caught.value.hint


def test_the_client_gives_up_on_a_daemon_that_does_not_answer(path: Path) -> None:
    async def impatient() -> str:
        try:
            await asyncio.to_thread(call, "slow", socket=path, timeout_s=0.1)
        except DaemonError as error:
            return error.message
        return ""

    assert "does not answer" in serve(path, impatient)
