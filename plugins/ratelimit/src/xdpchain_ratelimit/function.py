# SPDX-License-Identifier: Apache-2.0
"""The function: its programs, reasons and maps, and where its methods are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from xdpchain import Hook, KernelFunction, Map, Maps, Metric, Problem, Program, Reason, Table, Write

from xdpchain_ratelimit import show, tables
from xdpchain_ratelimit.check import problems
from xdpchain_ratelimit.config import RatelimitConfig
from xdpchain_ratelimit.limits import writes


class Ratelimit(KernelFunction[RatelimitConfig]):
    """Limits new TCP connections, UDP and ICMP, by destination and by source."""

    api = 1
    name = "ratelimit"
    summary = "limits new TCP connections, UDP and ICMP, by destination and source, exactly across CPUs"
    source = Path(__file__).with_name("bpf") / "ratelimit.bpf.c"
    config = RatelimitConfig
    programs = (Program(Hook.XDP, "ratelimit"),)
    reasons = (
        Reason("admitted", "within the limits of its rule"),
        Reason("rate_exceeded", "over the limit that all sources share"),
        Reason("contended", "other CPUs overtook it too often to count it; taken for one over the limit"),
        Reason("unreadable", "what could hide a new connection: an IPv4 fragment without its TCP header, more IPv6 headers than are read"),
        Reason("no_window", "its rule or its window is missing: never, unless somebody writes to the maps"),
        Reason("source_exceeded", "over the limit of its own source"),
        Reason("banned", "its source was over its limit not long ago"),
        Reason("allowed", "its source is on the list of those that are not limited"),
        Reason("denied", "its source is on the list of those that are refused"),
        Reason("syn_cookie", "over the limit; answered with a SYN cookie"),
        Reason("no_cookie", "over the limit, and there could be no cookie: nobody listens on this host, or the kernel takes none"),
    )

    def maps(self, config: RatelimitConfig) -> Sequence[Map]:
        return tables.maps(config)

    def check(self, config: RatelimitConfig) -> Iterable[Problem]:
        return problems(config)

    def configure(self, old: RatelimitConfig | None, new: RatelimitConfig, maps: Maps) -> Iterable[Write]:
        return writes(old, new, maps)

    def metrics(self, config: RatelimitConfig, maps: Maps) -> Iterable[Metric]:
        return show.metrics(config, maps)

    def status(self, config: RatelimitConfig, maps: Maps) -> Sequence[Table]:
        return show.tables(config, maps)

    def upkeep(self, config: RatelimitConfig, maps: Maps) -> Iterable[Write]:
        return show.pressure(config, maps)

    def warnings(self, config: RatelimitConfig, maps: Maps) -> Iterable[str]:
        return show.warnings(config, maps)
