# SPDX-License-Identifier: Apache-2.0
"""`xdpchain trace`."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from xdpchain.cli.options import config_option, json_option
from xdpchain.daemon.paths import DEFAULTS, variable
from xdpchain.errors import XdpchainError

if TYPE_CHECKING:
    from xdpchain.chain.model import Frame
    from xdpchain.packets.capture import Captured

_STDIN = "-"
_SECOND_NS = 1_000_000_000
_SUMMARY_WIDTH = 60
_LEAVES = {"PASS", "TX", "REDIRECT"}


@click.command(no_args_is_help=True)
@config_option
@click.option("--interface", required=True, metavar="NAME", help="Whose chain; it need not exist on this machine.")
@click.option(
    "--pcap", type=click.Path(exists=True, dir_okay=False, allow_dash=True), help="A capture (pcap, pcapng); - is standard input."
)
@click.option("--packet", metavar="PACKET", help="A packet in scapy's notation.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many times PACKET is sent.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the frames that leave the chain to this pcap.")
@click.option("--egress", is_flag=True, help="Send through the TC egress chain, not through XDP and TC ingress.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, readable=False),  # the lack of rights is told by who loads programs, not by who looks for old ones
    envvar=variable("cache"),
    default=DEFAULTS["cache"],
    show_default=True,
    show_envvar=True,
    help="Directory of compiled functions.",
)
@json_option
def trace(
    config: Path,
    interface: str,
    pcap: str | None,
    packet: str | None,
    count: int,
    out: Path | None,
    cache: Path,
    *,
    egress: bool,
    as_json: bool,
) -> None:
    """
    Send frames through a chain that is attached to nothing, and tell what becomes of each.

    The chain of an interface is loaded from the node's file with its real programs and maps, beside what runs and without the daemon. The
    frames go through in order; windows, tables and counters stay from frame to frame.

    \b
      xdpchain trace --interface eth0 --pcap burst.pcap
      xdpchain trace --interface eth0 --packet 'Ether()/IP(dst="10.0.0.1")/TCP(dport=80, flags="S")'

    Each frame is one line: the packet, the functions that it passed, the verdict, who decided and for which reason. Addresses that PACKET
    leaves out are the same on every machine. A capture that ends in the middle of a frame is an error after the frames before it.
    """  # noqa: D301 - the backslash is for click: it keeps the lines of the examples as they are
    if (pcap is None) == (packet is None):
        raise click.UsageError("give either --pcap or --packet")
    if count > 1 and packet is None:
        raise click.UsageError("--count goes with --packet")
    if out and pcap and pcap != _STDIN and out.exists() and out.samefile(pcap):
        raise click.UsageError("--out is the capture that is read: choose another file")
    try:
        _run(config, interface, _captured(pcap) if pcap else _written(packet or "", count), out, cache, egress=egress, as_json=as_json)
    except XdpchainError as error:
        if not as_json:
            raise
        from xdpchain.daemon.wire import error_data

        click.echo(json.dumps({"error": error_data(error)}))
        sys.exit(int(error.exit_code))


def _run(config: Path, interface: str, frames: Iterator[Captured], out: Path | None, cache: Path, *, egress: bool, as_json: bool) -> None:
    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.chain.private import PrivateChain
    from xdpchain.cli.node import read_node
    from xdpchain.netlink import list_interfaces
    from xdpchain.packets.capture import Captured, CaptureWriter

    node, _ = read_node(config)
    kind = next((one.kind for one in list_interfaces() if one.name == interface), "")
    chain = PrivateChain(node, interface, Compiler(cache), kind)
    with contextlib.ExitStack() as stack:
        writer = CaptureWriter(stack.enter_context(_open(out))) if out else None
        for captured in frames:
            frame = chain.send(captured.data, egress=egress)
            click.echo(json.dumps(frame_data(frame)) if as_json else frame_text(frame, captured.data))
            if writer and not frame.error and frame.verdict.name in _LEAVES:
                writer.write(Captured(captured.time_ns, frame.packet))


def frame_data(frame: Frame) -> dict[str, Any]:
    """What became of a frame, as `--json` prints it."""
    data: dict[str, Any] = {
        "index": frame.index,
        "verdict": frame.verdict.name,
        "function": frame.function or None,
        "reason": frame.reason,
        "path": list(frame.path),
        "packet": frame.packet.hex(),
    }
    if frame.error:
        data |= {"verdict": None, "reason": None, "error": frame.error}
    return data


def frame_text(frame: Frame, sent: bytes) -> str:
    """What became of a frame, for people: the packet as it was sent, its way, the verdict."""
    from xdpchain.packets.summary import summary

    if frame.error:
        verdict = click.style("error", fg="red") + f": {frame.error}"
    else:
        words = [f"by {frame.function}"] if frame.function else []
        words += [frame.reason] if frame.reason else []
        colour = {"DROP": "red", "ABORT": "red", "PASS": "green"}.get(frame.verdict.name, "cyan")
        verdict = click.style(frame.verdict.name, fg=colour) + (f" ({', '.join(words)})" if words else "")
    changed = "" if frame.packet == sent else f"  now {summary(frame.packet)}"
    return f"{frame.index:>5}  {summary(sent):<{_SUMMARY_WIDTH}}  {' → '.join((*frame.path, verdict))}{changed}"


def _captured(pcap: str) -> Iterator[Captured]:
    from xdpchain.packets.capture import read_capture

    if pcap == _STDIN:
        yield from read_capture(sys.stdin.buffer, "standard input")
        return
    with Path(pcap).open("rb") as file:
        yield from read_capture(file, pcap)


def _written(packet: str, count: int) -> Iterator[Captured]:
    """The packets of a notation, a second apart."""
    from xdpchain.packets.capture import Captured
    from xdpchain.packets.notation import frame_of, packets

    wanted = packets(packet)
    for index, one in enumerate(itertools.chain.from_iterable(itertools.repeat(wanted, count))):
        yield Captured(index * _SECOND_NS, frame_of(one))


def _open(out: Path) -> BinaryIO:
    try:
        return out.open("wb")
    except OSError as error:
        raise click.UsageError(f"{out} cannot be written: {error.strerror}") from error
