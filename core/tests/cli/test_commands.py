# SPDX-License-Identifier: Apache-2.0
"""The commands where no daemon runs: what they print, and how they end."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from xdpchain.cli import _installed, main
from xdpchain.cli.builtin import COMMANDS
from xdpchain.daemon.main import main as daemon_main
from xdpchain.daemon.main import unit_file
from xdpchain.errors import ExitCode

from core.tests.cli.conftest import Run
from core.tests.plugins.build import LIMITER, make_plugin


def test_every_module_of_a_command_is_hooked_in(run: Run) -> None:
    text = run("--help").stdout

    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run: Run, name: str) -> None:
    text = run(name, "--help").stdout

    assert text.startswith(f"Usage: xdpchain {name}")
    assert len(text.splitlines()[2].strip()) > 20


def test_a_good_file_is_good(run: Run) -> None:
    assert "t0: limiter\n" in run("check").stdout
    assert json.loads(run("check", "--json").stdout)["instances"] == {"limiter": "limiter"}


def test_all_problems_of_a_file_are_told_with_place_and_hint(run: Run, node: Path) -> None:
    node.write_text('[interface.t0]\nchain = ["limiterr"]\n\n[function.limiter]\nrooom = 5\nports = ["x"]\n')

    text = run("check", code=ExitCode.CONFIG).stderr

    assert f'{node}:2: interface.t0.chain[0]: no instance or function is called "limiterr"\n    hint: did you mean "limiter"?' in text
    assert f"{node}:5: function.limiter.rooom: " in text
    assert f"{node}:6: function.limiter.ports[0]: " in text
    assert text.endswith("error: 3 errors in the configuration\n")


def test_errors_are_data_too(run: Run, node: Path) -> None:
    node.write_text("[node]\non_error = 5\n")

    result = run("check", "--json", code=ExitCode.CONFIG)

    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == ExitCode.CONFIG
    assert error["problems"][0]["path"] == ["node", "on_error"]
    assert error["problems"][0]["line"] == 2
    assert result.stderr == ""


@pytest.mark.parametrize(
    "command", [["apply"], ["reload"], ["rollback"], ["put", "limiter", "list", "/dev/null"], ["show", "limiter"], ["metrics"]]
)
def test_what_needs_a_daemon_says_that_none_runs(run: Run, command: list[str]) -> None:
    text = run(*command, code=ExitCode.DAEMON).stderr

    assert text.startswith("error: xdpchaind is not running (nobody listens at ")
    assert "hint: start it: systemctl start xdpchaind" in text


def test_status_without_a_daemon_tells_what_the_kernel_carries(run: Run) -> None:
    assert "no chain runs" in run("status", code=ExitCode.DAEMON).stdout
    data = json.loads(run("status", "--json", code=ExitCode.DAEMON).stdout)
    assert (data["daemon"], data["places"]) == (None, [])


def test_a_plan_without_a_daemon_makes_nothing(run: Run, bpffs: Path) -> None:
    data = json.loads(run("plan", "--json").stdout)

    assert data["waiting"] == ["t0"]
    assert not (bpffs / "xdpchain").exists()


def test_unload_asks_before_it_removes(run: Run) -> None:
    assert "Remove all chains and their state under" in run("unload", code=1, typed="n\n").output
    assert run("unload", "--yes").stdout == "there was nothing\n"


def test_plugins_are_listed_with_what_they_bring(run: Run) -> None:
    text = run("plugins").stdout

    assert text.splitlines()[0].split() == ["PLUGIN", "DISTRIBUTION", "FUNCTION", "HOOKS", "SUMMARY"]
    assert "limiter-dist 1.0" in text
    assert "drops UDP packets to listed ports" in text


def test_a_broken_plugin_is_told_with_its_traceback_in_json(run: Run, tmp_path: Path) -> None:
    make_plugin(tmp_path / "plugins", "sick", "1 / 0")

    assert "broken  plugin 'sick': cannot be imported" in run("plugins", code=ExitCode.PLUGIN).stdout
    (broken,) = json.loads(run("plugins", "--json", code=ExitCode.PLUGIN).stdout)["broken"]
    assert 'sick.py", line 1' in broken["error"]["details"]


def test_the_schema_has_the_functions_of_plugins(run: Run) -> None:
    assert "limiter" in json.loads(run("schema").stdout)["properties"]["function"]["properties"]
    assert "limiter" in run("schema", "--markdown").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_the_shells(run: Run, shell: str) -> None:
    assert "_XDPCHAIN_COMPLETE" in run("completion", shell).stdout


def test_completion_completes(run: Run) -> None:
    environment = {**os.environ, "_XDPCHAIN_COMPLETE": "bash_complete", "COMP_WORDS": "xdpchain sta", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from xdpchain.cli import main; main(prog_name='xdpchain')"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "plain,status\n"


def test_a_plugin_brings_a_command_and_cannot_take_a_name_that_is_taken(run: Run, tmp_path: Path) -> None:
    hook = """
import click
@click.command()
def hello(): click.echo("hello from a plugin")
@click.command()
def status(): click.echo("not this one")
@xdpchain.hookimpl
def xdpchain_commands(): return [hello, status]
"""
    make_plugin(tmp_path / "plugins", "chatty", LIMITER + hook)
    _installed.cache_clear()
    try:
        result = run("hello")
        assert result.stdout == "hello from a plugin\n"
        assert "plugin 'chatty': there is another command 'status'" in result.stderr
        assert "no chain runs" in run("status", code=ExitCode.DAEMON).stdout
    finally:
        _installed.cache_clear()


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    assert "No such command 'nonsense'" in run("nonsense", code=ExitCode.USAGE).stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = "pyroute2", "structlog", "prometheus_client", "scapy", "bcc", "asyncio"
    script = (
        "import sys; from click.testing import CliRunner; from xdpchain.cli import main;"
        f"before = set(sys.modules); CliRunner().invoke(main, ['--help']); print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_the_unit_file_starts_this_program(tmp_path: Path) -> None:
    text = unit_file(tmp_path / "xdpchaind")

    assert f"ExecStart={tmp_path}/xdpchaind\n" in text
    assert f"ExecReload={tmp_path}/xdpchain reload\n" in text
    assert "/usr/bin" not in text
    assert "Type=notify" in CliRunner().invoke(daemon_main, ["--systemd-unit"]).stdout


def test_systemd_accepts_the_unit_file(tmp_path: Path) -> None:
    """Where systemd is, its own checker finds nothing either."""
    unit = tmp_path / "xdpchaind.service"
    for program in ("xdpchaind", "xdpchain"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    unit.write_text(unit_file(tmp_path / "xdpchaind"))
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.read(unit)

    assert ["Unit", "Service", "Install"] == parsed.sections()

    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

        assert done.stderr == ""


def test_versions_are_the_same() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == CliRunner().invoke(daemon_main, ["--version"]).stdout
