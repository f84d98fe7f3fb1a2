# SPDX-License-Identifier: Apache-2.0
"""The packet cursor against a plain model of it, on well-formed, mutated, truncated and lying frames."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from xdpchain import Hook, KernelFunction, Map, MapKind, Program, Role, Struct, u8, u16, u32
from xdpchain.bpf.compiler.compile import Compiler
from xdpchain.chain.private import PrivateChain
from xdpchain.config import loads

from core.tests.chain.functions import NoConfig

PROBE_C = """
#include "xdpchain.h"

struct probe_seen {
	u32 l4;
	u16 ethertype;
	u8 vlans;
	u8 l4_proto;
	u8 fragment;
	u8 malformed;
	u16 headers;
};

BPF_TABLE("array", u32, struct probe_seen, probe_seen, BY_SCHEMA);

static __always_inline void look(struct packet *packet)
{
	u32 zero = 0;
	struct probe_seen *seen = probe_seen.lookup(&zero);

	if (!seen)
		return;
	seen->l4 = packet->l4 ? packet->l4 - packet->data : 0;
	seen->ethertype = bpf_ntohs(packet->ethertype);
	seen->vlans = packet->vlans;
	seen->l4_proto = packet->l4_proto;
	seen->fragment = packet->fragment;
	seen->malformed = packet->malformed;
	seen->headers = !!packet->eth | !!packet->ip4 << 1 | !!packet->ip6 << 2 | !!packet->tcp << 3 | !!packet->udp << 4 |
			!!packet->icmp << 5 | !!packet->icmp6 << 6;
}

static __always_inline verdict probe(struct xdp_md *ctx, struct packet *packet)
{
	look(packet);
	return next(NO_REASON);
}

