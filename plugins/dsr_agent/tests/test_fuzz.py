# SPDX-License-Identifier: Apache-2.0
"""A short run of what `tox -e fuzz` does for minutes: mutated packets through each program, each judged."""

from __future__ import annotations

import pytest
from xdpchain.testing import LoadChain
from xdpchain_dsr_agent import DsrAgent

from plugins.dsr_agent.tests.fuzz.run import BATCH, WAYS, Fuzz, Way, document, missing, told


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_whatever_comes_in_what_goes_on_is_right(load_chain: LoadChain, way: Way) -> None:
    fuzz = Fuzz(load_chain(document(way.side), functions=[DsrAgent()]), way, seed=1)
    account = fuzz.account

    for account in fuzz.run(6 * BATCH):
        assert not account.faults, told(account, way)

    assert account.changed > BATCH / 4
    assert set() == missing(account, way)
