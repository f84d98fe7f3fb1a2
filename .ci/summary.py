# SPDX-License-Identifier: Apache-2.0
"""Add up the results that pytest left in each tox environment (JUnit XML) and close the run as pytest closes one."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

WIDTH = 100


def main() -> None:
    """Print one line for each environment and one for all of them."""
    folder, seconds, status = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    total: dict[str, int] = {}
    for file in sorted(folder.glob("*.xml")):
        counts = count(file)
        print(f"{file.stem:>12}: {words(counts)}")
        for outcome, number in counts.items():
            total[outcome] = total.get(outcome, 0) + number
    verdict = f"tox ended with {status}, " if status else ""
    print(f" {verdict}{words(total)} in {seconds:.2f}s ".center(WIDTH, "="))


def count(file: Path) -> dict[str, int]:
    """How many tests ended how."""
    counts = {"failed": 0, "passed": 0, "skipped": 0, "errors": 0}
    for suite in ET.parse(file).getroot().iter("testsuite"):
        failed, skipped, errors = (int(suite.get(name, 0)) for name in ("failures", "skipped", "errors"))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["errors"] += errors
        counts["passed"] += int(suite.get("tests", 0)) - failed - skipped - errors
    return counts


def words(counts: dict[str, int]) -> str:
    """Say it as pytest does: only what happened, passed always."""
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number or outcome == "passed") or "no tests ran"


if __name__ == "__main__":
    main()
