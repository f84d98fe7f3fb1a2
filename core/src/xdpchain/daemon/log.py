# SPDX-License-Identifier: Apache-2.0
"""Logging: fixed event names with fields, readable on a terminal and JSON everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog

from xdpchain.config.keypath import key_path
from xdpchain.errors import ConfigError, XdpchainError

EVENTS: Mapping[str, str] = {
    "starting": "the daemon begins: its version, process, paths",
    "ready": "the first apply is done, clients are served",
    "stopping": "a signal ended the daemon; the chains go on",
    "start_failed": "the daemon cannot start; the chains that run go on",
    "bpffs_mounted": "the BPF file system was mounted, because nobody had",
    "plugin_broken": "a plugin was left out, with the reason; the others work",
    "plugin_failed": "a plugin's code raised outside of an apply; its answer is left out",
    "applied": "an apply ended well: what it did, and where the configuration came from",
    "apply_failed": "an apply failed and was taken back: what runs is what ran before",
    "config_refused": "the node's file has errors: what runs is what ran before",
    "config_problem": "one error in the node's file, with its place and what would be right",
    "config_warning": "something in the node's file that works but is probably not meant",
    "last_good_used": "the node's file has errors at start: the last good configuration runs instead of it",
    "rolled_back": "the configuration before the current one was applied; the node's file differs from it",
    "rollback_kept": "started with the configuration that a rollback chose, not with the node's file",
    "text_put": "a client put another text into a file that a key names, and it was applied",
    "state_unusable": "the saved configurations cannot be read or written; a rollback is not possible until that is mended",
    "interface_failed": "interfaces changed, and the chains could not follow; tried again at the next change",
    "interface_blocked": "a chain cannot be attached to its interface, most often because a foreign XDP program is there; the other chains run",
    "interface_waiting": "a configured interface is not there: its chain waits for it",
    "watch_failed": "interfaces, or routes and neighbours, cannot be watched at the moment; tried again shortly",
    "sweep_failed": "the kernel does not tell its sockets: what functions count cannot be compared with them; tried again shortly",
    "next_hop_unknown": "there is no way to some addresses that a function sends to, or nobody answers there; looked at again by itself",
    "next_hop_found": "the next hop of some addresses is known now",
    "next_hop_changed": "the next hop of some addresses is another one now, or has another hardware address or MTU",
    "next_hops_more": "so many next hops became unknown, were found or changed at once that the rest has no event of its own",
    "unloaded": "everything was removed from the kernel, because a client said so",
    "metrics_started": "metrics are served at this address",
    "metrics_unavailable": "metrics cannot be served at the configured address; everything else works",
    "client_refused": "a process of another user spoke to the control socket",
    "client_failed": "a client of the control socket broke the protocol, or went away while it was served",
    "internal_error": "a fault of xdpchain itself, with its traceback: please report it",
}
"""every event that the daemon logs, and what it means"""


def set_up(form: str | None = None, stream: TextIO | None = None) -> None:
    """
    Choose how events are written.

    Args:
        form: "console" or "json"; None: console on a terminal, JSON otherwise.
        stream: where to; None: standard error, which systemd hands to its journal.
    """
    stream = stream or sys.stderr
    console = form == "console" or (form is None and stream.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer(colors=stream.isatty()) if console else structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not console),
            *(() if console else (structlog.processors.dict_tracebacks,)),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def get_logger() -> Any:
    """The logger of the daemon."""
    return structlog.get_logger()


def fields(error: XdpchainError) -> dict[str, Any]:
    """An error as the fields of an event."""
    named = {"error": error.message, "hint": error.hint, "details": error.details}
    return {name: value for name, value in named.items() if value}


def config_problems(log: Any, error: XdpchainError) -> None:
    """One event for each problem of a refused configuration."""
    for problem in error.problems if isinstance(error, ConfigError) else ():
        log.error(
            "config_problem", file=problem.file, line=problem.line, key=key_path(problem.path), problem=problem.message, hint=problem.hint
        )
