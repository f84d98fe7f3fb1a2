# SPDX-License-Identifier: Apache-2.0
"""The routines that make rings, in the kernel, against plain models."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdpchain import Move, Put, Run
from xdpchain.testing import LoadChain, LoadedChain
from xdpchain_elb import Elb
from xdpchain_elb.hashing import Address, backend_hash, offset_and_skip
from xdpchain_elb.ring import BUILD_RUNS, SETTLE_RUNS, plan, settle_plan
from xdpchain_elb.tables import PLAN, POOL_MEMBERS, RING_SIZE, TICK_BITS, TURN

from plugins.elb.tests.model import HOLDING, MOVING, Slots, Turn, maglev

POOL, OTHER_POOL = 3, 4
UP, DRAINING, GONE = 1, 2, 0
HOLD = 1000
PAUSES = (350, 800, 1500)
"""ticks; no sum of them comes near to the hold, or to what a flow adds: a test takes a tick or two itself"""
FLOW_LIMIT = 200
NO_OTHERS = [HealthCheck.function_scoped_fixture]
NEVER_ENDING = IPv4Address("10.1.32.76")
"""has a skip of 65536: from the wrap at 2^32 on its places repeat, and one slot is not among them"""

Backend = tuple[int, Address, int]


@attrs.frozen
class Kernel:
    """An eLB without VIPs, and one pool that belongs to nobody."""

    chain: LoadedChain

    def build(self, data: bytes, *, pool: int = POOL) -> None:
        writes = (Put("elb_rings", 0, ()), Put("elb_plan", 0, data), Run("elb_build", most=BUILD_RUNS), Move("elb_rings", 0, pool))
        self.chain.carry_out("elb", writes)

    def settle(self) -> None:
        self.chain.carry_out("elb", (Put("elb_plan", 0, settle_plan(POOL)), Run("elb_settle", most=SETTLE_RUNS)))

    def set_states(self, states: Sequence[tuple[int, int]]) -> None:
        self.chain.carry_out("elb", [Put("elb_states", member, 7 << 2 | state) for member, state in states])

    def ring(self, pool: int = POOL) -> list[int]:
        return self._words("elb_rings", pool)[1 : 1 + RING_SIZE]

    def slots(self) -> Slots:
        until, moves = self._words("elb_rings", POOL)[0], self._words("elb_moves", POOL)
        return Slots(until, self.ring(), moves[:RING_SIZE], moves[RING_SIZE : 2 * RING_SIZE])

    def put(self, slots: Slots) -> None:
        ring, moves = array("I", [slots.until, *slots.word, 0]), array("I", [*slots.previous, *slots.needed])
        ring_bytes = ring.tobytes()[: 4 * (1 + RING_SIZE)]
        self.chain.carry_out("elb", (Put("elb_rings", POOL, [(0, ring_bytes)]), Put("elb_moves", POOL, [(0, moves.tobytes())])))

    @property
    def progress(self) -> object:
        return self.chain.maps["elb"]["elb_progress"].get(POOL)

    def _words(self, table: str, pool: int) -> list[int]:
        inner = self.chain.maps["elb"][table].inner(pool)
        assert inner is not None
        return array("I", inner.blob()).tolist()


@pytest.fixture
def kernel(load_chain: LoadChain) -> Kernel:
    config = {"encapsulation": "ipip", "max_vips": 8, "max_members": 4096, "flow_table": 1024}
    return Kernel(load_chain({"interface": {"eth0": {"chain": ["elb"]}}, "function": {"elb": config}}, functions=[Elb()]))


def tick() -> int:
    return time.monotonic_ns() >> TICK_BITS


def turns_of(backends: Sequence[Backend]) -> list[Turn]:
    """The turns of a pool, from the specification's own words."""
    in_order = sorted((backend_hash(address), address.packed, member, weight) for member, address, weight in backends if weight > 0)
    return [Turn(member, *offset_and_skip(key), weight) for key, _, member, weight in in_order]


def untracked(backends: Sequence[Backend], version: int) -> bytes:
    return plan(POOL, backends, version=version, track=False, hold=HOLD)


def numbered(addresses: Sequence[Address], weights: Sequence[int]) -> list[Backend]:
    return [(member, address, weight) for member, (address, weight) in enumerate(zip(addresses, weights, strict=True), 1)]


