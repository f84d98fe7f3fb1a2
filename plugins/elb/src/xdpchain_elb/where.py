# SPDX-License-Identifier: Apache-2.0
"""
Which backend a flow goes to, and why: the datapath's decision, taken again from the tables alone.

Nothing is touched: a look-up by a system call does not count as use in an LRU table.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Mapping
from typing import Any

import attrs
from xdpchain import IPAddress, Maps, XdpchainError

from xdpchain_elb.config import ElbConfig
from xdpchain_elb.gates import ANY_PORTS, PREFIXES
from xdpchain_elb.hashing import slot_of
from xdpchain_elb.headers import GUE, OUTER6
from xdpchain_elb.hops import hops_of
from xdpchain_elb.shape import ANY_ID, GONE, ID_OPTIONS, PROTOCOLS, SECOND_CHANCE, SOURCE_ROUTES, TICK_NS, mapped, shape_of
from xdpchain_elb.show import STATES

_MEMBER, _MOVING, _HOLDING = 0x00FFFFFF, 0x80000000, 0x40000000
"""a slot's word, as in tables.h"""
_PHASE, _ALTERNATE_SHIFT = 7, 8
"""of what is remembered of a flow: the phase, and above it the other member that it may be at"""
_PHASES = ("opening", "open", "closing", "reset")
_LIMITS = {0: 60, 2: 60, 3: 10}
"""ticks after which a flow is over, by its phase, as in track.h; else the hold of the VIP"""
_OPENING = 0
_ID_REASONS = {"server-id": "server_id", "quic": "quic_id", "udp-stable": "stable_id"}
"""in the order in which the datapath asks"""


@attrs.frozen
class Flow:
    """A flow as its client names it. `server_id` is the one that its packets carry, if any; `syn` asks about its first packet."""

    source: IPAddress
    source_port: int
    address: IPAddress
    port: int
    protocol: str
    server_id: int | None = None
    syn: bool = False

    @classmethod
    def of(cls, question: Mapping[str, Any]) -> Flow:
        """
        From a question as the command asks it.

        Raises:
            XdpchainError: it is none.
        """
        try:
            asked = {**question}
            for name in ("source", "address"):
                asked[name] = ipaddress.ip_address(asked[name])
            flow = cls(**asked)
        except (KeyError, TypeError, ValueError) as error:
            raise XdpchainError(f"this is no question about a flow: {error}", hint="ask by `xdpchain elb where`") from error
        if flow.source.version != flow.address.version or flow.protocol not in PROTOCOLS:
            raise XdpchainError(
                "a flow has two addresses of one family and is TCP or UDP", hint="`xdpchain elb where --help` has an example"
            )
        return flow

    @property
    def key(self) -> dict[str, Any]:
        """Its `struct elb_flow`."""
        return {
            "source": _sixteen(self.source),
            "destination": _sixteen(self.address),
            "source_port": self.source_port,
            "destination_port": self.port,
            "proto": PROTOCOLS[self.protocol],
            "zero": bytes(3),
        }


