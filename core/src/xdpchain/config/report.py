# SPDX-License-Identifier: Apache-2.0
"""What has been found wrong so far, each with its file and line."""

from __future__ import annotations

import attrs

from xdpchain.config.keypath import KeyPath
from xdpchain.config.sources import Document
from xdpchain.errors import ConfigError, Problem


@attrs.define
class Report:
    """Collects problems of one document; places are looked up at the end."""

    document: Document
    errors: list[Problem] = attrs.Factory(list)
    warnings: list[Problem] = attrs.Factory(list)

    def error(self, path: KeyPath, message: str, hint: str = "") -> None:
        """Notes an error."""
        self.errors.append(Problem(path, message, hint))

    def warning(self, path: KeyPath, message: str, hint: str = "") -> None:
        """Notes something that is allowed but looks like a mistake."""
        self.warnings.append(self._placed(Problem(path, message, hint)))

    def add(self, problem: Problem, at: KeyPath | None = None) -> None:
        """Notes an error whose path may stand in no file: `at` is the place that stands for it."""
        self.errors.append(self._placed(problem, at))

    def raise_errors(self) -> None:
        """
        Ends the reading if anything is wrong.

        Raises:
            ConfigError: with all errors, in the order of the files and lines.
        """
        if not self.errors:
            return
        placed = [self._placed(problem) for problem in self.errors]
        files = list(dict.fromkeys([*(source.file for source in self.document.sources), *(problem.file for problem in placed)]))
        raise ConfigError(tuple(sorted(placed, key=lambda problem: (files.index(problem.file), problem.line or 0))))

    def _placed(self, problem: Problem, at: KeyPath | None = None) -> Problem:
        if problem.file:
            return problem
        file, line = self.document.place(problem.path if at is None else at)
        return attrs.evolve(problem, file=file, line=problem.line or line)
