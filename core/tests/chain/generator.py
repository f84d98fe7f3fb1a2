# SPDX-License-Identifier: Apache-2.0
"""
A packet generator: BPF_PROG_TEST_RUN with live frames, run as a process of its own.

`python -m core.tests.chain.generator INTERFACE CPU` sends until it is told to stop by a line on its standard input, then prints how many
frames it sent. The frames leave INTERFACE's other end by XDP_TX: one core makes some millions in a second.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys

from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.libbpf import test_run
from xdpchain.bpf.loader import load_program
from xdpchain.function import Hook

LIVE_FRAMES = 1 << 1
BATCH = 64
FRAMES_A_CALL = 500_000

TEXT = """
int generate(struct xdp_md *ctx)
{
	u64 *at = (void *)(long)ctx->data + 16;

	if ((void *)(at + 6) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*(u16 *)((void *)at - 2) = 0;
	at[0] = at[1] = at[2] = at[3] = at[4] = 0;	/* pages come back as the receiver left them */
	return XDP_TX;
}
"""


def main() -> None:
    """Send until told to stop."""
    interface, cpu = sys.argv[1], int(sys.argv[2])
    os.sched_setaffinity(0, {cpu})
    artifact = Compiler(None).compile(Unit("generator", TEXT, {"generate": Hook.XDP}))
    program = load_program(artifact, "generate", Hook.XDP, {}, {}, name="generate")
    frame = bytes.fromhex("02000000000102000000000288b5") + bytes(50)
    index = socket.if_nametoindex(interface)
    context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sent = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        test_run(program.fd, frame, context=context, repeat=FRAMES_A_CALL, flags=LIVE_FRAMES, batch=BATCH)
        sent += FRAMES_A_CALL
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main()
