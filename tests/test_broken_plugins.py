# SPDX-License-Identifier: Apache-2.0
"""
Plugins that are broken in every way that we could think of, as installed distributions, on a node that carries traffic: each is named with
its error, none keeps another from running, and nothing changes.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import attrs
import pytest
from xdpchain.errors import ExitCode

from core.tests.chain.conftest import Wire
from core.tests.plugins.build import make_plugin
from tests.helpers.broken import HANGING, NOT_APPLIED, NOT_LOADED, TALKING
from tests.helpers.node import Node, node_file
from tests.helpers.standstill import Standing, counts, standing
from tests.helpers.traffic import Sender, marked_frame, syn_frame

RATE = 20
RULE = f"\n[[function.ratelimit.rule]]\nports = [80]\nrate = {RATE}\n"


def file_with(*names: str, metrics: str = "off") -> str:
    """A node's file with more functions in the chain."""
    return node_file({"near": ["ratelimit", "trail", *names]}, {"ratelimit": {"window": "1h"}}, metrics=metrics) + RULE


@attrs.frozen
class Bed:
    """A node under traffic, and what it is before anything fails."""

    node: Node
    sender: Sender
    before: Standing


@pytest.fixture
def bed(here: Node, wire: Wire) -> Iterator[Bed]:
    """A running node with all the broken plugins installed."""
    for name, one in {**NOT_LOADED, **NOT_APPLIED, **TALKING}.items():
        make_plugin(here.plugins, name, one.python, one.c, entry=one.entry)
    here.configure(file_with())
    here.start()
    with Sender("far", [marked_frame(), syn_frame(80)]) as sender:
        yield Bed(here, sender, standing(here))


def check_traffic_went_on(bed: Bed) -> None:
    """Every frame since the start passed the chain, and the limit that it meets is the old one."""
    rounds = bed.sender.stop()
    found = counts(bed.node)

    assert bed.node.running
    assert rounds > RATE
    assert rounds == found["near", "trail", "NEXT", "marked"]
    assert RATE == found["near", "ratelimit", "NEXT", "admitted"]
    assert rounds - RATE == found["near", "ratelimit", "DROP", "rate_exceeded"]


def test_plugins_that_cannot_be_loaded_are_named_and_the_others_work(bed: Bed) -> None:
    told = {one["name"]: one["error"] for one in bed.node.data("plugins", code=ExitCode.PLUGIN)["broken"]}
    logged = {event["plugin"]: event for event in bed.node.events("plugin_broken")}
    wrong = {}
    for name, one in NOT_LOADED.items():
        texts = [told[name]["message"], logged[name]["error"]]
        if not all(word in text for word in one.says for text in texts) or not told[name]["hint"]:
            wrong[name] = texts

    assert {} == wrong
    assert NOT_LOADED.keys() == told.keys() == logged.keys()
    check_traffic_went_on(bed)


def test_a_chain_that_needs_a_plugin_that_was_not_loaded_is_refused_with_the_reason(bed: Bed) -> None:
    wrong = {}
    for name, one in NOT_LOADED.items():
        bed.node.configure(file_with(name))
        text = bed.node.command("apply", code=one.code)
        if not all(word in text for word in (f'no instance or function is called "{name}"', f"hint: plugin '{name}': ", *one.says)):
            wrong[name] = text

    assert {} == wrong
    assert "" == bed.before.changes(standing(bed.node))
    check_traffic_went_on(bed)


def test_a_plugin_that_cannot_be_run_fails_its_apply_and_nothing_changes(bed: Bed) -> None:
    wrong = {}
    for name, one in NOT_APPLIED.items():
        bed.node.configure(file_with(name))
        try:
            text = bed.node.command("apply", code=one.code)
        except AssertionError as error:
            wrong[name] = str(error)
            continue
        if not all(word in text for word in (name, *one.says)) or "\nhint: " not in text:
            wrong[name] = text
        if changed := bed.before.changes(standing(bed.node)):
            wrong[name] = changed

    assert {} == wrong
    check_traffic_went_on(bed)


def test_a_compilation_that_does_not_end_is_stopped_and_nothing_changes(bed: Bed) -> None:
    make_plugin(bed.node.plugins, "hanging", HANGING.python, HANGING.c)
    bed.node.end()
    bed.node.start(XDPCHAIN_COMPILE_TIMEOUT="1")
    before = standing(bed.node)
    bed.node.configure(file_with("hanging"))

    text = bed.node.command("apply", code=HANGING.code)

    assert "hanging" in text
    assert HANGING.says[0] in text
    assert "" == before.changes(standing(bed.node))
    check_traffic_went_on(bed)


def test_plugins_that_fail_when_asked_keep_nobody_else_from_answering(bed: Bed) -> None:
    bed.node.configure(file_with(*TALKING, metrics="127.0.0.1:9978"))
    bed.node.command("apply")
    with urllib.request.urlopen("http://127.0.0.1:9978/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    failed = {event["instance"]: event["error"] for event in bed.node.events("plugin_failed")}

    assert re.search(r'^xdpchain_ratelimit_connections_total\{.*result="admitted".*\} \d+', metrics, re.MULTILINE)
    assert "xdpchain_status_raises_listed_ports" in metrics
    for name, one in TALKING.items():
        text = bed.node.command("show", name, code=one.code)
        said = text if one.code else failed[name]
        assert all(word in said for word in one.says), f"{name}: {said}"
    assert bed.node.command("show", "ratelimit")
    bed.node.configure(file_with())
    bed.node.command("apply")
    check_traffic_went_on(bed)
