# SPDX-License-Identifier: Apache-2.0
"""A rule as it stands in the tables: its limits in the datapath's terms, and the ids by which its state is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import attrs
from xdpchain import Duration

from xdpchain_ratelimit import ports, tables
from xdpchain_ratelimit.config import PerSource, RatelimitConfig, Rule
from xdpchain_ratelimit.window import Arrival, Window, cost_of

ANSWERS = frozenset({"reset", "syn-cookie"})
TICK_BITS, MAX_AGE = 30, 255
"""Ages of sources are in ticks of 2^30 ns, in a byte."""


@attrs.frozen
class Limit:
    """A rate per window, or, with a burst, one that flows evenly."""

    rate: int
    window_ns: Duration
    burst: int | None

    @property
    def span(self) -> int:
        """`struct rl_limit`: the window in nanoseconds, or what one unit costs in 2^-14 ns."""
        return self.window_ns if self.burst is None else cost_of(self.rate, self.window_ns)

    @property
    def most(self) -> int:
        """`struct rl_limit`: how much of it there may be at once."""
        return self.rate if self.burst is None else self.burst

    @property
    def struct(self) -> dict[str, int]:
        return {"span": self.span, "most": self.most}

    def used(self, word: int, now_ns: int) -> float:
        """How much of `most` is used."""
        if self.burst is None:
            return Window.from_word(word).used(self.window_ns, now_ns)
        return Arrival(word).used(self.span, self.burst, now_ns)


def shared(config: RatelimitConfig, rule: Rule) -> Limit:
    """The limit that all share. Bytes have no window, for its word has not the bits: a burst of one window's worth has the same envelope."""
    return Limit(rule.rate, config.window_of(rule), rule.rate if rule.unit == "bytes" and rule.burst is None else rule.burst)


def of_source(config: RatelimitConfig, rule: Rule, source: PerSource) -> Limit:
    """The limit of each source."""
    window_ns = config.window_of(rule) if source.window is None else source.window
    return Limit(source.rate, window_ns, source.rate if rule.unit == "bytes" and source.burst is None else source.burst)


def name(rule: Rule) -> str:
    """What a rule is for, in one form for each set of destinations and ports: `"192.0.2.1 80,443"`."""
    return " ".join((*_destinations(rule), show_ports(rule)))


def show_ports(rule: Rule) -> str:
    """`"80,443,8000-8099"`, or `"all"`."""
    return "all" if rule.ports is None else ports.show(ports.each(rule.ports))


def _destinations(rule: Rule) -> list[str]:
    return sorted({_short(str(one)) for one in rule.destination})


def _short(network: str) -> str:
    return network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")


def show_destination(rule: Rule) -> str:
    """The destinations, or `"any"`."""
    return ",".join(_destinations(rule)) or "any"


def window_id(config: RatelimitConfig, rule: Rule) -> int:
    """What a rule's state is found again by: a hash of what it is for and its window, whatever becomes of its rate and of its place in the file."""
    limit = shared(config, rule)
    text = f"{name(rule)} {limit.window_ns}"
    if rule.protocol != "tcp" or limit.burst is not None:
        text += f" {rule.protocol} {rule.unit} {'burst' if limit.burst is not None else ''}"
    return _hash(text)


def source_id(config: RatelimitConfig, rule: Rule, source: PerSource) -> int:
    """The same for the state of its sources."""
    limit = of_source(config, rule, source)
    kind = "burst" if limit.burst is not None else limit.window_ns
    return _hash(f"{name(rule)} {rule.protocol} {rule.unit} {kind} {source.ipv4} {source.ipv6}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def packed(config: RatelimitConfig, rule: Rule, place: int) -> bytes:
    """`struct rl_rule` for a rule whose window has that place."""
    limit, source = shared(config, rule), rule.per_source
    own = of_source(config, rule, source) if source else None
    flags = tables.GCRA if limit.burst is not None else 0
    flags |= tables.BYTES if rule.unit == "bytes" else 0
    flags |= tables.LISTED if rule.listing.prefixes else 0
    flags |= tables.COUNT_ALL if rule.count == "all" else 0
    flags |= tables.IN_PART if rule.enforce < 100 else 0
    flags |= tables.PER_SOURCE if own else 0
    flags |= tables.ANSWERS if rule.action in ANSWERS else 0
    flags |= tables.SOURCE_GCRA if own and own.burst is not None else 0
    mask6 = tables.mask_words(source.ipv6 if source else 128)
    values: dict[str, Any] = {
        "shared": limit.struct,
        "source": own.struct if own else {"span": 1, "most": 0},
        "source_id": source_id(config, rule, source) if source else 0,
        "ban_ns": rule.ban or 0,
        "mask4": tables.mask_words(96 + (source.ipv4 if source else 32))[1],
        "mask6_high": mask6[0],
        "mask6_low": mask6[1],
        "window": place,
        "flags": flags,
        "action": tables.ACTIONS[rule.action],
        "sets": tables.sets(config) - 1,
        "memory": min(remembered_ns(config, rule) >> TICK_BITS, MAX_AGE),
        "enforce": min(int(rule.enforce / 100 * 2**32), 2**32 - 1),
    }
    return tables.RULE.pack(values)


def remembered_ns(config: RatelimitConfig, rule: Rule) -> int:
    """How long what is known about a source of a rule matters after its last packet."""
    if rule.per_source is None:
        return 0
    limit = of_source(config, rule, rule.per_source)
    span = 2 * limit.window_ns if limit.burst is None else limit.burst * limit.window_ns // limit.rate
    return max(span, rule.ban or 0)


def targets(rule: Rule) -> Iterator[tuple[str, bytes | int]]:
    """The maps and keys that lead to a rule."""
    numbers = [None] if rule.ports is None else sorted(set(ports.each(rule.ports)))
    for network in rule.destination or (None,):
        for port in numbers:
            yield tables.target_key(network, rule.protocol, port)


def gates(config: RatelimitConfig) -> int:
    """The kinds of rules that there are."""
    word = 0
    for rule in config.rule:
        shift = tables.ALL_PORTS if rule.ports is None else 0
        for network in rule.destination or (None,):
            kind = tables.ANYWHERE if network is None else tables.EXACT if network.prefixlen == network.max_prefixlen else tables.PREFIXES
            word |= kind << shift
        if rule.protocol == "tcp":
            word |= tables.TCP_PACKETS if rule.unit == "bytes" else 0
        else:
            word |= tables.UDP_RULES if rule.protocol == "udp" else tables.ICMP_RULES
        word |= tables.ANSWERING if rule.action in ANSWERS else 0
    return word
