# SPDX-License-Identifier: Apache-2.0
"""Frames for a program that encapsulates, whole again for each run of it: `functions/elb_front.bpf.c` made for a frame, and proven."""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import attrs
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.bpf.compiler.splice import splice
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.libbpf import map_create, map_lookup, map_update, test_run
from xdpchain.bpf.loader import PROG_ARRAY, ProgArray, load_program
from xdpchain.bpf.unit import INCLUDE
from xdpchain.function import Hook

from bench.measure import program

_SOURCE = Path(__file__).with_name("functions") / "elb_front.bpf.c"
_PROGRAMS = ("front_one", "front_many", "front_new", "front_any", "front_services", "front_proof", "front_floor")
_FLOW = 0x00800000
"""FLOW_START of the source: the low half of the source address and the source port, as a little-endian word."""
_BALANCED = struct.pack("<I", ~_FLOW & 0xFFFFFFFF)
_ID = ~_FLOW & 0xFFFF
PAYLOAD = 64


class Flows(enum.Enum):
    """Which flow the frame of each run is of; the value is the program's name."""

    ONE = "front_one"
    MANY = "front_many"
    NEW = "front_new"
    ANY = "front_any"
    SERVICES = "front_services"


@attrs.frozen
class Shape:
    """A frame, and where it has what varies with the flow: offsets in bytes. Frames of one shape share the programs."""

    frame: bytes = attrs.field(eq=False, repr=False)
    length: int
    ethertype: int
    address: int
    port: int
    balance: int
    service: int
    id: int | None

    def mask(self, flows: Flows) -> bytes:
        """0 for each byte that varies, else 255."""
        varies = {*range(self.address, self.address + 2), *range(self.port, self.port + 2), *range(self.balance, self.balance + 4)}
        varies.update(range(self.id, self.id + 2) if self.id else ())
        if flows is Flows.SERVICES:
            varies |= {self.service, self.address - 2, self.address - 1}
        return bytes(0 if at in varies else 255 for at in range(self.length))

    def text(self) -> str:
        """What the source wants to know, and the source."""
        network = struct.unpack_from("<H", self.frame, self.address - 2)[0]
        facts = {"BYTES": self.length, "TYPE": self.ethertype, "ADDRESS": self.address, "PORT": self.port, "BALANCE": self.balance}
        facts |= {"SERVICE": self.service, "NETWORK": network}
        lines = [f"#define FRAME_{name} {value}" for name, value in facts.items()]
        if self.id:
            lines.append(f"#define FRAME_ID {self.id}")
        return "\n".join((*lines, splice(_SOURCE, (INCLUDE,))))


def shape(destination: str, transport: Packet, payload: bytes | None = None) -> Shape:
    """A frame to `destination` with right checksums. A payload that is given has no flow but one: else its begin keeps UDP's checksum right."""
    six = ":" in destination
    port = 14 + (40 if six else 20)
    if isinstance(transport, TCP):
        transport.seq = int.from_bytes(_BALANCED, "big")
    source_port = struct.unpack(">H", struct.pack("<I", _FLOW)[2:])[0]
    transport.sport = source_port
    network = IPv6(src="2001:db8:1::", dst=destination) if six else IP(src="198.18.0.0", dst=destination, id=_ID)
    content = Raw((_BALANCED + bytes(PAYLOAD))[:PAYLOAD] if payload is None else payload)
    frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / network / transport / content)
    balance = port + (4 if isinstance(transport, TCP) else 8)
    return Shape(frame, len(frame), 0x86DD if six else 0x0800, 36 if six else 28, port, balance, port - 1, None if six else 18)


class Fronts:
    """Makes fronts: each shape is compiled once."""

    def __init__(self, compiler: Compiler, *, frags: bool) -> None:
        self._compiler = compiler
        self._frags = frags
        self._artifacts: dict[Shape, Artifact] = {}

    def before(self, target: Handle | Front, shape: Shape, flows: Flows) -> Front:
        """A front with the program `target` behind it."""
        return Front(self._artifact(shape), shape, flows, target, frags=self._frags)

    def floor(self, shape: Shape) -> Handle:
        """The cheapest encapsulation that there can be."""
        return _load(self._artifact(shape), "front_floor", {}, frags=self._frags)

    def proof(self, target: Handle, shape: Shape, flows: Flows, runs: int) -> int:
        """How many of `runs` frames came to `target` otherwise than they should; a run that did not get there counts, too."""
        proof = Front(self._artifact(shape), shape, flows, target, frags=self._frags, proof=True)
        front = self.before(proof, shape, flows)
        test_run(front.fd, shape.frame, repeat=runs)
        return runs - proof.seen

    def _artifact(self, shape: Shape) -> Artifact:
        if shape not in self._artifacts:
            self._artifacts[shape] = self._compiler.compile(Unit("bench", shape.text(), dict.fromkeys(_PROGRAMS, Hook.XDP)))
        return self._artifacts[shape]


class Front:
    """One loaded front, with maps of its own; or the `proof` that looks at what a front with these flows has made."""

    def __init__(self, artifact: Artifact, shape: Shape, flows: Flows, target: Handle | Front, *, frags: bool, proof: bool = False) -> None:
        self._maps = {one: _create(artifact, one) for one in artifact.maps}
        behind = ProgArray(self._maps["front_behind" if proof else "front_next"])
        behind.point(Handle(os.dup(target.fd)))
        map_update(self._maps["front_expected"].fd, bytes(4), shape.frame + shape.mask(flows))
        self._frame = shape.frame
        name = "front_proof" if proof else flows.value
        self._program = _load(artifact, name, {layout: one.fd for layout, one in self._maps.items()}, frags=frags)

    @property
    def fd(self) -> int:
        return self._program.fd

    def time(self) -> float:
        """Nanoseconds for one run on the frame."""
        return program(self.fd, self._frame)()

    @property
    def seen(self) -> int:
        """How many frames were as expected."""
        return int.from_bytes(map_lookup(self._maps["front_seen"].fd, bytes(4), 8) or b"", "little")


def _create(artifact: Artifact, name: str) -> Handle:
    layout = artifact.maps[name]
    if layout.kind == PROG_ARRAY:
        return ProgArray.create().handle
    return Handle(map_create(layout.kind, name, layout.key_size, layout.value_size, layout.capacity))


def _load(artifact: Artifact, program: str, maps: Mapping[str, int], *, frags: bool) -> Handle:
    return load_program(artifact, program, Hook.XDP, maps, {}, name=program, frags=frags)
