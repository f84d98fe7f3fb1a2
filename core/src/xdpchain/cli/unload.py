# SPDX-License-Identifier: Apache-2.0
"""`xdpchain unload`."""

from __future__ import annotations

from pathlib import Path

import click

from xdpchain.cli.options import json_option, root_option, socket_option
from xdpchain.errors import DaemonError


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@root_option
@socket_option
@json_option
def unload(root: Path, socket: Path, *, yes: bool, as_json: bool) -> None:
    """
    Take everything out of the kernel: chains, maps and their state.

    Works with and without a daemon. A daemon goes on with nothing applied; `apply` brings the chains back, with empty maps.
    """
    from xdpchain.chain.engine import unload as remove
    from xdpchain.cli.client import NotRunningError, call
    from xdpchain.cli.render import print_json
    from xdpchain.daemon.lock import is_owned

    if not (yes or as_json):
        click.confirm(f"Remove all chains and their state under {root}?", abort=True)
    try:
        gone = call("unload", socket=socket)["removed"]
    except NotRunningError:
        if is_owned(root):
            raise DaemonError(
                f"a daemon owns {root}, but does not listen at {socket}", hint="name its --socket, or stop it first"
            ) from None
        gone = remove(root)
    if as_json:
        print_json({"removed": gone})
    else:
        click.echo("\n".join(gone) or "there was nothing")
