# SPDX-License-Identifier: Apache-2.0
"""
The flows that live, read from the tables many at a time.

The tables are LRU maps, in which what is over stays until its room is needed: an entry counts as long as bpf/flow.h lets it count.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from xdpchain import IPAddress, Maps, XdpchainError

from xdpchain_dsr_agent.service import with_port
from xdpchain_dsr_agent.shape import PROTOCOLS, sixteen
from xdpchain_dsr_agent.tables import ANSWERED, DIRECT, FLOW, HAIRPIN, HELD, IDLE_TICKS, KEY, STATES, TICK_BITS

TABLES = ("dsr_flows", "dsr_opening")
"""those in which both sides have spoken, and the others"""
MOST_LISTED = 1_000_000

_KEY = struct.Struct(">16s16sHHB3x")
_FLOW = struct.Struct("=16s2sBBI")
_IDLE = [IDLE_TICKS[name] for name in STATES] + [IDLE_TICKS["udp"]] * (256 - len(STATES))
_SKEW = 8
"""Ticks by which an entry that is written meanwhile may be younger than now."""
_TICKS = 0xFFFFFFFF
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def tick() -> int:
    """Now, in the ticks of the tables."""
    return (time.monotonic_ns() >> TICK_BITS) & _TICKS


@attrs.frozen
class Counted:
    """Live flows: by the place of their service, those that are the service's and those that call the workload directly; and by table."""

    through: Counter[int]
    direct: Counter[int]
    tables: Mapping[str, int]


def count(maps: Maps) -> Counted:
    """Count all live flows; a hundred thousand take a few hundredths of a second."""
    now = tick()
    through, direct, tables = Counter[int](), Counter[int](), {}
    seen_at, place_at, words = FLOW.offsets["seen"] // 4, FLOW.offsets["place"] // 4, FLOW.size // 4
    for name in TABLES:
        alive = 0
        for _, values in maps[name].chunks():
            numbers, raw = memoryview(values).cast("I"), memoryview(values)
            columns = (
                numbers[seen_at::words].tolist(),
                numbers[place_at::words].tolist(),
                raw[FLOW.offsets["state"] :: FLOW.size].tolist(),
                raw[FLOW.offsets["marks"] :: FLOW.size].tolist(),
            )
            there = [
                (place, marks & DIRECT)
                for seen, place, state, marks in zip(*columns, strict=True)
                if (now - seen + _SKEW) & _TICKS <= _IDLE[state] + _SKEW
            ]
            alive += len(there)
            through.update(place for place, is_direct in there if not is_direct)
            direct.update(place for place, is_direct in there if is_direct)
        tables[name] = alive
    return Counted(through, direct, tables)


@attrs.frozen
class Wanted:
    """Which flows are asked for; None: any. Addresses are in 16 bytes, the port of the VIP in two."""

    client: bytes | None = None
    workload: bytes | None = None
    vip: bytes | None = None
    port: bytes | None = None
    limit: int = 100

    @classmethod
    def of(cls, question: Mapping[str, Any]) -> Wanted:
        """
        From a question as the command asks it.

        Raises:
            XdpchainError: it is none.
        """
        try:
            asked = {name: value for name, value in question.items() if value is not None}
            fields: dict[str, Any] = {name: _packed(asked.pop(name)) for name in ("client", "workload", "vip") if name in asked}
            if "port" in asked:
                fields["port"] = int(asked.pop("port")).to_bytes(2, "big")
            limit = asked.pop("limit", 100)
            if not isinstance(limit, int) or not 0 <= limit <= MOST_LISTED:
                raise ValueError(f"limit goes from 0 to {MOST_LISTED}")
            return cls(**fields, **asked, limit=limit)
        except (TypeError, ValueError, OverflowError) as error:
            raise XdpchainError(f"this is no question about flows: {error}", hint="ask by `xdpchain dsr flows`") from error

    def has(self, key: bytes, flow: bytes) -> bool:
        """Whether a flow is one of those."""
        return (
            (self.client is None or key[16:32] == self.client)
            and (self.workload is None or key[:16] == self.workload)
            and (self.vip is None or (flow[:16] == self.vip and not flow[19] & DIRECT))
            and (self.port is None or flow[16:18] == self.port)
        )


def answer(maps: Maps, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `xdpchain dsr flows` prints: the first flows that fit, and how many there are."""
    wanted, now = Wanted.of(question), tick()
    found, total = list[Mapping[str, Any]](), 0
    for key, flow in _live(maps, now):
        if wanted.has(key, flow):
            total += 1
            if len(found) < wanted.limit:
                found.append(_told(key, flow, now))
    return {"flows": found, "total": total}


def _live(maps: Maps, now: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of all live flows."""
    seen_at, state_at = FLOW.offsets["seen"], FLOW.offsets["state"]
    for name in TABLES:
        for keys, values in maps[name].chunks():
            ticks, states = memoryview(values).cast("I")[seen_at // 4 :: FLOW.size // 4].tolist(), values[state_at :: FLOW.size]
            for at, (seen, state) in enumerate(zip(ticks, states, strict=True)):
                if (now - seen + _SKEW) & _TICKS <= _IDLE[state] + _SKEW:
                    yield keys[at * KEY.size : (at + 1) * KEY.size], values[at * FLOW.size : (at + 1) * FLOW.size]


def _told(key: bytes, flow: bytes, now: int) -> Mapping[str, Any]:
    """A flow in words."""
    workload, client, port, client_port, proto = _KEY.unpack(key)
    vip, vip_port, state, marks, seen = _FLOW.unpack_from(flow)
    age = (now - seen + _SKEW) & _TICKS
    return {
        "client": with_port(_address(client), client_port),
        "vip": None if marks & DIRECT else with_port(_address(vip), int.from_bytes(vip_port, "big")),
        "workload": with_port(_address(workload), port),
        "protocol": _PROTOCOL_NAMES.get(proto, str(proto)),
        "state": "held" if marks & HELD else STATES[state] if state < len(STATES) else "?",
        "answered": bool(marks & ANSWERED),
        "hairpin": bool(marks & HAIRPIN),
        "idle_s": round(max(age - _SKEW, 0) * (1 << TICK_BITS) / 1e9),
    }


def _packed(address: Any) -> bytes:
    return sixteen(ipaddress.ip_address(str(address)))


def _address(packed: bytes) -> IPAddress:
    whole = ipaddress.IPv6Address(packed)
    return whole.ipv4_mapped or whole
