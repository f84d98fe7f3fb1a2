# SPDX-License-Identifier: Apache-2.0
"""
The control protocol: one JSON object in a line each way over a Unix stream socket.

A request is `{"do": METHOD, ...arguments}`, an answer `{"ok": RESULT}` or `{"error": {...}}`. `"bytes": N` in a request says that N bytes follow
its line: the method's argument `data`. Errors travel with all their fields, so that the
client can treat them as if they had been raised there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xdpchain import errors
from xdpchain.errors import ConfigError, ExitCode, Problem, XdpchainError

REQUEST_BYTES = 64 * 1024
"""the longest request without what follows it; answers may be longer"""
MAX_DATA = 64 << 20
"""bytes that may follow a request: those of the largest file that is read"""

_EXTRA = ("plugin", "errno")


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a line. Values that JSON does not know (addresses, bytes, enums) become text."""
    return json.dumps(message, default=_plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def error_data(error: BaseException) -> dict[str, Any]:
    """An error for the way to the client; one that is no `XdpchainError` is a fault of ours and says so."""
    if not isinstance(error, XdpchainError):
        message = f"internal error: {type(error).__name__}: {error}"
        hint = "this is a fault of xdpchain; the daemon's log has the traceback"
        return {"type": "XdpchainError", "message": message, "hint": hint, "details": "", "exit_code": int(ExitCode.INTERNAL)}
    data: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "details": error.details,
        "exit_code": int(error.exit_code),
    }
    data |= {name: getattr(error, name) for name in _EXTRA if hasattr(error, name)}
    if isinstance(error, ConfigError):
        data["problems"] = [problem_data(problem) for problem in error.problems]
    return data


def problem_data(problem: Problem) -> dict[str, Any]:
    """A problem of a configuration as plain data."""
    key = list(problem.path)
    return {"path": key, "message": problem.message, "hint": problem.hint, "file": problem.file, "line": problem.line}


def error_from(data: Mapping[str, Any]) -> XdpchainError:
    """The error that `error_data` took apart. Its class is one of ours, or the root where this version does not know it."""
    kind = getattr(errors, str(data.get("type")), XdpchainError)
    kind = kind if isinstance(kind, type) and issubclass(kind, XdpchainError) else XdpchainError
    if kind is ConfigError:
        return ConfigError(tuple(Problem(**{**problem, "path": tuple(problem["path"])}) for problem in data["problems"]))
    # the constructors of the classes build the message; here it is built already
    error: XdpchainError = kind.__new__(kind)
    XdpchainError.__init__(error, str(data["message"]), hint=str(data["hint"]), details=str(data["details"]))
    for name in _EXTRA:
        if name in data:
            setattr(error, name, data[name])
    return error
