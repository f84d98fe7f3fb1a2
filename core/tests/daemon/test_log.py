# SPDX-License-Identifier: Apache-2.0
"""Events have fixed names, and each is in the table."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import xdpchain.daemon
from xdpchain.daemon import log as events
from xdpchain.errors import ConfigError, Problem

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged() -> set[str]:
    """The event names in the daemon's source: the first arguments of calls of a logger's methods, and of `_refuse`."""
    names: set[str] = set()
    for path in Path(xdpchain.daemon.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS | {"_refuse"}:
                names.update(
                    argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                )
    return names


def test_every_event_that_is_logged_is_in_the_table_and_the_other_way_round() -> None:
    assert logged() == set(events.EVENTS)


def test_names_are_snake_case_and_meanings_are_told() -> None:
    assert all(name.replace("_", "").islower() and meaning for name, meaning in events.EVENTS.items())


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_json_is_the_form_where_no_terminal_is() -> None:
    stream = io.StringIO()
    events.set_up(stream=stream)

    events.get_logger().info("ready", socket=Path("/run/x"))

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["socket"]) == ("ready", "info", "/run/x")


def test_a_traceback_is_data_in_json() -> None:
    stream = io.StringIO()
    events.set_up("json", stream)
    try:
        raise ValueError("oh")
    except ValueError:
        events.get_logger().exception("internal_error")

    line = json.loads(stream.getvalue())
    assert line["exception"][0]["exc_type"] == "ValueError"


def test_the_console_form_is_for_reading() -> None:
    stream = io.StringIO()
    events.set_up("console", stream)

    events.get_logger().warning("unloaded", removed=["x"])

    assert "unloaded" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_each_problem_of_a_configuration_is_an_event() -> None:
    stream = io.StringIO()
    events.set_up("json", stream)

    events.config_problems(events.get_logger(), ConfigError((Problem(("a", 0), "x", "h", "f", 1), Problem((), "y"))))

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["key"], first["line"], first["problem"], first["hint"]) == ("config_problem", "a[0]", 1, "x", "h")
    assert second["problem"] == "y"
