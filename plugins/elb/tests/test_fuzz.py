# SPDX-License-Identifier: Apache-2.0
"""A short run of what `tox -e fuzz` does for minutes: mutated packets, each judged, all of them counted."""

from __future__ import annotations

import pytest
from xdpchain.testing import LoadChain
from xdpchain_elb.function import Elb

from plugins.elb.tests.fuzz.run import BATCH, CHANGE_EVERY, Fuzz, not_reached, told
from plugins.elb.tests.fuzz.seeds import MTUS, REACHED, document


@pytest.mark.parametrize("mtu", MTUS)
def test_whatever_comes_in_what_goes_out_is_right_and_counted(load_chain: LoadChain, mtu: int) -> None:
    fuzz = Fuzz(load_chain(document(mtu), functions=[Elb()]), mtu, seed=1)
    account = fuzz.account

    for account in fuzz.run(BATCH * (CHANGE_EVERY + 5)):
        assert not account.faults, told(account)

    limited = {"too_big_limited"} if mtu > min(MTUS) else set()  # there is hardly a frame that does not fit
    assert set() == not_reached(account.reasons, REACHED) - limited
