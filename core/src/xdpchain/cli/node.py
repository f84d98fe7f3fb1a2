# SPDX-License-Identifier: Apache-2.0
"""Reading a node's file in the client, with the functions that are installed here."""

from __future__ import annotations

from pathlib import Path

from xdpchain.config import NodeConfig, load
from xdpchain.errors import ConfigError
from xdpchain.plugins import Plugins, load_plugins


def read_node(config: Path) -> tuple[NodeConfig, Plugins]:
    """
    The configuration and the plugins.

    Raises:
        ConfigError: with all problems; those that come from a broken plugin say so.
    """
    plugins = load_plugins()
    try:
        return load(config, plugins.functions), plugins
    except ConfigError as error:
        raise plugins.explain(error) from None
