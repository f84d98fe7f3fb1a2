# SPDX-License-Identifier: Apache-2.0
"""A function that is itself wrong is reported as its plugin's fault, never as the user's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from xdpchain.config import loads, option
from xdpchain.errors import ConfigError, PluginError, Problem
from xdpchain.function import API_VERSION, KernelFunction

from core.tests.config.example import LimitConfig, MarkConfig


@attrs.frozen(kw_only=True)
class PathConfig:
    file: Path = option(default=Path("/"), help="A type that no file can hold.")


def _divide(_: Any, __: attrs.Attribute[int], value: int) -> None:
    _ = 1 // value


@attrs.frozen(kw_only=True)
class ValidatorConfig:
    level: int = option(default=1, validator=_divide, help="A validator with a bug.")


@attrs.frozen(kw_only=True)
class WholeConfig:
    low: int = option(default=1, help="Below high.")
    high: int = option(default=2, help="Above low.")

    def __attrs_post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError("low must be below high")


class _Function(KernelFunction[Any]):
    api = API_VERSION
    name = "odd"
    summary = "A function with a bug."
    source = Path("odd.bpf.c")
    config: ClassVar[type[Any]] = MarkConfig
    programs = ()


class _RaisingCheck(_Function):
    def check(self, config: Any) -> Iterable[Problem]:
        yield Problem(("level",), "is bad")
        raise RuntimeError("out of cheese")


class _WordyCheck(_Function):
    def check(self, config: Any) -> Any:
        return ["level is bad"]


class _PathFunction(_Function):
    config = PathConfig


class _ValidatorFunction(_Function):
    config = ValidatorConfig


class _WholeFunction(_Function):
    config = WholeConfig


class _SternCheck(_Function):
    config = LimitConfig

    def check(self, config: Any) -> Iterable[Problem]:
        yield Problem(("rule",), "needs a rule", "write one")


@pytest.mark.parametrize(
    ("function", "table", "says"),
    [
        (_RaisingCheck(), {}, "its check() raised RuntimeError: out of cheese"),
        (_WordyCheck(), {}, "its check() raised"),
        (_PathFunction(), {}, "its config class raised TypeError: a config class cannot hold"),
        (_ValidatorFunction(), {"level": 0}, "its config class raised ZeroDivisionError"),
    ],
)
def test_a_broken_function_is_its_plugins_fault(function: KernelFunction[Any], table: dict[str, Any], says: str) -> None:
    with pytest.raises(PluginError) as raised:
        loads({"function": {"odd": table}}, {"odd": function})

    assert raised.value.plugin == "odd"
    assert says in str(raised.value)
    assert "Traceback" in raised.value.details
    assert raised.value.hint


def test_a_broken_function_without_a_table_is_its_plugins_fault_too() -> None:
    with pytest.raises(PluginError, match=r"its check\(\) raised"):
        loads({"interface": {"eth0": {"chain": ["odd"]}}}, {"odd": _RaisingCheck()})


def test_a_class_may_refuse_a_table_as_a_whole() -> None:
    with pytest.raises(ConfigError) as raised:
        loads("[function.odd]\nlow = 3\n", {"odd": _WholeFunction()})

    (problem,) = raised.value.problems
    assert (problem.path, problem.message, problem.line) == (("function", "odd"), "low must be below high", 1)


def test_a_problem_of_an_instance_without_a_table_stands_where_the_chain_lists_it() -> None:
    with pytest.raises(ConfigError) as raised:
        loads('[interface.eth0]\nchain = [\n  "odd",\n]\n', {"odd": _SternCheck()})

    (problem,) = raised.value.problems
    assert (problem.path, problem.message, problem.line) == (("function", "odd", "rule"), "needs a rule", 3)
