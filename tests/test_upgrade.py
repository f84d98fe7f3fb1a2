# SPDX-License-Identifier: Apache-2.0
"""A plugin's package is replaced by another version and the daemon started again, under millions of frames a second: none is lost."""

from __future__ import annotations

from xdpchain.errors import ExitCode

from tests.helpers.bed import NUMBERS, Bed, under_fire
from tests.helpers.distribution import install, trail_files
from tests.helpers.traffic import signature

CHAIN = "abc"
CHANGES = {
    "source": ("trail.bpf.c", "*at = *number;", "*at = *number + 100;"),
    "schema": ("trail.py", "room: int = option(default=1,", "room: int = option(default=2,"),
}


def upgrade(bed: Bed, version: str, *changes: str) -> None:
    """Replace the package by a version with some changes."""
    files = trail_files()
    for change in changes:
        file, old, new = CHANGES[change]
        assert old in files[file]
        files[file] = files[file].replace(old, new)
    install(bed.node.plugins, "trail", files, version=version)


def test_a_new_source_replaces_the_old_one_and_every_frame_sees_one_of_them(bed: Bed) -> None:
    bed.write(CHAIN)
    bed.node.start()
    bed.configured.add(signature(NUMBERS[name] + 100 for name in CHAIN))
    with under_fire(bed):
        assert bed.passing() == {(1, 2, 3)}
        upgrade(bed, "2.0", "source")
        bed.node.ask("apply")
        assert bed.passing() == {(1, 2, 3)}, "old Python and new C do not mix"
        bed.node.end()
        assert bed.passing() == {(1, 2, 3)}
        bed.node.start()
        assert bed.passing() == {(101, 102, 103)}
        upgrade(bed, "3.0")
        bed.node.end()
        bed.node.start()
        assert bed.passing() == {(1, 2, 3)}
    bed.check_nothing_strays(CHAIN)
    (trail,) = [one for one in bed.node.status()["plugins"]["loaded"] if one["name"] == "trail"]
    assert trail["version"] == "3.0"


def test_a_new_schema_starts_with_empty_maps_and_loses_no_frame_and_nobody_elses_state(bed: Bed) -> None:
    bed.write(CHAIN)
    bed.node.start()
    with under_fire(bed):
        bed.passing()
    counted = bed.counted()
    seen = bed.map("a").get(0)
    assert seen == sum(counted.values())
    upgrade(bed, "2.0", "schema")
    bed.node.end()
    bed.node.start()

    assert bed.counted() == counted
    assert bed.map("a").get(0) is None
    with under_fire(bed):
        upgrade(bed, "3.0", "schema", "source")
        bed.configured.add(signature(NUMBERS[name] + 100 for name in CHAIN))
        bed.node.end()
        bed.node.start()
        assert bed.passing() == {(101, 102, 103)}
    bed.check_nothing_strays(CHAIN)


def test_a_broken_new_version_is_refused_and_the_chain_goes_on(bed: Bed) -> None:
    bed.write(CHAIN)
    bed.node.start()
    with under_fire(bed):
        install(bed.node.plugins, "trail", {**trail_files(), "trail.py": "raise ImportError('half an upgrade')\n"}, version="2.0")
        bed.node.end()
        bed.node.spawn()
        assert bed.node.wait() == ExitCode.CONFIG
        assert "half an upgrade" in bed.node.last_words()
        assert bed.runs() == tuple(CHAIN)
        upgrade(bed, "3.0")
        bed.node.start()
        assert bed.runs() == tuple(CHAIN)
    bed.check_nothing_strays(CHAIN)
