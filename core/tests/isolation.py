# SPDX-License-Identifier: Apache-2.0
"""Namespaces of the test process's own: a network with nothing but loopback, and mounts that nobody else sees."""

from __future__ import annotations

import os
import subprocess

import pytest
from xdpchain.testing.namespace import enter_new_namespaces


def leave_the_machine_alone() -> None:
    """Move this process into new namespaces; they end with it, and so does whatever a test left there."""
    if os.geteuid() != 0:
        pytest.exit("the tests load programs into the kernel: run them as root", returncode=4)
    enter_new_namespaces()
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
