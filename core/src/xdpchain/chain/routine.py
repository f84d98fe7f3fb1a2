# SPDX-License-Identifier: Apache-2.0
"""Routines: programs that hang nowhere and run when a config handler has them run."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import attrs

from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import test_run
from xdpchain.bpf.loader import load_program
from xdpchain.bpf.unit import PREFIX
from xdpchain.errors import KernelError, VerifierError
from xdpchain.function import Hook

_PACKET = bytes(64)
"""What the routine gets, though it does not look: the kernel runs no program without."""
_FIRST_SLICE, _LONGEST_SLICE = 256, 65_536


@attrs.frozen
class Routine:
    """One routine of an instance, loaded."""

    entry: str
    program: Handle

    def run(self, most: int) -> None:
        """
        Run it until it returns 0, `most` times at most.

        One system call has the kernel run it many times, which costs little more than its work; only the last answer is seen, so it may run
        on a little after it is done.

        Raises:
            KernelError: it is not done after so many runs.
        """
        left, runs = most, _FIRST_SLICE
        while left > 0:
            runs = min(runs, left)
            if self._slice(runs) == 0:
                return
            left -= runs
            runs = min(2 * runs, _LONGEST_SLICE)
        hint = "its work does not fit its state, or its config handler expects too little of it: a defect of the plugin"
        raise KernelError(f"the routine {self.entry}() is not done after {most} runs", hint=hint)

    def _slice(self, runs: int) -> int:
        while True:
            try:
                answer, _, _ = test_run(self.program.fd, _PACKET, repeat=runs)
            except KernelError as error:
                if error.errno != errno.EINTR:  # a signal has ended it between two runs
                    raise
            else:
                return answer


def load_routines(instance: str, plugin: str, artifact: Artifact, entries: list[str], maps: Mapping[str, int]) -> dict[str, Routine]:
    """
    Load the routines of an instance, with its maps.

    Raises:
        VerifierError: with the plugin's name.
    """
    try:
        return {entry: Routine(entry, load_program(artifact, PREFIX + entry, Hook.ROUTINE, maps, {}, name=instance)) for entry in entries}
    except VerifierError as error:
        raise VerifierError(plugin, error.message, details=error.details, hint=error.hint) from error
