# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.ratelimit]`, and what has to fit together in them."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from xdpchain import Duration, PortRange, Problem, duration, option
from xdpchain.config import show_duration

from xdpchain_ratelimit import ports
from xdpchain_ratelimit.window import MAX_BUDGET, MAX_RATE

MAX_RULES = 1024
SHORTEST, LONGEST = duration("1ms"), duration("24h")


@attrs.frozen(kw_only=True)
class Rule:
    """One limit, which all of its ports share."""

    ports: tuple[PortRange, ...] = option(min=1, help="Destination ports that share the limit.")
    rate: int = option(min=1, max=MAX_RATE, help="New TCP connections per window.")
    window: Duration | None = option(default=None, min=SHORTEST, max=LONGEST, help="Overrides the window of the instance.")


@attrs.frozen(kw_only=True)
class RatelimitConfig:
    """All limits of an instance."""

    window: Duration = option(default=duration("1s"), min=SHORTEST, max=LONGEST, help="The span of time that a rate is meant for.")
    rule: tuple[Rule, ...] = option(min=1, max=MAX_RULES, help="The limits; a port is in one of them at most.")

    def window_of(self, rule: Rule) -> Duration:
        """The window of a rule in nanoseconds."""
        return self.window if rule.window is None else rule.window


def problems(config: RatelimitConfig) -> Iterator[Problem]:
    """Ports in two rules, and rates too high for their windows."""
    owners: dict[int, int] = {}
    for index, rule in enumerate(config.rule):
        path = ("rule", index)
        window_ns = config.window_of(rule)
        if rule.rate * window_ns > MAX_BUDGET:
            hint = f"at most {MAX_BUDGET // window_ns} with this window; a shorter window allows more"
            yield Problem((*path, "rate"), f"{rule.rate} is too many for a window of {show_duration(window_ns)}", hint)
        taken: dict[int, list[int]] = {}
        for port in sorted(set(ports.each(rule.ports))):
            other = owners.setdefault(port, index)
            if other != index:
                taken.setdefault(other, []).append(port)
        for other, shared in taken.items():
            what = f"port {shared[0]} is" if len(shared) == 1 else f"ports {ports.show(shared)} are"
            yield Problem(
                (*path, "ports"), f"{what} in rule[{other}] already", f"leave each port to one of rule[{other}] and rule[{index}]"
            )