static __always_inline verdict probe_tc(struct __sk_buff *ctx, struct packet *packet)
{
	look(packet);
	return next(NO_REASON);
}
"""
FRAMES = 8_000
SEEN = Struct("probe_seen", {"l4": u32, "ethertype": u16, "vlans": u8, "l4_proto": u8, "fragment": u8, "malformed": u8, "headers": u16})
ETH, IP4, IP6, TCP, UDP, ICMP, ICMP6 = (1 << bit for bit in range(7))
TRANSPORT = {6: (TCP, 20), 17: (UDP, 8), 1: (ICMP, 8), 58: (ICMP6, 8)}
CUT_SHORT, OUT_OF_REACH = 1, 2
EXTENSIONS = {0, 43, 44, 51, 60}


class Probe(KernelFunction[NoConfig]):
    """Writes down what the cursor found."""

    api = 1
    name = "probe"
    summary = "writes down what the cursor found"
    config = NoConfig

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.source = folder / "probe.bpf.c"  # type: ignore[misc]
        self.source.write_text(PROBE_C)
        self.programs = (Program(hook, "probe" if hook is Hook.XDP else "probe_tc"),)  # type: ignore[misc]

    def maps(self, config: NoConfig) -> Sequence[Map]:
        return (Map(name="probe_seen", kind=MapKind.ARRAY, key=u32, value=SEEN, capacity=1, role=Role.STATE, help="the last packet"),)


@attrs.define
class Model:
    """What the cursor should find, read off the bytes in the plainest way."""

    l4: int = 0
    ethertype: int = 0
    vlans: int = 0
    l4_proto: int = 0
    fragment: int = 0
    malformed: int = 0
    headers: int = ETH

    @classmethod
    def of(cls, frame: bytes) -> Model:
        model = cls()
        at, (ethertype,) = 14, struct.unpack_from("!H", frame, 12)
        while ethertype in {0x8100, 0x88A8} and model.vlans < 2:
            if len(frame) < at + 4:
                model.malformed = CUT_SHORT
                return model
            (ethertype,) = struct.unpack_from("!H", frame, at + 2)
            at += 4
            model.vlans += 1
        model.ethertype = ethertype
        if ethertype == 0x0800:
            model.ipv4(frame, at)
        elif ethertype == 0x86DD:
            model.ipv6(frame, at)
        return model

    def ipv4(self, frame: bytes, at: int) -> None:
        if len(frame) < at + 20 or frame[at] >> 4 != 4 or (frame[at] & 15) < 5 or len(frame) < at + (frame[at] & 15) * 4:
            self.malformed = CUT_SHORT
            return
        self.headers |= IP4
        self.l4_proto = frame[at + 9]
        (flags,) = struct.unpack_from("!H", frame, at + 6)
        if flags & 0x1FFF:
            self.fragment = 2
            return
        self.fragment = 1 if flags & 0x2000 else 0
        self.transport(frame, at + (frame[at] & 15) * 4)

    def ipv6(self, frame: bytes, at: int) -> None:
        if len(frame) < at + 40 or frame[at] >> 4 != 6:
            self.malformed = CUT_SHORT
            return
        self.headers |= IP6
        proto, at = frame[at + 6], at + 40
        for _ in range(6):
            if proto not in EXTENSIONS:
                break
            if len(frame) < at + 8:
                self.malformed = CUT_SHORT
                return
            if proto == 44:
                (offset,) = struct.unpack_from("!H", frame, at + 2)
                proto, at = frame[at], at + 8
                if offset & 0xFFF8:
                    self.fragment, self.l4_proto = 2, proto
                    return
                if offset & 1:
                    self.fragment = 1
            else:
                proto, at = frame[at], at + ((frame[at + 1] + 2) * 4 if proto == 51 else (frame[at + 1] + 1) * 8)
        self.l4_proto = proto
        if proto in EXTENSIONS:
            self.l4, self.malformed = at, OUT_OF_REACH
        else:
            self.transport(frame, at)

    def transport(self, frame: bytes, at: int) -> None:
        self.l4 = at
        header, size = TRANSPORT.get(self.l4_proto, (0, 0))
        if len(frame) >= at + size:
            self.headers |= header
        else:
            self.malformed = OUT_OF_REACH if self.fragment else CUT_SHORT


def frames(choose: random.Random, count: int) -> list[bytes]:
    """Frames that are mostly of a sensible form, then bent."""
    return [bend(choose, frame(choose)) for _ in range(count)]


def frame(choose: random.Random) -> bytes:
    tags = b"".join(choose.choice((b"\x81\x00", b"\x88\xa8")) + choose.randbytes(2) for _ in range(choose.choice((0, 0, 0, 1, 2, 3))))
    proto = choose.choice((6, 6, 17, 1, 58, 47, 135, *EXTENSIONS))
    payload = choose.randbytes(choose.choice((0, 4, 8, 19, 20, 60)))
    if choose.random() < 0.5:
        words = choose.choice((5, 5, 5, 6, 15))
        flags = choose.choice((0, 0, 0x4000, 0x2000, 0x2001, 0x00FF))
        header = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 0, flags, 64, proto, 0) + bytes(8) + choose.randbytes(words * 4 - 20)
        return bytes(12) + tags + b"\x08\x00" + header + payload
    extensions = b""
    for _ in range(choose.choice((0, 0, 1, 2, 6, 7))):
        kind = choose.choice(sorted(EXTENSIONS))
        length = 0 if kind == 44 else choose.choice((0, 0, 1, 2))
        size = 8 if kind == 44 else (length + 2) * 4 if kind == 51 else (length + 1) * 8
        offset = choose.choice((0, 0, 1, 8, 9))
        body = struct.pack("!H", offset) + bytes(4) if kind == 44 else choose.randbytes(size - 2)
        extensions = bytes([proto, length]) + body + extensions
        proto = kind
    return bytes(12) + tags + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, 0, proto, 64) + bytes(32) + extensions + payload


def bend(choose: random.Random, frame: bytes) -> bytes:
    bent = bytearray(frame)
    for _ in range(choose.choice((0, 0, 0, 1, 2, 5))):
        bent[choose.randrange(12, len(bent))] = choose.choice((0, 4, 5, 6, 44, 51, 60, 0x45, 0x60, 0xFF, choose.randrange(256)))
    if choose.random() < 0.1:
        bent[14] = choose.choice((0x05, 0x44, 0x45, 0x46, 0x55, 0x60, 0x65))  # version and length of a header that no tag stands before
    if choose.random() < 0.3:
        del bent[choose.randrange(14, len(bent) + 1) :]
    return bytes(bent)


@pytest.mark.parametrize("hook", [Hook.XDP, Hook.TC_EGRESS])
def test_the_cursor_finds_what_the_model_finds(compiler: Compiler, tmp_path: Path, hook: Hook) -> None:
    config = loads('[interface.near]\nchain = ["probe"]', {"probe": Probe(tmp_path, hook)})
    chain = PrivateChain(config, "near", compiler)
    seen = chain.maps["probe"]["probe_seen"]
    different = {}
    for sent in frames(random.Random(6864), FRAMES):
        if hook is not Hook.XDP and not Model.of(sent).headers & (IP4 | IP6):
            continue  # the kernel builds no skb around an IP header that is cut short, for a test run
        result = chain.send(sent, egress=hook is Hook.TC_EGRESS)
        found = Model(**(seen.get(0) or {}))
        if found != Model.of(sent) or result.path != ["probe"] or result.packet != sent:
            different[sent.hex()] = (found, Model.of(sent), result)

    assert {} == different
