# SPDX-License-Identifier: Apache-2.0
"""The window's arithmetic against a log of everything that it admitted."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st
from xdpchain_ratelimit.window import COUNT_BITS, MAX_BUDGET, MAX_RATE, NUMBER_BITS, Window

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
