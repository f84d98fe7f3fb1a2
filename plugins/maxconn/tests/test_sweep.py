# SPDX-License-Identifier: Apache-2.0
"""What a sweep repairs, and what is not counted at all."""

from __future__ import annotations

import socket
import time

import pytest
from xdpchain_maxconn.limits import places
from xdpchain_maxconn.tables import EPOCH_SHIFT, EPOCHS, no_count

from plugins.maxconn.tests.conftest import Serve
from plugins.maxconn.tests.helpers import PORT, Bed, Server, until

LIMIT = {"ports": [PORT], "max": 1000}


def settle(bed: Bed, count: int) -> None:
    """Wait until the kernel has so many connections."""
    until(lambda: bed.established() == count, bed.established)


def test_a_sweep_where_nothing_was_missed_changes_nothing(serve: Serve) -> None:
    bed = serve(LIMIT)
    bed.dial(50)
    settle(bed, 50)

    bed.agree((0, 0, 50), (bed.sweep(), bed.drift(), bed.count()))


def test_events_that_were_missed_are_repaired_by_one_sweep_and_told(serve: Serve) -> None:
    bed = serve(LIMIT)
    before = bed.dial(100)
    settle(bed, 100)
    with bed.deaf():
        bed.dial(70)
        bed.hang_up(before[:30])
        settle(bed, 140)
        bed.agree([100], [bed.count()])
    bed.sweep()

    bed.agree((140, 100), (bed.count(), bed.drift()))
    # the reservations of those that came unseen go later: nothing says that they were for these
    assert bed.sweep() == 0

    bed.hang_up(list(bed.clients))
    settle(bed, 0)
    bed.agree([0], [bed.count()])


def test_connections_that_are_open_when_a_limit_appears_are_counted_by_the_first_sweep(serve: Serve) -> None:
    bed = serve({"ports": [81], "max": 5})
    bed.dial(20)
    settle(bed, 20)
    bed.apply({"ports": [81], "max": 5}, {"ports": [PORT], "max": 21})
    bed.sweep()
    bed.agree((0, 20), (bed.count(0), bed.count(1)))

    bed.dial(5)
    settle(bed, 21)
    assert bed.count(1) == 21


def test_connections_move_to_the_limit_that_they_concern_now(serve: Serve) -> None:
    bed = serve(LIMIT, {"max": 2000})
    bed.dial(20)
    settle(bed, 20)
    bed.agree((20, 20), (bed.count(0), bed.count(1)))

    bed.apply({"address": bed.node.end.ipv4, "ports": [PORT], "max": 20, "source_max": 20}, {"max": 2000})
    bed.sweep()
    bed.agree((20, 20), (bed.count(0), bed.count(1)))

    bed.apply({"ports": [81], "max": 20})
    bed.sweep()
    assert (0, 0) == (bed.count(0), len(bed.node.maps("maxconn")["mc_flows"]))


def test_a_count_that_is_wrong_is_set_right(serve: Serve) -> None:
    bed = serve({**LIMIT, "source_max": 500})
    bed.dial(20)
    settle(bed, 20)
    maps = bed.node.maps("maxconn")
    ((id_, place),) = places(maps).items()
    maps["mc_limits"].put(place, {"id": id_, "count": {**no_count(), "established": 7}})
    ((source, _),) = maps["mc_sources"].items()
    maps["mc_sources"].put(source, {**no_count(), "established": 900})
    bed.sweep()

    ((_, counted),) = maps["mc_sources"].items()
    assert (20, 20) == (bed.count(), counted["established"])


def test_a_source_without_connections_is_forgotten(serve: Serve) -> None:
    bed = serve({**LIMIT, "source_max": 500})
    fresh = bed.dial(5)
    settle(bed, 5)
    bed.hang_up(fresh)
    settle(bed, 0)
    until(lambda: bed.row()["half-open"] == 0, bed.row)
    bed.sweep()

    assert len(bed.node.maps("maxconn")["mc_sources"]) == 0


def test_a_reservation_is_held_while_the_kernel_waits_and_given_back_when_it_does_not(serve: Serve) -> None:
    bed = serve({"ports": [PORT, 81], "max": 1000}, handshake="1s")
    bed.syn(77, 5000)
    bed.syn(77, 5000)
    bed.dial(port=81)
    until(lambda: bed.row()["half-open"] == 2, bed.row)

    # nobody listens on 81; the handshake on 80 is waited for
    until(lambda: bed.sweep() or bed.row()["half-open"] == 1, bed.row, 5)
    until(lambda: bed.row()["half-open"] == 1, bed.row)
    time.sleep(1.1)
    assert (0, 1) == (bed.sweep(), bed.row()["half-open"])


def test_reservations_go_by_themselves_where_nobody_sweeps(serve: Serve) -> None:
    bed = serve(LIMIT)
    maps = bed.node.maps("maxconn")
    ((id_, place),) = places(maps).items()
    epoch = time.monotonic_ns() >> EPOCH_SHIFT
    words = [0] * EPOCHS
    for age in (EPOCHS - 1, EPOCHS, EPOCHS + 1):
        words[(epoch - age) % EPOCHS] = max(epoch - age, 0) << 32 | 1000
    maps["mc_limits"].put(place, {"id": id_, "count": {"established": 0, "reserved": words}})
    assert bed.row()["half-open"] == 1000
    words[(epoch + 1) % EPOCHS] = 0
    maps["mc_limits"].put(place, {"id": id_, "count": {"established": 0, "reserved": words}})

    assert bed.row()["half-open"] == 0
    bed.dial()
    settle(bed, 1)


@pytest.mark.parametrize("outgoing", [False, True])
def test_outgoing_connections_count_only_if_asked_for(serve: Serve, outgoing: bool) -> None:
    bed = serve({"max": 1000}, outgoing=outgoing)
    there = Server(bed.node.client_namespace, [2000])
    with bed.node.namespace.entered():
        mine = socket.create_connection((bed.node.client.ipv4, 2000))
    for _ in range(2):
        bed.agree([outgoing], [bed.count()])
        bed.sweep()
    bed.agree([0], [bed.drift()])
    mine.close()
    there.close()


def test_connections_within_the_node_count_where_there_is_a_limit_for_them(serve: Serve) -> None:
    bed = serve(LIMIT)
    other = Server(bed.node.namespace, [90])
    with bed.node.namespace.entered():
        mine = [socket.create_connection(("127.0.0.1", port)) for port in (PORT, 90, 90)]
    for _ in range(2):
        assert (1, 1) == (bed.count(), len(bed.node.maps("maxconn")["mc_flows"]))
        bed.sweep()
    for one in mine:
        one.close()
    other.close()


def test_connections_of_other_namespaces_are_not_counted(serve: Serve) -> None:
    bed = serve({"max": 1000})
    other = Server(bed.node.client_namespace)
    with bed.node.client_namespace.entered(), socket.create_connection(("127.0.0.1", PORT)):
        assert bed.count() == 0
        bed.sweep()
        assert bed.count() == 0
    other.close()


def test_more_connections_than_there_is_room_for_are_told(serve: Serve) -> None:
    bed = serve(LIMIT, connections=1024)
    assert list(bed.warnings()) == []
    bed.apply({"ports": [PORT], "source_max": 1024}, connections=1024)
    with bed.node.namespace.entered():
        mine = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(1030)]

    assert "is full or was" in "".join(bed.warnings())
    assert bed.count() <= 1024
    for one in mine:
        one.close()
