# SPDX-License-Identifier: Apache-2.0
"""`xdpchaind`: the daemon's beginning and end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xdpchain.daemon.paths import DEFAULTS, Paths, variable
from xdpchain.errors import ExitCode, XdpchainError

if TYPE_CHECKING:
    from xdpchain.daemon.notify import Notifier
    from xdpchain.daemon.service import Service

METHODS = ("apply", "ask", "metrics", "plan", "put", "reload", "rollback", "show", "status", "unload")
"""what clients may ask of `Service`"""

_UNIT = Path(__file__).parents[1] / "packaging" / "xdpchaind.service"
_HELP = {
    "config": "The node's file.",
    "root": "Directory of pins, on a bpffs.",
    "state": "Directory of what was applied last.",
    "cache": "Directory of compiled functions.",
    "socket": "Socket for the command line.",
}


def _path_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(list(DEFAULTS)):
        kind = click.Path(path_type=Path)
        command = click.option(
            f"--{name}", type=kind, envvar=variable(name), default=DEFAULTS[name], show_default=True, show_envvar=True, help=_HELP[name]
        )(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@_path_options
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    envvar="XDPCHAIN_LOG_FORMAT",
    show_envvar=True,
    help="How events are written.  [default: console on a terminal, else json]",
)
@click.option(
    "--compile-timeout",
    type=click.FloatRange(min=1),
    envvar="XDPCHAIN_COMPILE_TIMEOUT",
    default=30.0,
    show_default=True,
    show_envvar=True,
    help="Seconds of processor time after which the compilation of a function is stopped.",
)
@click.option("--systemd-unit", is_flag=True, help="Print a unit file for systemd that starts this very program, and exit.")
@click.version_option(package_name="xdpchain", message="%(version)s")
def main(log_format: str | None, compile_timeout: float, *, systemd_unit: bool, **paths: Path) -> None:
    """
    Run the chains of this node.

    Applies the node's file, follows interfaces that come and go, and answers `xdpchain`. SIGHUP applies the file again. The chains
    survive the end of the daemon; `xdpchain unload` removes them.
    """
    if systemd_unit:
        click.echo(unit_file(Path(sys.argv[0]).absolute()), nl=False)
        return
    sys.exit(run(Paths.choose(**paths), log_format, compile_timeout))


def unit_file(program: Path) -> str:
    """The unit file for systemd, for the `xdpchaind` at this path."""
    return _UNIT.read_text(encoding="utf-8").replace("/usr/bin/", f"{program.parent}/")


def run(paths: Paths, log_format: str | None, compile_timeout_s: float) -> int:
    """The daemon from beginning to end. Returns the exit code."""
    from xdpchain.daemon import log as events

    events.set_up(log_format)
    log = events.get_logger()
    os.umask(0o077)
    try:
        return asyncio.run(_run(paths, compile_timeout_s))
    except XdpchainError as error:
        log.error("start_failed", exit_code=int(error.exit_code), **events.fields(error))  # noqa: TRY400 - told in words
        return int(error.exit_code)
    except OSError as error:
        hint = "the directories of --state, --cache and --socket must be there to write to"
        log.error("start_failed", exit_code=int(ExitCode.DAEMON), error=str(error), hint=hint)  # noqa: TRY400 - told in words
        return int(ExitCode.DAEMON)
    except Exception:
        log.exception("internal_error", during="the daemon's run")
        return int(ExitCode.INTERNAL)


async def _run(paths: Paths, compile_timeout_s: float) -> int:
    from xdpchain.daemon import log as events
    from xdpchain.daemon.control import Control
    from xdpchain.daemon.notify import Notifier
    from xdpchain.version import version

    log = events.get_logger()
    log.info("starting", version=version(), pid=os.getpid(), config=str(paths.config), root=str(paths.root), state=str(paths.state))
    notifier = Notifier.from_environment()
    ended, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, ended), (signal.SIGINT, ended), (signal.SIGHUP, hung_up)):
        loop.add_signal_handler(number, event.set)
    service = _assemble(paths, compile_timeout_s, notifier, log)
    control = Control(paths.socket, {word: getattr(service, word) for word in METHODS})
    tasks = [loop.create_task(service.keep_alive())]
    await service.start()
    await control.open()
    works = (service.follow(), service.follow_next_hops(), service.keep_up(), service.sweep(), service.retry())
    tasks += [loop.create_task(work) for work in (*works, service.reload_whenever(hung_up))]
    service.ready()
    log.info("ready", socket=str(paths.socket))

    await ended.wait()
    log.info("stopping")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await control.close()
    await service.stop()
    return int(ExitCode.OK)


def _assemble(paths: Paths, compile_timeout_s: float, notifier: Notifier, log: Any) -> Service:
    """Take this node and put the parts together; nothing is applied yet."""
    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.chain.engine import Engine
    from xdpchain.daemon import bpffs, lock
    from xdpchain.daemon import log as events
    from xdpchain.daemon.node import Node
    from xdpchain.daemon.service import Service
    from xdpchain.daemon.store import Store
    from xdpchain.netlink import list_interfaces
    from xdpchain.plugins import load_plugins

    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock.own_state(paths.state)
    if bpffs.ensure(paths.root):
        log.warning("bpffs_mounted", at=str(bpffs.USUAL))
    plugins = load_plugins()
    for broken in plugins.broken:
        log.error("plugin_broken", plugin=broken.name, dist=broken.dist, **events.fields(broken.error))
    engine = Engine(paths.root, Compiler(paths.cache, compile_timeout_s))
    node = Node(paths.config, engine, Store(paths.state), plugins, list_interfaces)
    return Service(paths, node, engine, plugins, notifier)
