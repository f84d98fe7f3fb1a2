# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from xdpchain.daemon.paths import DEFAULTS, variable

F = TypeVar("F", bound=Callable[..., Any])


def path_option(name: str, text: str) -> Callable[[F], F]:
    """An option for one of a node's paths, with its environment variable and default."""
    return click.option(
        f"--{name}",
        type=click.Path(path_type=Path),
        envvar=variable(name),
        default=DEFAULTS[name],
        show_default=True,
        show_envvar=True,
        help=text,
        callback=lambda _ctx, _param, path: path.absolute(),
    )


config_option = path_option("config", "The node's file.")
socket_option = path_option("socket", "The daemon's socket.")
root_option = path_option("root", "The daemon's directory of pins.")

other_file_option = click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True),
    help="Another file than the daemon's own.",
    callback=lambda _ctx, _param, path: path and path.absolute(),
)


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.find_root().meta["xdpchain.json"] = value
    return value


json_option = click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_remember, help="Print JSON.")
