# SPDX-License-Identifier: Apache-2.0
"""The plugin `sender`: a function that wants to know next hops, has work every second, warns, counts, and answers questions."""

from __future__ import annotations

SENDER = """
import attrs
import xdpchain
from ipaddress import ip_address
from xdpchain import Hook, Map, MapKind, Program, Put, Role, Struct, Table, option, u8, u32, u64
from xdpchain.errors import DaemonError, Problem
from pathlib import Path


@attrs.frozen(kw_only=True)
class Config:
    to: tuple[xdpchain.IPAddress, ...] = option(help="Where packets are sent.")
    picky: bool = option(default=False, help="Whether each must have a route.")
    fail: str = option(default="", help="The method that raises.")


class NAME(xdpchain.KernelFunction[Config]):
    api = 1
    name = "NAME"
    summary = "sends packets"
    source = Path(__file__).with_name("NAME.bpf.c")
    config = Config
    programs = (Program(Hook.XDP, "NAME"),)

    def maps(self, config):
        way = Struct("way", {"mac": u64, "mtu": u32, "here": u8, "routed": u8, "zero": xdpchain.u16})
        return (
            Map(name="NAME_ways", kind=MapKind.ARRAY, key=u32, value=way, capacity=8, role=Role.STATE, help="next hops"),
            Map(name="NAME_turns", kind=MapKind.ARRAY, key=u32, value=u64, capacity=2, role=Role.STATE, help="follows and beats"),
        )

    def _may_fail(self, config, method):
        if config.fail == method:
            raise OSError(method)

    def destinations(self, config):
        self._may_fail(config, "destinations")
        return config.to

    def check_next_hops(self, config, hops):
        self._may_fail(config, "check_next_hops")
        for at, address in enumerate(config.to):
            if config.picky and not hops[address].interface:
                yield Problem(("to", at), f"cannot be reached: {hops[address].problem}", "add a route")

    def follow(self, config, hops, maps):
        self._may_fail(config, "follow")
        yield Put("NAME_turns", 0, maps["NAME_turns"].get(0) + 1)
        for at, address in enumerate(config.to):
            hop = hops[address]
            mac = int.from_bytes(hop.mac or b"")
            yield Put("NAME_ways", at, {"mac": mac, "mtu": hop.mtu, "here": hop.here, "routed": bool(hop.interface), "zero": 0})

    def upkeep(self, config, maps):
        self._may_fail(config, "upkeep")
        return [Put("NAME_turns", 1, maps["NAME_turns"].get(1) + 1)]

    def warnings(self, config, maps):
        self._may_fail(config, "warnings")
        for at, address in enumerate(config.to):
            if not maps["NAME_ways"].get(at)["mac"]:
                yield f"nobody answers at {address}"

    def status(self, config, maps):
        self._may_fail(config, "status")
        return [Table(("what", "turns"), [("follow", maps["NAME_turns"].get(0)), ("upkeep", maps["NAME_turns"].get(1))], counters=("turns",))]

    def answer(self, config, maps, question):
        self._may_fail(config, "answer")
        address = ip_address(question["address"])
        if address not in config.to:
            raise DaemonError(f"nothing is sent to {address}", hint="ask for another")
        return {"address": address, **maps["NAME_ways"].get(config.to.index(address))}


@xdpchain.hookimpl
def xdpchain_functions():
    return [NAME()]
"""

SENDER_C = """
/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
#include "xdpchain.h"

struct way { u64 mac; u32 mtu; u8 here; u8 routed; u16 zero; };

BPF_TABLE("array", u32, struct way, NAME_ways, BY_SCHEMA);
BPF_TABLE("array", u32, u64, NAME_turns, BY_SCHEMA);

static __always_inline verdict NAME(struct xdp_md *ctx, struct packet *packet)
{
	u32 zero = 0;
	struct way *way = NAME_ways.lookup(&zero);
	u64 *turns = NAME_turns.lookup(&zero);

	return way && turns && way->mac == 1 && *turns == ~0ULL ? drop(NO_REASON) : next(NO_REASON);
}
"""
