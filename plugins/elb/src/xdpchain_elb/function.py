# SPDX-License-Identifier: Apache-2.0
"""The function: its programs, reasons and maps, and where each question of the core is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xdpchain import Hook, IPAddress, KernelFunction, Map, Maps, Metric, NextHops, Problem, Program, Reason, Table, Write

from xdpchain_elb import handler, rest, show, where
from xdpchain_elb.check import next_hop_problems, problems
from xdpchain_elb.config import ElbConfig
from xdpchain_elb.flaws import reviews, servers
from xdpchain_elb.hops import follow
from xdpchain_elb.tables import tables


class Elb(KernelFunction[ElbConfig]):
    """Sends the packets of services on to their backends, in an outer header of their own."""

    api = 1
    name = "elb"
    summary = "balances TCP and UDP services over backends, flow-compatible with Katran"
    source = Path(__file__).parent / "bpf" / "elb.bpf.c"
    config = ElbConfig
    programs = (Program(Hook.XDP, "elb"), Program(Hook.ROUTINE, "elb_build"), Program(Hook.ROUTINE, "elb_settle"))
    reasons = (
        Reason("ring", "to the backend of its slot, which is settled"),
        Reason("tracked", "a flow that is remembered, to its backend; its slot is moving"),
        Reason("moving", "a flow that was not remembered, in a slot that is moving"),
        Reason("quic_id", "to the backend that its QUIC connection id names"),
        Reason("server_id", "to the backend that its TCP server-id option names"),
        Reason("stable_id", "to the backend that its header of UDP stable routing names"),
        Reason("icmp_error", "an ICMP error, to the backend of the flow that it quotes"),
        Reason("echo_reply", "an echo request to a service's address, answered"),
        Reason("echo_refused", "an echo request in fragments, with IP options or extension headers: not answered"),
        Reason("too_big", "too long for the way to the backend: the sender is told how long it may be"),
        Reason("no_backend", "for a service that has no backend for it"),
        Reason("no_next_hop", "for a backend to which no next hop is known"),
        Reason("fragment", "a fragment of which nobody can say where its flow goes"),
        Reason("malformed", "headers that are cut short or contradict each other"),
        Reason("too_big_limited", "too long for the way to the backend, and too many senders were told lately, or it is nothing to answer"),
        Reason("no_room", "the driver left no room for the outer header"),
        Reason("second_chance", "a flow that was not remembered, in a slot that is moving; it names the other backend that it may be at"),
        Reason("unroutable", "ICMPv6 behind extension headers: nobody looks for what it is about"),
    )

    def maps(self, config: ElbConfig) -> Sequence[Map]:
        return tables(vips=config.max_vips, backends=config.max_backends, members=config.max_members, flows=config.flow_table)

    def check(self, config: ElbConfig) -> Iterable[Problem]:
        return problems(config)

    def configure(self, old: ElbConfig | None, new: ElbConfig, maps: Maps) -> Iterable[Write]:
        return handler.writes(old, new, maps, {})

    def configure_with_hops(self, old: ElbConfig | None, new: ElbConfig, maps: Maps, hops: NextHops) -> Iterable[Write]:
        return handler.writes(old, new, maps, hops)

    def destinations(self, config: ElbConfig) -> Iterable[IPAddress]:
        return servers(reviews(config))

    def check_next_hops(self, config: ElbConfig, hops: NextHops) -> Iterable[Problem]:
        return next_hop_problems(config, hops)

    def follow(self, config: ElbConfig, hops: NextHops, maps: Maps) -> Iterable[Write]:
        return follow(config, hops, maps)

    def upkeep(self, config: ElbConfig, maps: Maps) -> Iterable[Write]:
        return rest.writes(maps)

    def warnings(self, config: ElbConfig, maps: Maps) -> Iterable[str]:
        return show.warnings(config, maps)

    def status(self, config: ElbConfig, maps: Maps) -> Sequence[Table]:
        return show.tables(config, maps)

    def metrics(self, config: ElbConfig, maps: Maps) -> Iterable[Metric]:
        return show.metrics(config, maps)

    def answer(self, config: ElbConfig, maps: Maps, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return where.answer(config, maps, question)