def answer(config: ElbConfig, maps: Maps, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `xdpchain elb where` prints: `backend` (None: there is none), `reason` as in the metrics, and what led there."""
    flow = Flow.of(question)
    number, match = _find(maps, flow)
    vip = maps["elb_vips"].get(number) if number else None
    if not vip:
        return {"service": None, "backend": None, "reason": "not a service"}
    member, reason, why = _decide(maps, flow, vip)
    told = {"service": _service(config, maps, vip["pool"]), "match": match, **why}
    header = maps["elb_members"].get(2 * member + vip["side"]) if member else None
    if not header or not header["overhead"]:
        return {**told, "backend": None, "reason": "no_backend"}
    hop = hops_of(maps)[header["backend"]]
    told |= {
        "encapsulation": "gue" if header["form"] & GUE else "ipip",
        "state": _state_name(maps, member),
        "next_hop": (hop & (1 << 48) - 1).to_bytes(6, "little").hex(":") if hop else None,
        "mtu": hop >> 48 if hop else None,
    }
    return {**told, "backend": str(_address_in(header)), "reason": reason if hop else "no_next_hop"}


def _find(maps: Maps, flow: Flow) -> tuple[int, str]:
    """The number of the VIP, 0 if there is none, and by what it was found."""
    gates = maps["elb_gates"].get(0) or 0
    for port, words in ((flow.port, ""), (0, ", any port")):
        key = {"address": _sixteen(flow.address), "port": port, "proto": PROTOCOLS[flow.protocol], "zero": 0}
        number = maps["elb_services"].get(key)
        if number:
            return number, f"address{words}"
        # the kernel answers with the longest prefix
        number = maps["elb_prefixes"].get({"length": 160, **key}) if gates & PREFIXES else None
        if number:
            return number, f"prefix{words}"
        if not gates & ANY_PORTS:
            break
    return 0, ""


def _service(config: ElbConfig, maps: Maps, pool: int) -> str:
    """What a VIP is called, by its pool."""
    name = (maps["elb_pools"].get(pool) or {}).get("name")
    return next((str(vip) for vip in config.all_vips if shape_of(vip).pools[0].name == name), f"pool {pool}")


def _decide(maps: Maps, flow: Flow, vip: Mapping[str, int]) -> tuple[int, str, dict[str, Any]]:
    """The member, 0 if there is none, the reason, and what led there."""
    options, pool = vip["options"], vip["pool"]
    why: dict[str, Any] = {}
    if flow.server_id is not None and options & ANY_ID and not flow.syn:
        member = maps["elb_ids"].get({"pool": pool, "id": flow.server_id})
        why["server_id"] = "known" if member else "not known"
        if member:
            reason = next(reason for option, reason in _ID_REASONS.items() if options & ID_OPTIONS[option])
            return member, reason, why
    if options & SOURCE_ROUTES:
        routed = maps["elb_sources"].get({"length": 160, "pool": pool, "address": _sixteen(flow.source)})
        why["source_route"] = routed is not None
        pool = routed or pool
    slot = slot_of(flow.source, flow.source_port, flow.port, options)
    why["slot"] = slot
    ring = maps["elb_rings"].inner(pool)
    if ring is None:
        return 0, "no_backend", why
    until, word = _words(ring.blob(), 0, 1 + slot)
    member = word & _MEMBER
    why["slot_backend"] = _backend_of(maps, vip, member)
    moving = bool(word & _MOVING)
    why["slot_state"] = "moving" if moving else "settled"
    # flows whose packets named their backend at times are remembered wherever their slots are
    if not moving and not options & ID_OPTIONS["quic"]:
        return member, "ring", why
    holding = bool(word & _HOLDING) and _since(until) < 0
    return _track(maps, flow, vip, _Slot(pool, slot, member, moving=moving, holding=holding), why)


@attrs.frozen
class _Slot:
    """A slot in which flows may be remembered. `member` is whom the ring names."""

    pool: int
    number: int
    member: int
    moving: bool
    holding: bool


def _track(maps: Maps, flow: Flow, vip: Mapping[str, int], slot: _Slot, why: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """The member of a flow that may be remembered: as in track.h."""
    moves = maps["elb_moves"].inner(slot.pool)
    previous = _words(moves.blob(), slot.number)[0] if moves is not None and slot.holding else 0
    previous = previous if (maps["elb_states"].get(previous) or 0) & 3 != GONE else 0
    if slot.moving:
        why |= {"holding": slot.holding, "previous": _backend_of(maps, vip, previous)}
    memory = maps["elb_flows"].get(flow.key)
    if memory is not None:
        state = maps["elb_states"].get(memory["member"]) or 0
        phase, alternate, age = memory["phase"] & _PHASE, memory["phase"] >> _ALTERNATE_SHIFT, _since(memory["seen"])
        limit = min(_LIMITS.get(phase, vip["hold"]), vip["hold"])
        valid = state & 3 != GONE and state >> 2 == memory["incarnation"] and age <= limit
        why["remembered"] = {
            "backend": _backend_of(maps, vip, memory["member"]),
            "phase": _PHASES[phase] if phase < len(_PHASES) else "?",
            "age_s": round(max(age, 0) * TICK_NS / 1e9),
            "valid": valid,
            "alternate": _backend_of(maps, vip, alternate),
        }
        if valid and (not flow.syn or phase == _OPENING):
            doubted = alternate and vip["options"] & SECOND_CHANCE and not flow.syn
            return memory["member"], "second_chance" if doubted else "tracked", why
    member = previous if previous and not flow.syn else slot.member
    if member != slot.member and vip["options"] & SECOND_CHANCE:
        return member, "second_chance", {**why, "alternate": _backend_of(maps, vip, slot.member)}
    return member, "moving" if slot.moving else "ring", why


def _words(data: bytes, *numbers: int) -> list[int]:
    return [struct.unpack_from("=I", data, 4 * number)[0] for number in numbers]


def _since(tick: int) -> int:
    """Ticks since then; the clock is that of bpf_ktime_get_ns()."""
    passed = (time.monotonic_ns() // TICK_NS - tick) & 0xFFFFFFFF
    return passed - (1 << 32) if passed >> 31 else passed


def _backend_of(maps: Maps, vip: Mapping[str, int], member: int) -> str | None:
    header = maps["elb_members"].get(2 * member + vip["side"]) if member else None
    return str(_address_in(header)) if header and header["overhead"] else None


def _address_in(header: Mapping[str, Any]) -> IPAddress:
    destination: bytes = header["destination"]
    return ipaddress.ip_address(destination if header["form"] & OUTER6 else destination[:4])


def _state_name(maps: Maps, member: int) -> str:
    return STATES.get((maps["elb_states"].get(member) or 0) & 3, "?")


def _sixteen(address: IPAddress) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(mapped(address))
