# SPDX-License-Identifier: Apache-2.0
"""The config room: node files in, a valid `NodeConfig` or all of their problems out; and the words that config classes are written in."""

from xdpchain.config.jsonschema import json_schema
from xdpchain.config.keypath import key_path
from xdpchain.config.loader import load, loads
from xdpchain.config.markdown import reference
from xdpchain.config.misfit import MisfitError, nearest, quoted
from xdpchain.config.model import MAX_CHAIN, InstanceConfig, InterfaceConfig, NodeConfig, NodeSettings, OnError, XdpMode
from xdpchain.config.option import option
from xdpchain.config.textfile import TextFile
from xdpchain.config.values import (
    Duration,
    IPAddress,
    IPNetwork,
    MACAddress,
    Percent,
    Port,
    PortRange,
    duration,
    parse_address,
    parse_network,
    show_duration,
)

__all__ = [
    "MAX_CHAIN",
    "Duration",
    "IPAddress",
    "IPNetwork",
    "InstanceConfig",
    "InterfaceConfig",
    "MACAddress",
    "MisfitError",
    "NodeConfig",
    "NodeSettings",
    "OnError",
    "Percent",
    "Port",
    "PortRange",
    "TextFile",
    "XdpMode",
    "duration",
    "json_schema",
    "key_path",
    "load",
    "loads",
    "nearest",
    "option",
    "parse_address",
    "parse_network",
    "quoted",
    "reference",
    "show_duration",
]
