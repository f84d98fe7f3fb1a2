# SPDX-License-Identifier: Apache-2.0
"""Where in the files a problem stands that was found long after they were read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from xdpchain.config.sources import Source, files_of, merge, read
from xdpchain.errors import Problem


def placed(node_file: Path, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with file and line, in the order in which they stand there. A problem that names its file keeps it."""
    if not problems:
        return []
    files, _ = files_of(node_file)
    document, _ = merge([source for source in map(read, files) if isinstance(source, Source)])
    found = []
    for problem in problems:
        file, line = (problem.file, problem.line) if problem.file else document.place(problem.path)
        found.append(attrs.evolve(problem, file=file, line=line))
    order = [str(file) for file in files]
    return sorted(found, key=lambda one: (order.index(one.file) if one.file in order else len(order), one.line or 0))