def pools(size: int, weights: st.SearchStrategy[int]) -> st.SearchStrategy[list[Backend]]:
    addresses = st.one_of(st.integers(1, 2**32 - 1).map(IPv4Address), st.integers(2**96, 2**128 - 1).map(IPv6Address))
    entries = st.lists(st.tuples(addresses, weights), max_size=size, unique_by=lambda entry: entry[0])
    return entries.map(lambda chosen: numbered([address for address, _ in chosen], [weight for _, weight in chosen]))


@settings(max_examples=25, deadline=None, suppress_health_check=NO_OTHERS)
@given(
    backends=st.one_of(pools(200, st.just(1)), pools(200, st.integers(0, 100)), pools(6, st.sampled_from([0, 1, 65535, 2**31, 2**32 - 1])))
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_kernel_makes_the_ring_of_the_specification(kernel: Kernel, version: int, backends: list[Backend]) -> None:
    kernel.build(untracked(backends, version))

    assert maglev(turns_of(backends), version) == kernel.ring()


@pytest.mark.parametrize("version", [1, 2])
def test_a_ring_begins_as_it_does_in_katran(kernel: Kernel, version: int) -> None:
    kernel.build(untracked(numbered([IPv4Address("10.0.0.1") + number for number in range(3)], [1, 1, 1]), version))

    assert [2, 1, 3, 2, 1, 3, 3, 1, 1, 2, 1, 2, 2, 1, 2, 3] == kernel.ring()[:16]


@pytest.mark.parametrize(("version", "shares"), [(1, (32764, 32773)), (2, (5957, 59580))])
def test_weights_of_one_to_ten_give_the_shares_that_they_give_in_katran(kernel: Kernel, version: int, shares: tuple[int, int]) -> None:
    kernel.build(untracked(numbered([IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")], [1, 10]), version))

    assert shares == (kernel.ring().count(1), kernel.ring().count(2))


@pytest.mark.parametrize("version", [1, 2])
def test_a_full_pool_has_a_ring(kernel: Kernel, version: int) -> None:
    backends = numbered(
        [IPv4Address("10.0.0.0") + number for number in range(POOL_MEMBERS)], [1 + number % 3 for number in range(POOL_MEMBERS)]
    )
    kernel.build(untracked(backends, version))

    assert maglev(turns_of(backends), version) == kernel.ring()
    with pytest.raises(ValueError, match="room for 4096"):
        untracked([*backends, (POOL_MEMBERS + 1, IPv4Address("10.9.9.9"), 1)], version)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("weights", [(2**31, 1), (1, 2**31), (1, 1), (65536, 65535)])
def test_a_backend_that_would_look_for_its_last_slot_for_ever_gets_it(kernel: Kernel, version: int, weights: tuple[int, int]) -> None:
    backends = numbered([NEVER_ENDING, IPv4Address("10.0.0.1")], weights)
    kernel.build(untracked(backends, version))

    assert (7133, 65536) == offset_and_skip(backend_hash(NEVER_ENDING))
    assert maglev(turns_of(backends), version) == kernel.ring()


@settings(max_examples=15, deadline=None, suppress_health_check=NO_OTHERS)
@given(sums=st.lists(st.integers(2**32 - 2**30, 2**32 - 1), min_size=2, max_size=20), version=st.sampled_from([1, 2]))
def test_places_wrap_at_two_to_the_32(kernel: Kernel, sums: list[int], version: int) -> None:
    backends = numbered([IPv4Address("10.0.0.0") + number for number in range(len(sums))], [1] * len(sums))
    turns, data = turns_of(backends), bytearray(untracked(backends, version))
    struct.pack_into("=I", data, PLAN.offsets["listed"], 1)  # as for skips that let places come so far
    for number, (turn, sum_) in enumerate(zip(turns, sums, strict=True)):
        turn.place = sum_
        struct.pack_into("=I", data, PLAN.offsets["turn"] + number * TURN.size + TURN.offsets["sum"], sum_)
    kernel.build(bytes(data))

    assert maglev(turns, version) == kernel.ring()


@attrs.define
class Pool:
    """A pool under change: the same in the kernel and in the model."""

    kernel: Kernel
    slots: Slots
    gone: set[int] = attrs.field(factory=lambda: {0})

    def change(self, weights: Sequence[int], gone: Sequence[bool]) -> None:
        """Every backend gets a new weight, or is gone for good."""
        self.gone |= {member for member, one in enumerate(gone, 1) if one}
        shares = [0 if member in self.gone else weight for member, weight in enumerate(weights, 1)]
        self.kernel.set_states(
            [(member, GONE if member in self.gone else UP if share else DRAINING) for member, share in enumerate(shares, 1)]
        )
        backends = numbered([IPv4Address("10.0.0.0") + number for number in range(len(weights))], shares)
        self.kernel.build(untracked(backends, 2), pool=OTHER_POOL)
        members = self.kernel.ring(OTHER_POOL)
        begin = tick()
        self.kernel.build(plan(POOL, backends, version=2, track=True, hold=HOLD))
        after = self.kernel.slots()
        now = after.until - HOLD

        self.slots = self.slots.merge(members, frozenset(self.gone), now, HOLD)
        assert begin <= now <= tick()
        assert self.slots == after
        assert self.slots.progress(now) == self.kernel.progress

    def pass_time(self, ticks: int, flows: Sequence[int]) -> None:
        """As if so many ticks had passed, at whose end packets of remembered flows came to some slots."""
        self.slots.until = max(0, self.slots.until - ticks)
        self.slots.needed = [max(0, needed - ticks) for needed in self.slots.needed]
        for slot in flows:
            self.slots.needed[slot] = max(self.slots.needed[slot], tick() + FLOW_LIMIT)
        self.kernel.put(self.slots)

    def settle(self) -> None:
        self.kernel.settle()

        now = tick()
        self.slots = self.slots.settle(now)
        assert self.slots == self.kernel.slots()
        assert self.slots.progress(now) == self.kernel.progress


steps = st.lists(
    st.tuples(
        st.lists(st.sampled_from([0, 1, 1, 1, 5]), min_size=8, max_size=8),
        st.lists(st.sampled_from([False, False, False, False, True]), min_size=8, max_size=8),
        st.sampled_from([None, *PAUSES]),
        st.lists(st.integers(0, RING_SIZE - 1), max_size=5),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20, deadline=None, suppress_health_check=NO_OTHERS)
@given(steps=steps)
def test_slots_change_and_settle_as_the_model_says(
    kernel: Kernel, steps: list[tuple[list[int], list[bool], int | None, list[int], bool]]
) -> None:
    zeros = [0] * RING_SIZE
    pool = Pool(kernel, Slots(0, zeros.copy(), zeros.copy(), zeros.copy()))
    kernel.put(pool.slots)
    for weights, gone, pause, flows, settle in steps:
        pool.change(weights, gone)
        if pause is not None:
            pool.pass_time(pause, flows)
        if settle:
            pool.settle()


words = st.tuples(st.integers(0, 4), st.sampled_from([0, MOVING, MOVING | HOLDING])).map(sum)


@settings(max_examples=15, deadline=None, suppress_health_check=NO_OTHERS)
@given(
    kinds=st.lists(st.tuples(words, st.integers(0, 4), st.sampled_from([-500, 500])), min_size=1, max_size=300),
    weights=st.lists(st.sampled_from([0, 1]), min_size=4, max_size=4),
    gone=st.lists(st.booleans(), min_size=4, max_size=4),
    until=st.sampled_from([-500, 500]),
)
def test_slots_in_any_state_become_what_the_model_says(
    kernel: Kernel, kinds: list[tuple[int, int, int]], weights: list[int], gone: list[bool], until: int
) -> None:
    now = tick()
    all_of = [kinds[slot % len(kinds)] for slot in range(RING_SIZE)]
    needed = [max(0, now + rest) for _, _, rest in all_of]
    pool = Pool(kernel, Slots(max(0, now + until), [word for word, _, _ in all_of], [previous for _, previous, _ in all_of], needed))
    kernel.put(pool.slots)
    pool.settle()
    pool.change(weights, gone)


def test_a_pool_whose_slots_are_not_tracked_never_moves(kernel: Kernel) -> None:
    kernel.put(Slots(tick() + HOLD, [1 | MOVING | HOLDING] * RING_SIZE, [2] * RING_SIZE, [0] * RING_SIZE))
    kernel.set_states([(1, UP), (2, UP)])
    backends = numbered([IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")], [1, 1])
    kernel.build(untracked(backends, 2))

    assert maglev(turns_of(backends), 2) == kernel.ring()
    assert kernel.progress == {"moving": 0, "holding": 0}


def test_a_routine_that_is_done_does_nothing_more(kernel: Kernel) -> None:
    backends = numbered([IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")], [1, 1])
    kernel.build(untracked(backends, 2))
    before = kernel.ring()
    kernel.chain.carry_out("elb", [Run("elb_build", most=1), Run("elb_settle", most=1)])

    assert before == kernel.ring()
