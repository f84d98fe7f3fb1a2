# SPDX-License-Identifier: Apache-2.0
"""The version of the installed distribution."""

from importlib import metadata


def version() -> str:
    """As in `pip list`; "unknown" where the package is used without being installed."""
    try:
        return metadata.version("xdpchain")
    except metadata.PackageNotFoundError:
        return "unknown"
