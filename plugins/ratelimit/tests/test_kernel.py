# SPDX-License-Identifier: Apache-2.0
"""The program in the kernel: the same window as the model's, and exact on several CPUs at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from xdpchain.testing import LoadedChain, Verdict
from xdpchain_ratelimit.window import COUNT_BITS, FINE_BITS, NUMBER_BITS, SKEW, Arrival, Window, cost_of

from plugins.ratelimit.tests.conftest import Limiter

SYN = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(dport=80, flags="S")
NUMBERS = 2**NUMBER_BITS


def possible(window: Window, rate: int, window_ns: int, begin_ns: int, end_ns: int) -> Iterator[Window | None]:
    """
    What the model says for a packet at some moment between two.

    Within a window room only grows: its first and last moment tell all that there is.
    """
    edges = {begin_ns, end_ns}
    for number in range(begin_ns // window_ns, end_ns // window_ns + 1):
        edges |= {max(begin_ns, number * window_ns), min(end_ns, (number + 1) * window_ns - 1)}
    return (window.admit(rate, window_ns, edge) for edge in edges)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize(("window", "window_ns", "rate"), [("1ms", 10**6, 1), ("60ms", 60 * 10**6, 900), ("24h", 86_400 * 10**9, 50_000)])
def test_the_program_answers_as_the_model_from_any_state(
    limiter: Limiter, window: str, window_ns: int, rate: int, data: st.DataObject
) -> None:
    chain = loaded(limiter, window, rate)
    place = next(place for place, entry in chain.maps["ratelimit"]["rl_windows"].items() if entry["id"])
    entry = chain.maps["ratelimit"]["rl_windows"].get(place)
    assert entry is not None
    count = st.one_of(st.integers(0, min(2 * rate, 2**COUNT_BITS - 1)), st.sampled_from([0, rate - 1, rate]))
    age = data.draw(st.one_of(st.sampled_from([0, 1, 2, -1, -2, NUMBERS - 2]), st.integers(0, NUMBERS - 1)))
    previous, current = data.draw(count), data.draw(count)
    before = Window((time.monotonic_ns() // window_ns - age) % NUMBERS, previous, current)
    if data.draw(st.booleans()):
        chain.send(SYN)  # so that the CPU has asked for the time in this tick already
    chain.maps["ratelimit"]["rl_windows"].put(place, {**entry, "word": before.word})

    begin_ns = time.monotonic_ns()
    verdict = chain.send(SYN).verdict
    end_ns = time.monotonic_ns()

    after = chain.maps["ratelimit"]["rl_windows"].get(place)
    assert after is not None
    outcome = Window.from_word(after["word"]) if verdict is Verdict.PASS else None
    assert outcome in list(possible(before, rate, window_ns, begin_ns, end_ns))
    if verdict is Verdict.DROP:
        assert after["word"] == before.word, "a refused connection must not write"


def test_room_that_has_just_become_is_seen_though_the_time_was_asked_for_before(limiter: Limiter) -> None:
    rate, window_ns, soon_ns, refused = 4_000_000, 1_000_000_000, 100_000, 0
    chain = loaded(limiter, "1s", rate)
    place, entry = next((place, entry) for place, entry in chain.maps["ratelimit"]["rl_windows"].items() if entry["id"])
    while refused < 30:
        number, elapsed_ns = divmod(time.monotonic_ns() + soon_ns, window_ns)
        # all of the window before was used: of this one as much as is over
        over = Window(number % NUMBERS, rate, rate * elapsed_ns // window_ns)
        chain.maps["ratelimit"]["rl_windows"].put(place, {**entry, "word": over.word})
        if chain.send(SYN).verdict is Verdict.DROP:
            refused += 1
        else:
            soon_ns = min(2 * soon_ns, window_ns // 100)
        while time.monotonic_ns() < number * window_ns + elapsed_ns + 10_000:
            pass
        assert chain.send(SYN).verdict is Verdict.PASS


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_program_answers_as_the_model_of_a_burst_from_any_state(limiter: Limiter, data: st.DataObject) -> None:
    rate, burst, window_ns = 100, 5, 86_400 * 10**9
    chain = loaded(limiter, "24h", rate, burst=burst)
    cost = cost_of(rate, window_ns)
    place, entry = next((place, entry) for place, entry in chain.maps["ratelimit"]["rl_windows"].items() if entry["id"])
    room = burst * cost
    near = st.sampled_from([0, cost, room - cost, room, room + SKEW, -cost, 2 * room])
    ahead = data.draw(st.one_of(near.flatmap(lambda at: st.integers(at - SKEW // 100, at + SKEW // 100)), st.integers(-(2**63), 2**63 - 1)))
    before = Arrival(((time.monotonic_ns() << FINE_BITS) + ahead) % 2**64)
    chain.maps["ratelimit"]["rl_windows"].put(place, {**entry, "word": before.word})

    begin_ns = time.monotonic_ns()
    verdict = chain.send(SYN).verdict
    end_ns = time.monotonic_ns()

    after = chain.maps["ratelimit"]["rl_windows"].get(place)
    assert after is not None
    first, last = (before.admit(cost, burst, 1, now_ns) for now_ns in (begin_ns, end_ns))
    if verdict is Verdict.DROP:
        assert first is None or last is None
        assert after["word"] == before.word, "a refused connection must not write"
        return
    words = [state.word for state in (first, last) if state]
    assert words, "neither its first nor its last moment admits it"
    assert any((after["word"] - word) % 2**64 <= (end_ns - begin_ns) << FINE_BITS for word in [*words, (begin_ns << FINE_BITS) + cost])


_loaded: dict[str, LoadedChain] = {}


def loaded(limiter: Limiter, window: str, rate: int, **keys: int) -> LoadedChain:
    """One chain for all examples of a test."""
    name = f"{window} {keys}"
    if name not in _loaded:
        _loaded[name] = limiter({"ports": [80], "rate": rate, **keys}, window=window)
    return _loaded[name]


def test_several_cpus_at_once_admit_exactly_the_rate(limiter: Limiter, long_window: str) -> None:
    rate, packets = 150_000, 200_000
    chain = limiter({"ports": [80], "rate": rate}, window=long_window)
    frame = chain.send(SYN).packet

    cpus = chain.repeat_on_all_cpus([frame], packets)

    counts = chain.counts("ratelimit")
    assert counts[Verdict.NEXT, "admitted"] == rate
    assert sum(counts.values()) == packets * cpus + 1


def test_a_burst_in_short_windows_stays_within_the_envelope(limiter: Limiter) -> None:
    rate, window_ns = 500, 5_000_000
    chain = limiter({"ports": [80], "rate": rate}, window="5ms")
    frame = chain.send(SYN).packet

    begin_ns = time.monotonic_ns()
    chain.repeat(frame, 1_000_000)
    end_ns = time.monotonic_ns()

    admitted = chain.counts("ratelimit")[Verdict.NEXT, "admitted"] - 1
    assert rate // 2 <= admitted <= rate * (1 + (end_ns - begin_ns) / window_ns)
