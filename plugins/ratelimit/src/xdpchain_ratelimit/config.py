# SPDX-License-Identifier: Apache-2.0
"""The keys of `[function.ratelimit]`. What has to fit together in them is in `check`."""

from __future__ import annotations

from typing import Literal

import attrs
from xdpchain import Duration, IPNetwork, Percent, PortRange, TextFile, duration, option

from xdpchain_ratelimit.listing import Listing
from xdpchain_ratelimit.window import MAX_FINE_RATE

MAX_RULES = 1024
MAX_DESTINATIONS = 4096
MAX_SOURCES = 1_048_576
SHORTEST, LONGEST = duration("1ms"), duration("24h")

Protocol = Literal["tcp", "udp", "icmp"]
Unit = Literal["packets", "bytes"]
Action = Literal["drop", "reset", "syn-cookie", "count"]


@attrs.frozen(kw_only=True)
class PerSource:
    """A limit that each source prefix has for itself."""

    rate: int = option(min=1, max=MAX_FINE_RATE, help="What each source may send per window.")
    window: Duration | None = option(default=None, min=SHORTEST, max=LONGEST, help="Overrides the window of the rule.")
    burst: int | None = option(default=None, min=1, max=MAX_FINE_RATE, help="As the rule's, for each source.")
    ipv4: int = option(default=32, min=8, max=32, help="How many bits of an IPv4 address make a source.")
    ipv6: int = option(default=64, min=32, max=128, help="How many bits of an IPv6 address make a source.")


@attrs.frozen(kw_only=True)
class Rule:
    """One limit, which all of its destinations and ports share."""

    destination: tuple[IPNetwork, ...] = option(
        default=(), max=MAX_DESTINATIONS, help="Destination addresses and prefixes that share the limit; any if absent."
    )
    ports: tuple[PortRange, ...] | None = option(
        default=None, min=1, help="Destination ports that share the limit; all if absent, together."
    )
    protocol: Protocol = option(default="tcp", help="What is limited; icmp is that of both families.")
    unit: Unit = option(default="packets", help="What a rate counts; packets of TCP are its SYNs, so new connections.")
    rate: int = option(min=1, max=MAX_FINE_RATE, help="New connections, packets or bytes per window.")
    window: Duration | None = option(default=None, min=SHORTEST, max=LONGEST, help="Overrides the window of the instance.")
    burst: int | None = option(
        default=None, min=1, max=MAX_FINE_RATE, help="How much may come at once; the rate flows evenly then (GCRA), without a window."
    )
    per_source: PerSource | None = option(default=None, help="A limit for each source, asked before the one that they share.")
    allow: tuple[IPNetwork, ...] = option(default=(), help="Sources that are not limited, and do not count.")
    allow_file: TextFile | None = option(default=None, help="A file with more of them, one in a line.")
    deny: tuple[IPNetwork, ...] = option(default=(), help="Sources that are refused; the longest prefix of allow and deny decides.")
    deny_file: TextFile | None = option(default=None, help="A file with more of them, one in a line.")
    action: Action = option(default="drop", help="What becomes of what is refused; count lets it through, for a dry run.")
    enforce: Percent = option(default=Percent(100.0), help="Of how much of what is refused the action is taken; the rest is let through.")
    ban: Duration | None = option(
        default=None, min=SHORTEST, max=LONGEST, help="For how long all of a source is refused that was over its own limit."
    )
    count: Literal["admitted", "all"] = option(default="admitted", help="What counts for the limits: what was let in, or all that came.")

    listing: Listing = attrs.field(init=False, eq=False, repr=False)
    """what `allow`, `deny` and their files say"""

    @listing.default
    def _read_listing(self) -> Listing:
        return Listing.of(self.allow, self.allow_file, self.deny, self.deny_file)


@attrs.frozen(kw_only=True)
class RatelimitConfig:
    """All limits of an instance."""

    window: Duration = option(default=duration("1s"), min=SHORTEST, max=LONGEST, help="The span of time that a rate is meant for.")
    sources: int = option(
        default=65536, min=1024, max=MAX_SOURCES, help="How many sources are remembered, of all rules together; the oldest make room."
    )
    rule: tuple[Rule, ...] = option(min=1, max=MAX_RULES, help="The limits; what two rules name is for one of them only.")

    def window_of(self, rule: Rule) -> Duration:
        """The window of a rule in nanoseconds."""
        return self.window if rule.window is None else rule.window
