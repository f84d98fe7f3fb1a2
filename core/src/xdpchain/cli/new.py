# SPDX-License-Identifier: Apache-2.0
"""`xdpchain new`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command(no_args_is_help=True)
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to; new or empty.  [default: xdpchain-NAME]")
def new(name: str, directory: Path | None) -> None:
    """
    Write the repository of a new function.

    It is a small function that works: it drops packets that come from listed prefixes, has tests, and can be installed at once. Make it yours
    from there; the guide is docs/writing-a-function.md.
    """
    from xdpchain.template import FILES, fault_of, render

    if fault := fault_of(name):
        raise click.BadParameter(fault, param_hint="NAME")
    target = directory or Path(f"xdpchain-{name}")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise click.UsageError(f"{target} is no directory")
    if target.is_dir() and any(target.iterdir()):
        raise click.UsageError(f"{target} is not empty: choose another place with --directory")
    try:
        _write(render(name), target)
    except OSError as error:
        raise click.UsageError(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"made {target} ({len(FILES)} files); its tests, as root:")
    click.echo(f"    cd {target} && pip install -e '.[test]' && pytest")


def _write(files: dict[str, str], target: Path) -> None:
    """All files or none: they are written beside the target, which then takes the name."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, text in files.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
