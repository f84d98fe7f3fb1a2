# SPDX-License-Identifier: Apache-2.0
"""Plugins through real entry points: good ones load, broken ones are named and harm nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdpchain.config import loads
from xdpchain.daemon.view import plugins_data
from xdpchain.errors import ConfigError
from xdpchain.plugins import BrokenPlugin, Plugins, load_plugins

from core.tests.plugins.build import LIMITER, LIMITER_C, make_plugin


def broken(plugins: Plugins, name: str) -> BrokenPlugin:
    (one,) = [one for one in plugins.broken if one.name == name]
    return one


def test_a_good_plugin_is_loaded_with_its_distribution(folder: Path) -> None:
    make_plugin(folder, "good", version="2.5")

    plugins = load_plugins()

    (loaded,) = [one for one in plugins.loaded if one.name == "good"]
    assert (loaded.dist, loaded.version, loaded.functions) == ("good-dist", "2.5", ("good",))
    assert plugins.functions["good"].summary == "drops UDP packets to listed ports"


def test_plugins_are_asked_in_the_order_of_their_names(folder: Path) -> None:
    names = [f"one_{letter}" for letter in "ecadbf"]
    for name in names:
        make_plugin(folder, name)

    asked = [name for name, _ in load_plugins().each("xdpchain_commands") if name in names]

    assert sorted(names) == asked


BREAKAGES = {
    "exception_on_import": ("import nothing_of_this_name", "cannot be imported", "ModuleNotFoundError"),
    "error_on_import": ("1 / 0", "cannot be imported", "ZeroDivisionError"),
    "exit_on_import": ("import sys; sys.exit(3)", "cannot be imported", "SystemExit: 3"),
    "base_exception_on_import": ("raise GeneratorExit", "cannot be imported", "GeneratorExit"),
    "syntax_error": ("def f(:", "cannot be imported", "SyntaxError"),
    "hook_that_raises": (
        LIMITER.replace("return [NAME()]", "raise ValueError('no')"),
        "its hook xdpchain_functions failed",
        "ValueError: no",
    ),
    "hook_with_other_arguments": (
        LIMITER.replace("def xdpchain_functions():", "def xdpchain_functions(color):"),
        "does not fit the hooks",
        "color",
    ),
    "hook_that_is_none": (
        LIMITER.replace("def xdpchain_functions():", "def xdpchain_function():"),
        "has a hook that this version does not know",
        "xdpchain_function",
    ),
    "no_function": (LIMITER.replace("[NAME()]", "['limiter']"), "which is no KernelFunction", "'limiter'"),
    "class_for_object": (LIMITER.replace("[NAME()]", "[NAME]"), "announces the class", "class_for_object"),
    "no_api": (LIMITER.replace("    api = 1\n", ""), "does not say which API", ""),
    "newer_api": (LIMITER.replace("api = 1", "api = 2"), "was written for API 2, this core has 1", ""),
    "older_api": (LIMITER.replace("api = 1", "api = 0"), "was written for API 0, this core has 1", ""),
    "no_summary": (LIMITER.replace("    summary =", "    Summary ="), "has no attribute 'summary'", ""),
    "bad_name": (LIMITER.replace('name = "NAME"', 'name = "My-Func"'), "'My-Func' is no name for a function", ""),
    "source_missing": (LIMITER.replace("NAME.bpf.c", "gone.bpf.c"), "gone.bpf.c is not there", ""),
    "config_not_attrs": (LIMITER.replace("    config = Config", "    config = dict"), "is no attrs class", "dict"),
    "no_programs": (LIMITER.replace('(Program(Hook.XDP, "NAME"),)', "()"), "has no programs", ""),
    "only_routines": (LIMITER.replace("Hook.XDP", "Hook.ROUTINE"), "has no programs for a hook", ""),
    "event_on_routine": (
        LIMITER.replace('Program(Hook.XDP, "NAME")', 'Program(Hook.XDP, "NAME"), Program(Hook.ROUTINE, "work", event="a:b")'),
        "has the event 'a:b'",
        "",
    ),
    "bad_entry": (LIMITER.replace('Program(Hook.XDP, "NAME")', 'Program(Hook.XDP, "a b")'), "'a b' is no name of a C function", ""),
    "event_on_xdp": (LIMITER.replace('Program(Hook.XDP, "NAME")', 'Program(Hook.XDP, "NAME", event="a:b")'), "has the event 'a:b'", ""),
    "bad_reason": (LIMITER.replace('Reason("listed"', 'Reason("Is-Listed"'), "is no good reason", "Is-Listed"),
    "reason_twice": (
        LIMITER.replace('(Reason("listed", "the port is listed"),)', '(Reason("a", ""), Reason("a", ""))'),
        "the reason 'a' is there twice",
        "",
    ),
    "announced_twice": (LIMITER.replace("[NAME()]", "[NAME(), NAME()]"), "announces function 'announced_twice' twice", ""),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_plugin_is_named_with_its_error_and_the_others_load(folder: Path, name: str) -> None:
    python, says, also = BREAKAGES[name]
    make_plugin(folder, name, python)
    make_plugin(folder, "zz_good")

    plugins = load_plugins()

    error = broken(plugins, name).error
    assert error.plugin == name
    assert says in error.message
    assert also in error.message
    assert error.hint
    assert name not in plugins.functions
    assert "zz_good" in plugins.functions


def test_a_function_may_have_several_routines_beside_its_program(folder: Path) -> None:
    routines = 'Program(Hook.ROUTINE, "build"), Program(Hook.ROUTINE, "sweep")'
    make_plugin(folder, "worker", LIMITER.replace('Program(Hook.XDP, "NAME")', f'Program(Hook.XDP, "NAME"), {routines}'))

    plugins = load_plugins()

    assert () == tuple(plugins.broken)
    hooks = {function["name"]: function["hooks"] for plugin in plugins_data(plugins)["loaded"] for function in plugin["functions"]}
    assert ["xdp"] == hooks["worker"]


def test_an_entry_point_to_nothing_is_a_broken_plugin(folder: Path) -> None:
    make_plugin(folder, "no_module", entry="not_there_at_all")
    make_plugin(folder, "no_object", entry="no_object:not_there")

    plugins = load_plugins()

    assert "No module named 'not_there_at_all'" in broken(plugins, "no_module").error.message
    assert "not_there" in broken(plugins, "no_object").error.message


def test_a_function_that_another_plugin_announced_breaks_the_later_one_and_names_both(folder: Path) -> None:
    make_plugin(folder, "first")
    make_plugin(folder, "second", LIMITER.replace('name = "NAME"', 'name = "first"'))

    plugins = load_plugins()

    assert broken(plugins, "second").error.message == "plugin 'second': function 'first' is already announced by plugin first (first-dist)"
    assert "first" in plugins.functions


def test_two_distributions_with_one_entry_point_are_told_apart(folder: Path) -> None:
    make_plugin(folder, "same")
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xdpchain]\nsame = same\n")

    error = broken(load_plugins(), "same").error

    assert "another distribution has a plugin of this name" in error.message


def test_the_variable_restricts_what_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plugin(folder, "one")
    make_plugin(folder, "two", "1 / 0")
    monkeypatch.setenv("XDPCHAIN_LOAD_PLUGINS", "one")

    plugins = load_plugins()

    assert [one.name for one in plugins.loaded] == ["one"]
    assert plugins.broken == ()


def test_an_empty_variable_loads_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plugin(folder, "one")
    monkeypatch.setenv("XDPCHAIN_LOAD_PLUGINS", "")

    assert load_plugins().functions == {}


def test_an_unknown_name_in_the_variable_is_reported_with_the_nearest_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plugin(folder, "ratelimiter")
    monkeypatch.setenv("XDPCHAIN_LOAD_PLUGINS", "ratelimitter")

    error = broken(load_plugins(), "ratelimitter").error

    assert error.hint == "did you mean 'ratelimiter'?"


@pytest.mark.parametrize("path", [".", "loose.py"])
def test_code_that_others_can_write_is_not_even_imported(folder: Path, path: str) -> None:
    make_plugin(folder, "loose", "import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    (folder / path).chmod(0o777)

    error = broken(load_plugins(), "loose").error

    assert "can be written by others than root (mode 0777)" in error.message
    assert error.hint.endswith(f"chmod go-w {folder / path}")
    assert not (folder / "ran").exists()


def test_a_source_that_others_can_write_breaks_a_package(folder: Path) -> None:
    make_plugin(folder, "packaged")
    package = folder / "pack"
    package.mkdir(mode=0o755)
    (package / "__init__.py").write_text(LIMITER.replace("NAME", "packaged"))
    (package / "packaged.bpf.c").write_text(LIMITER_C.replace("NAME", "packaged"))
    (folder / "packaged_dist-1.0.dist-info" / "entry_points.txt").write_text("[xdpchain]\npackaged = pack\n")
    (package / "packaged.bpf.c").chmod(0o666)

    assert "packaged.bpf.c can be written by others" in broken(load_plugins(), "packaged").error.message


def test_a_config_that_needs_a_broken_plugin_says_why_it_is_broken(folder: Path) -> None:
    make_plugin(folder, "sadly", "1 / 0")
    plugins = load_plugins()
    with pytest.raises(ConfigError) as caught:
        loads('[interface.eth0]\nchain = ["sadly"]\n', plugins.functions)

    (problem,) = plugins.explain(caught.value).problems

    assert "division by zero" in problem.hint


def test_hooks_are_called_plugin_by_plugin(folder: Path) -> None:
    hook = "\n@xdpchain.hookimpl\ndef xdpchain_doctor():\n    {}\n"
    make_plugin(folder, "healthy", LIMITER + hook.format("return [1]"))
    make_plugin(folder, "raising", LIMITER + hook.format("raise OSError('ill')"))
    make_plugin(folder, "silent")

    answers = dict(load_plugins().each("xdpchain_doctor", config=None))

    assert answers["healthy"] == [1]
    assert "OSError: ill" in answers["raising"].message
    assert answers["silent"] == []
