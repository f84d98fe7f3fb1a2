# SPDX-License-Identifier: Apache-2.0
"""Speaking to the daemon; plugins' commands may use it, too."""

from __future__ import annotations

import json
import socket as sockets
from pathlib import Path
from typing import Any

from xdpchain.daemon.paths import Paths
from xdpchain.daemon.wire import encode, error_from
from xdpchain.errors import DaemonError

CONNECT_S = 5.0
ANSWER_S = 600.0
"""an apply compiles, and one may wait for another"""


class NotRunningError(DaemonError):
    """Raised when no daemon listens at the socket."""


def call(
    do: str, *, socket: Path | None = None, timeout_s: float = ANSWER_S, data: bytes | None = None, **arguments: Any
) -> dict[str, Any]:
    """
    Ask the daemon to do something.

    Args:
        do: the method: status, show, ask, plan, apply, put, reload, rollback, metrics, unload.
        socket: the daemon's socket; None: the usual one, or that of XDPCHAIN_SOCKET.
        timeout_s: how long to wait for the answer.
        data: bytes that go with the request, for a method that takes some.
        arguments: the method's; None values are left out.

    Raises:
        NotRunningError: there is no daemon.
        XdpchainError: what the daemon raised, with all its fields; or it does not answer.
    """
    path = Paths.choose(socket=socket).socket
    request = {"do": do, **{name: value for name, value in arguments.items() if value is not None}}
    if data is not None:
        request["bytes"] = len(data)
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as daemon:
            daemon.settimeout(CONNECT_S)
            daemon.connect(str(path))
            daemon.settimeout(timeout_s)
            daemon.sendall(encode(request) + (data or b""))
            with daemon.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        hint = "start it: systemctl start xdpchaind, or xdpchaind --config FILE; --socket names another place"
        raise NotRunningError(f"xdpchaind is not running (nobody listens at {path})", hint=hint) from error
    except PermissionError as error:
        raise DaemonError(f"no permission to use {path}", hint="run it as root") from error
    except TimeoutError as error:
        raise DaemonError(f"xdpchaind does not answer at {path}", hint="look at its log: journalctl -u xdpchaind") from error
    except OSError as error:
        raise DaemonError(f"cannot speak to xdpchaind at {path}: {error.strerror or error}", hint="is the path right?") from error
    if not line.endswith(b"\n"):
        raise DaemonError("xdpchaind ended before it answered", hint="look at its log: journalctl -u xdpchaind")
    answer = json.loads(line)
    if "error" in answer:
        raise error_from(answer["error"])
    result: dict[str, Any] = answer["ok"]
    return result
