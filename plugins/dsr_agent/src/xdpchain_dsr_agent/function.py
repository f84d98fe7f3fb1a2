# SPDX-License-Identifier: Apache-2.0
"""dsr_agent as the core sees it: programs, reasons, maps, and what its methods answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xdpchain import Hook, KernelFunction, Map, Maps, Metric, Problem, Program, Reason, Side, Table, Write

from xdpchain_dsr_agent import flows, show
from xdpchain_dsr_agent.check import problems
from xdpchain_dsr_agent.config import DsrAgentConfig
from xdpchain_dsr_agent.handler import writes
from xdpchain_dsr_agent.tables import maps


class DsrAgent(KernelFunction[DsrAgentConfig]):
    """Direct server return: encapsulated packets in, answers with the service's address out."""

    api = 1
    name = "dsr_agent"
    summary = "takes what load balancers encapsulate to workloads, and has their answers go straight to clients"
    source = Path(__file__).parent / "bpf" / "dsr_agent.bpf.c"
    config = DsrAgentConfig
    programs = (
        Program(Hook.XDP, "dsr_arrive_nic", side=Side.NETWORK),
        Program(Hook.TC_EGRESS, "dsr_leave_nic", side=Side.NETWORK),
        Program(Hook.TC_EGRESS, "dsr_arrive_port", side=Side.WORKLOAD),
        Program(Hook.TC_INGRESS, "dsr_leave_port", side=Side.WORKLOAD),
    )
    reasons = (
        Reason("delivered", "taken out of its encapsulation and addressed to the workload"),
        Reason("forwarded", "sent on to the alternate backend that its hop list names: its flow is not known here"),
        Reason("strange_source", "encapsulated to a workload by somebody who is not in accept_from"),
        Reason("no_service", "encapsulated to a workload for an address, port and protocol of no service"),
        Reason("bad_outer", "the outer headers contradict the frame, or are of no form that is taken"),
        Reason("bad_inner", "the packet in the encapsulation is cut short, nested, or contradicts what is around it"),
        Reason("outer_fragment", "a fragment of an encapsulated packet: the path to the workload is too narrow"),
        Reason("congested", "congestion was marked on the way, and the packet in the encapsulation cannot be marked (RFC 6040)"),
        Reason("early_fragment", "a later fragment of a datagram whose first one was not seen"),
        Reason("icmp_unmatched", "an ICMP error about no flow of a service"),
        Reason("answered", "from a workload, its source is now the service's"),
        Reason("guessed", "from a service's port, of no known flow: its source is now the service's by rule"),
        Reason("held", "from a service's port, of no known flow: held back until the client is heard"),
        Reason("spoofed", "encapsulated by a workload in the name of a load balancer"),
        Reason("hairpinned", "between a workload and itself through its own service"),
        Reason("expired", "its time to live has run out on this host"),
        Reason("no_room", "the packet cannot be changed as it must be"),
    )

    def maps(self, config: DsrAgentConfig) -> Sequence[Map]:
        """The maps of the C source."""
        return maps(config)

    def check(self, config: DsrAgentConfig) -> Iterable[Problem]:
        """What is wrong with a config, and with the file of services."""
        return problems(config)

    def configure(self, old: DsrAgentConfig | None, new: DsrAgentConfig, maps: Maps) -> Iterable[Write]:
        """Services come and go; those that stay keep their places."""
        return writes(old, new, maps)

    def warnings(self, config: DsrAgentConfig, maps: Maps) -> Iterable[str]:
        """Tables of flows that are nearly full."""
        return show.warnings(maps)

    def status(self, config: DsrAgentConfig, maps: Maps) -> Sequence[Table]:
        """Services and tables of flows."""
        return show.tables(config, maps)

    def metrics(self, config: DsrAgentConfig, maps: Maps) -> Iterable[Metric]:
        """What services count, and live flows."""
        return show.metrics(config, maps)

    def answer(self, config: DsrAgentConfig, maps: Maps, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """The flows that `xdpchain dsr flows` asks for."""
        return flows.answer(maps, question)
