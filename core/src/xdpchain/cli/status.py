# SPDX-License-Identifier: Apache-2.0
"""`xdpchain status`."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xdpchain.cli.options import json_option, root_option, socket_option
from xdpchain.errors import ExitCode


@click.command()
@root_option
@socket_option
@json_option
def status(root: Path, socket: Path, *, as_json: bool) -> None:
    """
    Show what runs, what it counted, and what needs a hand.

    Without a daemon, what the kernel carries is read from the kernel; the command ends with 9 then.
    """
    from xdpchain.chain.observe import observe
    from xdpchain.cli.client import NotRunningError, call
    from xdpchain.cli.render import print_json
    from xdpchain.daemon.view import snapshot_data
    from xdpchain.plugins import load_plugins

    try:
        data = call("status", socket=socket)
    except NotRunningError as error:
        data = {"daemon": None, "root": str(root), **snapshot_data(observe(root, load_plugins().functions))}
        if as_json:
            print_json(data)
        else:
            click.echo(f"{click.style('xdpchaind is not running', fg='red', bold=True)}; under {root} the kernel carries this:")
            _show_node(data)
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(int(ExitCode.DAEMON))
    if as_json:
        print_json(data)
        return
    _show_daemon(data)
    _show_node(data)
    _show_plugins(data["plugins"])


def _show_daemon(data: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import span

    daemon, config = data["daemon"], data["config"]
    up = span(time.time() - daemon["since"])
    click.echo(f"xdpchaind {daemon['version']}, pid {daemon['pid']}, up {up}; {_config_words(config)}; pins in {data['root']}")
    if config["error"]:
        _alarm("the newest configuration was refused", config["error"])
    if data["interfaces_error"]:
        _alarm("the chains could not follow the interfaces", data["interfaces_error"])
    if data["metrics"]["problem"]:
        click.echo(f"{click.style('metrics are not served', fg='yellow')}: {data['metrics']['problem']}")


def _config_words(config: Mapping[str, Any]) -> str:
    from xdpchain.cli.render import span

    file = config["file"]
    ago = f"{span(time.time() - config['since'])} ago" if config["since"] else ""
    changed = f", {click.style('the file differs now', fg='yellow')} (apply makes it run)" if config["file_differs"] else ""
    match config["origin"]:
        case "file":
            return f"{file} applied {ago}{changed}"
        case "rollback":
            return f"{click.style('rolled back', fg='yellow')} {ago}, {file} differs (apply ends the rollback)"
        case "other file":
            return f"{config['source']} applied {ago}, not {file}"
        case "last good":
            return f"{click.style('the last good configuration', fg='red')} runs, not {file}"
    return f"{click.style('nothing is applied', fg='yellow')} from {file}"


def _alarm(what: str, error: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import problem_from, problem_text

    click.echo(f"{click.style(what, fg='red', bold=True)}: {error['message']}")
    problems = error.get("problems", ())
    for problem in problems[:1]:
        click.echo(f"  {problem_text(problem_from(problem))}")
    if len(problems) > 1:
        click.echo(f"  and {len(problems) - 1} more: xdpchain check")
    if error["hint"]:
        click.echo(f"  hint: {error['hint']}")


def _show_node(data: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import show_absent

    by_interface = defaultdict(list)
    for place in data["places"]:
        by_interface[place["interface"] or (f"interface {place['index']}" if place["index"] else "node")].append(place)
    for interface, places in by_interface.items():
        click.echo("")
        for place in places:
            _show_place(interface, place)
    if not by_interface:
        click.echo("\nno chain runs")
    _show_maps(data)
    _show_warnings(data)
    if data["waiting"] or data["blocked"]:
        click.echo("")
        show_absent(data)


def _show_place(interface: str, place: Mapping[str, Any]) -> None:
    name = click.style(interface, bold=True)
    if place["program"]:
        click.echo(f"{name}  {place['hook']}  {place['program']}")
    else:
        on_error = f", on_error {place['on_error']}" if place["on_error"] else ""
        click.echo(f"{name}  {place['hook']} ({place['mode']}), generation {place['generation']}{on_error}")
        click.echo(f"  {' → '.join([*place['in_kernel'], 'PASS'])}")
        configured = [hop["instance"] for hop in place["hops"]]
        if configured and configured != place["in_kernel"]:
            click.echo(f"  {click.style('the kernel has another order', fg='red', bold=True)}; wanted: {' → '.join(configured)}")
    if place["broken"]:
        text = f"{place['broken']} packets could not enter the chain; on_error ({place['on_error']}) decided"
        click.echo(f"  {click.style(text, fg='red')}")
    _show_counts(place)


def _show_counts(place: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import amount, columns

    rows = [
        (hop["instance"], count["verdict"], count["reason"] or None, count["packets"], amount(count["bytes"]))
        for hop in place["hops"]
        for count in hop["counts"] or [{"verdict": "-", "reason": "", "packets": 0, "bytes": 0}]
    ]
    if rows:
        click.echo(columns(("INSTANCE", "VERDICT", "REASON", "PACKETS", "BYTES"), rows, "  "))


def _show_maps(data: Mapping[str, Any]) -> None:
    from xdpchain.cli.render import columns

    rows = [
        (one["instance"], one["name"], one["entries"], one["capacity"], f"{one['entries'] / one['capacity']:.1%}")
        for instance in data["instances"]
        for one in instance["maps"]
        if one["entries"] is not None
    ]
    if rows:
        click.echo("\n" + columns(("INSTANCE", "MAP", "ENTRIES", "CAPACITY", "FULL"), rows))


def _show_warnings(data: Mapping[str, Any]) -> None:
    lines = [(instance["name"], text) for instance in data["instances"] for text in instance.get("warnings", ())]
    if lines:
        click.echo("")
    for name, text in lines:
        click.echo(f"{click.style('warning', fg='yellow')}   {name}: {text}")


def _show_plugins(plugins: Mapping[str, Any]) -> None:
    for one in plugins["broken"]:
        click.echo(f"\n{click.style('broken', fg='red')}    {one['error']['message']}")
        click.echo(f"    hint: {one['error']['hint']}")
