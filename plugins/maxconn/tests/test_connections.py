# SPDX-License-Identifier: Apache-2.0
"""Real connections between namespaces: what counts, and that there are never more than may be."""

from __future__ import annotations

import socket

import pytest

from plugins.maxconn.tests.conftest import Serve
from plugins.maxconn.tests.helpers import Churn, until


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4-mapped", "IPv6"])
def test_as_many_connections_come_in_as_may_be_and_one_more_when_one_has_gone(serve: Serve, family: int) -> None:
    bed = serve({"ports": [80], "max": 3})
    bed.dial(5, family=family)
    until(lambda: bed.established() == 3 == bed.count(), lambda: (bed.established(), bed.row()))
    assert (3, 0, 3, 2) == tuple(bed.row()[name] for name in ("open", "half-open", "admitted", "refused"))

    bed.server.drop(next(iter(bed.server.open)))
    bed.hang_up(bed.clients[:3])
    until(lambda: bed.established() == 2 == bed.count(), lambda: (bed.established(), bed.row()))
    bed.witnessed(2, 3, 5)


def test_of_thousands_of_connections_at_once_exactly_as_many_are_established_as_may_be(serve: Serve) -> None:
    bed = serve({"ports": [80], "max": 1000})
    bed.dial(3000)
    until(lambda: bed.established() == 1000, bed.established)
    bed.witnessed(1000, 1000, 1000)

    open_ones = [one for one in bed.clients if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and _is_open(one)]
    assert len(open_ones) == 1000
    bed.hang_up(open_ones[:500])
    bed.hang_up(open_ones[500:900], reset=True)
    until(lambda: bed.server.accepted == 1900, lambda: (bed.server.accepted, bed.row()))
    until(lambda: bed.established() == 1000, bed.established)
    bed.sweep()
    assert bed.count() == 1000
    bed.witnessed(1000, 1000, 1900)


def _is_open(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("action", ["reset", "drop"])
def test_the_most_that_are_ever_established_under_churn_is_the_limit(serve: Serve, action: str) -> None:
    most = 200
    bed = serve({"ports": [80], "max": most, "action": action})
    targets = [(socket.AF_INET, bed.node.end.ipv4), (socket.AF_INET6, bed.node.end.ipv6)]
    churns = [Churn(bed.node.client_namespace, targets, 400, seed) for seed in (1, 2)]
    try:
        # not by the witness: reading its map makes it miss events
        until(lambda: bed.server.accepted >= 3000, lambda: (bed.server.accepted, bed.row()))
    finally:
        for churn in churns:
            churn.stop()
    until(lambda: bed.established() == 0, bed.established)
    _, highest, opened = bed.witness
    print(f"\n{opened} connections, at most {highest} at a time; refused: {bed.row()['refused']}; events missed: {bed.missed()}")

    bed.witnessed(0, most, opened)
    bed.sweep()
    assert bed.count() == 0
