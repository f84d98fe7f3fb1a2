# SPDX-License-Identifier: Apache-2.0
"""What functions are told of the running kernel: the events of tracepoints, and the places of members of its structs."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from xdpchain import Hook, KernelFunction, Program
from xdpchain.bpf.facts import event_struct, facts
from xdpchain.bpf.kernel_types import member_offsets
from xdpchain.bpf.tracefs import EventField, event_fields
from xdpchain.errors import KernelError

EVENT = "sock:inet_sock_set_state"


def asking(fields: tuple[str, ...] = (), offsets: Mapping[str, str] | None = None, event: str = EVENT) -> KernelFunction[Any]:
    @attrs.frozen
    class NoConfig:
        pass

    class Asking(KernelFunction[NoConfig]):
        api = 1
        name = "asking"
        summary = "asks"
        source = Path("asking.bpf.c")
        config = NoConfig
        programs = (Program(Hook.TRACEPOINT, "asking_state", event=event, fields=fields),)

    Asking.offsets = offsets or {}
    return Asking()


def test_the_layout_of_an_event_is_read() -> None:
    fields = event_fields(EVENT)

    assert fields["common_type"] == EventField(0, 2, signed=False, array=False)
    assert (4, True, False) == (fields["newstate"].size, fields["newstate"].signed, fields["newstate"].array)
    assert (16, True) == (fields["saddr_v6"].size, fields["saddr_v6"].array)


def test_fields_stand_where_the_kernel_has_them() -> None:
    fields = {
        "last": EventField(40, 16, signed=False, array=True),
        "state": EventField(16, 4, signed=True, array=False),
        "port": EventField(26, 2, signed=False, array=False),
    }
    assert event_struct("some_event", fields).splitlines() == [
        "struct some_event {",
        "\tu8 xc_before_state[16];",
        "\ts32 state;",
        "\tu8 xc_before_port[6];",
        "\tu16 port;",
        "\tu8 xc_before_last[12];",
        "\tu8 last[16];",
        "} __attribute__((packed, aligned(8)));",
    ]


def test_members_are_found_through_structs_without_a_name() -> None:
    places = member_offsets(["sock.__sk_common", "sock.__sk_common.skc_state", "sock.__sk_common.skc_net", "net.net_cookie"])

    assert places["sock.__sk_common"] == 0
    # between addresses, ports and family, and the flags that follow: so in every kernel since 3.13
    assert 16 < places["sock.__sk_common.skc_state"] < places["sock.__sk_common.skc_net"]
    assert places["net.net_cookie"] % ctypes.sizeof(ctypes.c_uint64) == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (asking(("newstate", "nonsense")), f"tracepoint {EVENT} does not tell nonsense"),
        (asking(("newstate",), event="sock:no_such_event"), "tracepoint sock:no_such_event is not to be found"),
        (asking(offsets={"A": "sock.nonsense"}), "the kernel's struct sock has no nonsense"),
        (asking(offsets={"A": "nonsense.sock"}), "the kernel has no struct nonsense"),
    ],
)
def test_what_this_kernel_does_not_have_is_refused_by_name(function: KernelFunction[Any], message: str) -> None:
    with pytest.raises(KernelError) as caught:
        facts("asking", function)
    assert caught.value.message == f"asking cannot work with this kernel: {message}"


def test_who_asks_for_nothing_gets_no_text() -> None:
    assert facts("asking", asking()) == ""
