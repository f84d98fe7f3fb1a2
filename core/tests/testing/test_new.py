# SPDX-License-Identifier: Apache-2.0
"""The command `xdpchain new`. What it writes is tested as it stands here, and under another name in tests/template."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from xdpchain import template
from xdpchain.cli import main
from xdpchain.errors import ExitCode


def new(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["new", *arguments])


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDPCHAIN_LOAD_PLUGINS", "")
    return tmp_path


def test_the_template_itself_passes_its_tests(tmp_path: Path) -> None:
    """In a process of its own: its plugin is announced there, and its namespaces are not ours."""
    here = Path(template.__file__).parent
    info = tmp_path / "xdpchain_geoblock-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xdpchain-geoblock\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[xdpchain]\ngeoblock = xdpchain_geoblock\n")
    begin = f"import sys; sys.path[:0] = {[str(tmp_path), str(here / 'src')]}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-W", "error", "-p", "no:cacheprovider", "-c", str(here / "pyproject.toml"), f"--rootdir={here}", str(here / "tests")]

    done = subprocess.run(
        [sys.executable, "-B", "-c", begin, *options],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )

    assert done.returncode == 0, done.stdout


def test_a_repository_of_five_files_is_written_and_the_next_step_said(somewhere: Path) -> None:
    done = new("portguard")

    assert done.exit_code == 0
    files = [path for path in (somewhere / "xdpchain-portguard").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert "cd xdpchain-portguard && pip install -e '.[test]' && pytest" in done.output


@pytest.mark.parametrize("name", ["x", "eth", "port_guard", "a" * 32, "a1__b_"])
def test_the_name_stands_wherever_the_templates_name_stood(name: str, somewhere: Path) -> None:
    new(name, "--directory", "deep/er")

    for path in (somewhere / "deep/er").rglob("*"):
        assert "geoblock" not in str(path).lower()
        if path.is_file():
            text = path.read_text()
            assert "geoblock" not in text.lower()
            if path.suffix == ".py":
                compile(text, str(path), "exec")
    assert f"verdict {name}(struct xdp_md" in (somewhere / f"deep/er/src/xdpchain_{name}/{name}.bpf.c").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Geo", "is no name for a function"),
        ("geo-block", "is no name for a function"),
        ("9lives", "is no name for a function"),
        ("", "is no name for a function"),
        ("../evil", "is no name for a function"),
        ("a" * 33, "is no name for a function"),
        ("lambda", "is a word of Python"),
        ("match", "is a word of Python"),
        ("volatile", "is a word of C"),
        ("u32", "is a word of C"),
        ("drop", "means something else where xdpchain.h is included"),
        ("packet", "means something else where xdpchain.h is included"),
        ("verdict", "its class would be called Verdict"),
        ("load_byte", "means something else where xdpchain.h is included"),
        ("map", "its class would be called Map"),
        ("none", "its class would be called None"),
        ("packet_parse", "means something else where xdpchain.h is included"),
    ],
)
def test_a_name_that_cannot_work_is_refused_in_words(name: str, words: str, somewhere: Path) -> None:
    done = new("--", name)

    assert done.exit_code == ExitCode.USAGE
    assert words in done.output
    assert list(somewhere.iterdir()) == []


def test_a_name_that_is_installed_is_refused(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (somewhere / "lib/xdpchain_taken").mkdir(parents=True)
    (somewhere / "lib/xdpchain_taken/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(somewhere / "lib"))

    assert "xdpchain_taken is installed here" in new("taken").output


def test_an_empty_directory_is_filled_and_another_one_left_alone(somewhere: Path) -> None:
    (somewhere / "empty").mkdir()
    (somewhere / "full").mkdir()
    (somewhere / "full/mine").write_text("mine")
    (somewhere / "file").write_text("mine")

    done = [new("portguard", "--directory", name) for name in ("empty", "full", "file")]

    assert [one.exit_code for one in done] == [0, ExitCode.USAGE, ExitCode.USAGE]
    assert "full is not empty" in done[1].output
    assert [path.name for path in (somewhere / "full").iterdir()] == ["mine"]
    assert (somewhere / "file").read_text() == "mine"


def test_a_failure_leaves_nothing_half_written(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(path: Path, *_: object, **__: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.touch()

    monkeypatch.setattr(Path, "write_text", full)

    done = new("portguard")

    assert done.exit_code == ExitCode.USAGE
    assert "No space left on device" in done.output
    assert list(somewhere.iterdir()) == []
