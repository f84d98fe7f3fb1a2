# SPDX-License-Identifier: Apache-2.0
"""How the demo speaks: steps, lines, commands with their output, and claims that are checked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from lab.node import Node


class Story:
    """Tells and checks. A claim that does not hold is told too, and counted in `broken`."""

    def __init__(self) -> None:
        self.broken = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}")

    def say(self, text: str) -> None:
        """A line of the story."""
        print(f"  {text}", flush=True)

    def show(self, text: str) -> None:
        """A file, or what a command printed."""
        for line in text.splitlines():
            print(f"    {line}".rstrip())
        sys.stdout.flush()

    def claim(self, text: str, *, true: bool) -> None:
        """Something that must be so."""
        self.broken += not true
        self.say(f"{'ok  ' if true else 'NOT SO:'} {text}")

    def command(self, node: Node, *arguments: str, check: bool = True, until: str = "") -> str:
        """Run the command line on a node and show it with its output, which is cut where a line is `until`."""
        print(f"  $ xdpchain {shlex.join(arguments)}")
        output = node.xdpchain(*arguments, check=check).stdout
        shown, cut, _ = output.partition(f"\n{until}\n") if until else (output, "", "")
        self.show(f"{shown}..." if cut else shown)
        return output


def words(counts: Mapping[str, int]) -> str:
    """A tally in words."""
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
