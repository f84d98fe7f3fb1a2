# SPDX-License-Identifier: Apache-2.0
"""`xdpchain put` with the files of two functions on one node: each is written for itself, and what the other does is left alone."""

from __future__ import annotations

import os

import pytest

from core.tests.chain.conftest import Wire
from tests.helpers.node import Node

NODE = """\
[node]
metrics = "off"

[interface.near]
chain = ["elb", "dsr_agent"]
side = "network"

[function.elb]
source = ["10.0.13.37"]
next_hop = "02:00:00:00:00:01"
vips = "elb.vips"

[function.dsr_agent]
accept_from = ["10.0.13.0/24"]
services = "dsr.services"
flow_table = 1024
"""
TEXTS = {
    "elb.vips": ("vip 10.200.1.1:443 tcp\n  10.0.0.1\n", "vip 10.200.1.1:443 tcp\n  10.0.0.1\n  10.0.0.2\n", "vip 10.200.1.1:443 sctp\n"),
    "dsr.services": (
        "vip 10.200.1.2:443 tcp 10.1.0.5\n",
        "vip 10.200.1.2:443 tcp 10.1.0.5\nvip 10.200.1.3:443 tcp 10.1.0.6\n",
        "vip 10.200.1.2:443 tcp 10.200.1.2\n",
    ),
}
"""What is there at first, what is put, and what is refused."""
KEYS = {"elb.vips": ("elb", "vips"), "dsr.services": ("dsr_agent", "services")}


@pytest.fixture
def ran(here: Node, wire: Wire) -> Node:
    here.configure(NODE)
    for name, (text, *_) in TEXTS.items():
        (here.file.parent / name).write_text(text)
    here.start()
    return here


def texts(node: Node) -> dict[str, str]:
    return {name: (node.file.parent / name).read_text() for name in TEXTS}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_one_function_is_exchanged(ran: Node, name: str) -> None:
    _, new, bad = TEXTS[name]
    before = texts(ran)
    os.utime(ran.file.parent / name, ns=(1, 1))
    (ran.base / "new").write_text(new)
    (ran.base / "bad").write_text(bad)

    refusal = ran.command("put", *KEYS[name], str(ran.base / "bad"), code=3)

    assert f"{name}:1" in refusal
    assert before == texts(ran)
    assert 1 == (ran.file.parent / name).stat().st_mtime_ns

    plan = ran.data("put", *KEYS[name], str(ran.base / "new"))

    assert [("configure", KEYS[name][0])] == [(action["action"], action["subject"]) for action in plan["actions"]]
    assert {**before, name: new} == texts(ran)
    assert sorted([*TEXTS, "node.toml"]) == sorted(path.name for path in ran.file.parent.iterdir())
    ran.command("rollback")
    (first_table, *_) = ran.ask("show", instance=KEYS[name][0], seconds=0)["tables"]
    assert 1 == len({row[0] for row in first_table["rows"]})
