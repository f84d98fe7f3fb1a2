# SPDX-License-Identifier: Apache-2.0
"""What the documentation takes from the code is what the code says now."""

from __future__ import annotations

import subprocess
import sys

from docs.generate import shipped
from tests.docs.markdown import ROOT


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_plugin_of_this_repository_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "configuration.md").read_text()

    assert "ratelimit" in shipped()
    assert all(f"`[function.{name}]`" in reference for name in shipped())
