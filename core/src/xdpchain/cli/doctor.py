# SPDX-License-Identifier: Apache-2.0
"""`xdpchain doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xdpchain.cli.options import config_option, json_option
from xdpchain.errors import ConfigError, ExitCode, PluginError
from xdpchain.hookspecs import Finding, State

if TYPE_CHECKING:
    from xdpchain.config import NodeConfig
    from xdpchain.plugins import Plugins

_COLOURS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command()
@config_option
@json_option
def doctor(config: Path, *, as_json: bool) -> None:
    """
    Look at this machine and at what the node's file asks of it; each line says what to do.

    Ends with 1 where something does not work.
    """
    from xdpchain.cli import builtin
    from xdpchain.cli.render import print_json
    from xdpchain.plugins import load_plugins

    plugins = load_plugins(builtin)
    found = list(_findings(config, plugins))
    if as_json:
        print_json({"findings": [{"subject": f.subject, "state": f.state.value, "text": f.text, "hint": f.hint} for f in found]})
    else:
        width = max(len(finding.subject) for finding in found)
        for finding in found:
            state = click.style(finding.state.value.ljust(4), fg=_COLOURS[finding.state])
            click.echo(f"{state}  {finding.subject.ljust(width)}  {finding.text}")
            if finding.hint:
                click.echo(f"      {' ' * width}  hint: {finding.hint}")
    if any(finding.state is State.FAIL for finding in found):
        sys.exit(int(ExitCode.INTERNAL))


def _findings(config: Path, plugins: Plugins) -> Iterator[Finding]:
    node, finding = _read(config, plugins)
    for name, answer in plugins.each("xdpchain_doctor", config=node):
        if isinstance(answer, PluginError):
            yield Finding(f"checks of {name}", State.FAIL, answer.message, answer.hint)
        else:
            yield from answer
    for broken in plugins.broken:
        yield Finding(f"plugin {broken.name}", State.FAIL, broken.error.message, broken.error.hint)
    for loaded in plugins.loaded:
        yield Finding(
            f"plugin {loaded.name}", State.OK, f"{loaded.dist} {loaded.version} brings {', '.join(loaded.functions) or 'no function'}"
        )
    yield finding


def _read(config: Path, plugins: Plugins) -> tuple[NodeConfig | None, Finding]:
    from xdpchain.cli.render import problem_text
    from xdpchain.config import load

    try:
        node = load(config, plugins.functions)
    except ConfigError as error:
        first = plugins.explain(error).problems[0]
        text = f"{error.message}, the first: {problem_text(first).splitlines()[0]}"
        return None, Finding("node's file", State.FAIL, text, first.hint or f"xdpchain check --config {config} shows them all")
    except PluginError as error:
        return None, Finding("node's file", State.FAIL, error.message, error.hint)
    return node, Finding("node's file", State.OK, f"{config} is good")
