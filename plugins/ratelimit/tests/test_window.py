# SPDX-License-Identifier: Apache-2.0
"""The window's arithmetic against a log of everything that it admitted."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st
from xdpchain_ratelimit.window import (
    COUNT_BITS,
    FINE_BITS,
    MAX_BUDGET,
    MAX_FINE_RATE,
    MAX_RATE,
    MAX_ROOM,
    NUMBER_BITS,
    Arrival,
    Window,
    cost_of,
)

counts = st.integers(0, 2**COUNT_BITS - 1)
windows = st.builds(Window, st.integers(0, 2**NUMBER_BITS - 1), counts, counts)


def admitted(rate: int, window_ns: int, times: list[int]) -> list[int]:
    window, log = Window(), []
    for now_ns in times:
        after = window.admit(rate, window_ns, now_ns)
        if after is not None:
            window = after
            log.append(now_ns)
    return log


@given(
    rate=st.integers(1, 12),
    window_ns=st.integers(1, 50),
    start=st.integers(0, 10_000),
    gaps=st.lists(st.integers(0, 40), max_size=200),
)
@example(rate=1, window_ns=1, start=0, gaps=[0] * 5)
@example(rate=5, window_ns=10, start=9, gaps=[0] * 5 + [1] * 40)
def test_no_interval_of_any_length_sees_more_than_the_envelope(rate: int, window_ns: int, start: int, gaps: list[int]) -> None:
    log = admitted(rate, window_ns, list(accumulate(gaps, initial=start)))

    for first, begin in enumerate(log):
        for last in range(first, len(log)):
            # the shortest interval that has them all; R * (1 + L / W) without a division
            assert (last - first + 1) * window_ns <= rate * (window_ns + log[last] - begin)


@given(rate=st.integers(1, 50), window_ns=st.integers(10, 1000), times=st.lists(st.integers(0, 5000), max_size=100).map(sorted))
def test_a_connection_is_admitted_if_no_other_was_within_two_windows(rate: int, window_ns: int, times: list[int]) -> None:
    log = admitted(rate, window_ns, times)

    for now_ns in times:
        before = bisect_left(log, now_ns)
        if before == 0 or now_ns - log[before - 1] >= 2 * window_ns:
            assert now_ns in log


@given(windows)
def test_a_word_holds_a_whole_window(window: Window) -> None:
    assert 0 <= window.word < 2**64
    assert Window.from_word(window.word) == window


@given(rate=st.integers(1, MAX_RATE), window_ns=st.integers(1_000_000, 86_400_000_000_000), now_ns=st.integers(0, 2**63))
def test_what_the_config_allows_never_overflows_a_word(rate: int, window_ns: int, now_ns: int) -> None:
    rate = min(rate, MAX_BUDGET // window_ns)
    full = Window(now_ns // window_ns % 2**NUMBER_BITS, rate, rate)

    assert full.admit(rate, window_ns, now_ns) is None
    assert rate * window_ns + (rate + 1) * window_ns < 2**64


def test_a_clock_that_lags_into_the_window_before_counts_in_the_one_that_has_begun() -> None:
    ahead = Window(number=8, previous=3, current=1)

    assert ahead.admit(5, 100, now_ns=799) == Window(8, 3, 2)
    assert Window(number=8, previous=3, current=2).admit(5, 100, now_ns=799) is None


def test_after_an_idle_window_all_of_the_rate_is_there() -> None:
    assert Window(number=5, previous=9, current=9).admit(3, 100, now_ns=700) == Window(7, 0, 1)


def test_what_is_used_fades_with_the_previous_window() -> None:
    window = Window(number=3, previous=10, current=2)

    assert window.used(100, now_ns=300) == 12
    assert window.used(100, now_ns=375) == 4.5
    assert window.used(100, now_ns=400) == 2
    assert window.used(100, now_ns=999) == 0


def arrived(cost: int, burst: int, arrivals: list[tuple[int, int]], *, count_all: bool = False) -> list[tuple[int, int]]:
    state, log = Arrival(), []
    for now_ns, amount in arrivals:
        after = state.admit(cost, burst, amount, now_ns)
        if after is not None:
            log.append((now_ns, amount))
        elif count_all:
            after = state.refuse(cost, burst, now_ns)
        state = after or state
    return log


@given(
    rate=st.integers(1, 12),
    window_ns=st.integers(1, 50),
    burst=st.integers(1, 20),
    start=st.integers(0, 2**51),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=200),
    count_all=st.booleans(),
)
def test_no_interval_sees_more_than_a_burst_and_what_flows_in_it(
    rate: int, window_ns: int, burst: int, start: int, steps: list[tuple[int, int]], count_all: bool
) -> None:
    times = list(accumulate((gap for gap, _ in steps), initial=start))
    log = arrived(cost_of(rate, window_ns), burst, list(zip(times, (amount for _, amount in steps), strict=False)), count_all=count_all)

    for first, (begin, _) in enumerate(log):
        total = 0
        for end, amount in log[first:]:
            total += amount
            # B + R * L / W without a division
            assert total * window_ns <= burst * window_ns + rate * (end - begin)


@given(rate=st.integers(1, 50), window_ns=st.integers(10, 1000), burst=st.integers(1, 20), times=st.lists(st.integers(0, 5000)).map(sorted))
def test_with_a_burst_all_is_admitted_that_the_envelope_allows(rate: int, window_ns: int, burst: int, times: list[int]) -> None:
    cost = cost_of(rate, window_ns)
    admitted_at: list[int] = []
    state = Arrival()
    for now_ns in times:
        after = state.admit(cost, burst, 1, now_ns)
        tight = [
            (len(admitted_at) - at + 1) * cost > burst * cost + ((now_ns - begin) << FINE_BITS) for at, begin in enumerate(admitted_at)
        ]
        assert (after is None) == any(tight)
        if after is not None:
            admitted_at.append(now_ns)
            state = after


@given(rate=st.integers(1, MAX_FINE_RATE), window_ns=st.integers(1_000_000, 86_400_000_000_000), burst=st.integers(1, MAX_FINE_RATE))
def test_what_the_config_allows_of_a_burst_never_overflows_a_word(rate: int, window_ns: int, burst: int) -> None:
    cost = cost_of(rate, window_ns)
    if burst * cost <= MAX_ROOM:
        assert Arrival(0).admit(cost, burst, burst, now_ns=2**40) is not None
        assert 2 * burst * cost + (10**9 << FINE_BITS) < 2**63


def test_a_word_that_was_left_alone_for_days_is_an_old_one() -> None:
    cost, burst = cost_of(10, 10**9), 10
    full = Arrival().admit(cost, burst, burst, now_ns=10**9)
    assert full is not None
    assert full.admit(cost, burst, 1, now_ns=10**9) is None

    for days in (1, 5, 7, 10, 12, 20):
        assert full.admit(cost, burst, burst, now_ns=days * 86_400 * 10**9) is not None


@given(rate=st.integers(1, 12), window_ns=st.integers(1, 50), gaps=st.lists(st.integers(0, 40), max_size=200))
def test_who_counts_all_admits_no_more_than_who_counts_what_was_admitted_may(rate: int, window_ns: int, gaps: list[int]) -> None:
    window, log = Window(), list[int]()
    for now_ns in accumulate(gaps, initial=0):
        after = window.admit(rate, window_ns, now_ns)
        if after is not None:
            log.append(now_ns)
        window = after or window.refuse(rate, window_ns, now_ns)

    for first, begin in enumerate(log):
        for last in range(first, len(log)):
            assert (last - first + 1) * window_ns <= rate * (window_ns + log[last] - begin)


def test_a_flood_keeps_its_limit_shut_where_all_counts() -> None:
    window, admitted_then = Window(), []
    for now_ns in range(0, 10_000, 10):  # ten times the rate
        after = window.admit(10, 1000, now_ns)
        admitted_then += [now_ns] if after else []
        window = after or window.refuse(10, 1000, now_ns)

    assert admitted_then == [10 * n for n in range(10)]
