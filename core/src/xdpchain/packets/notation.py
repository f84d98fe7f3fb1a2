# SPDX-License-Identifier: Apache-2.0
"""
Packets in scapy's notation, and the only importer of scapy.

The notation comes from a command line, so it is not run as Python: it is parsed, and only layers, `/`, and plain values have a meaning.
Nothing in it may make scapy ask the network, which it does for a name in place of an address and for MAC addresses that are left out.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xdpchain.packets import PacketError

if TYPE_CHECKING:
    from scapy.packet import Packet

MAX_LENGTH = 65_535
"""bytes or characters that a repetition (`b"x" * 100`) may make"""

SOURCES: Mapping[str, Mapping[str, str]] = {
    "Ether": {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"},
    "IP": {"src": "192.0.2.1"},
    "IPv6": {"src": "2001:db8::1"},
    "ARP": {"hwsrc": "02:00:00:00:00:01", "psrc": "192.0.2.1"},
}
"""what stands in for fields that are left out and that scapy would take from the machine that it runs on"""

_COMMON = ("packet", "layers.l2", "layers.inet", "layers.inet6", "layers.vxlan", "layers.sctp", "layers.dns")
_EVERYTHING = "all"
_ADDRESSES = {"psrc", "pdst", "hwsrc", "hwdst"}
"""fields of ARP, whose types are not those of other addresses"""
_COMPLETE = {"Ether", "Dot3", "Raw"}
"""layers that are a whole frame's beginning"""


def packets(text: str) -> Iterable[Packet]:
    """
    The packets of a notation such as `Ether()/IP(dst="10.0.0.1")/TCP(dport=[80, 443])`: one, or one for each value of a list.

    Raises:
        PacketError: it is no notation, or scapy is not installed.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _unclear(f"the packet cannot be read: {reason}") from error
    packet = _Evaluation(_scapy()).value(tree)
    if not _is_packet(packet):
        raise _unclear("this is a plain value, not a packet")
    known: Iterable[Packet] = _known(packet)
    return known


def frame_of(packet: Packet | bytes) -> bytes:
    """
    The frame that a packet is; bytes are one already.

    What is left out of the packet is taken from `SOURCES`, so that the frame is the same on every machine. An Ethernet header is put in
    front where the packet begins with another layer.
    """
    return bytes(packet) if isinstance(packet, bytes | bytearray | memoryview) else bytes(_known(packet))


def dissect(frame: bytes) -> Packet:
    """A frame as scapy's layers."""
    layer: Packet = _layer_of(_scapy())("Ether")(frame)
    return layer


def _scapy() -> Callable[[str], Any]:
    """Imports a module of scapy."""
    try:
        importlib.import_module("scapy")
    except ImportError as error:
        raise PacketError("scapy is not installed", hint="pip install 'xdpchain[trace]'; captures (--pcap) are read without it") from error
    return lambda name: importlib.import_module(f"scapy.{name}")


def _layer_of(scapy: Callable[[str], Any]) -> Callable[[str], Any]:
    """Finds layers by name. All of scapy takes a second to import: only when a layer is not a common one."""
    base = scapy("packet").Packet

    def is_layer(found: Any) -> bool:
        return isinstance(found, type) and issubclass(found, base) and found is not base

    def find(name: str) -> Any:
        for module in (*_COMMON, _EVERYTHING):
            if is_layer(found := getattr(scapy(module), name, None)):
                return found
        known = [other for module in _COMMON for other, found in vars(scapy(module)).items() if is_layer(found)]
        near = difflib.get_close_matches(name, known, 1)
        raise _unclear(f"scapy has no layer {name!r}", f"did you mean {near[0]}?" if near else "")

    return find


def _known(packet: Packet) -> Packet:
    """A copy that begins with an Ethernet header, and whose fields do not depend on this machine or its network."""
    copy = packet.copy()
    if type(copy).__name__ not in _COMPLETE:
        copy = _layer_of(_scapy())("Ether")() / copy
    layer = copy
    while layer:
        for field, value in SOURCES.get(type(layer).__name__, {}).items():
            if field not in layer.fields:
                layer.setfieldval(field, value)
        layer = layer.payload
    return copy


class _Evaluation:
    """The value of an expression, as far as one of its kind has a meaning here."""

    def __init__(self, scapy: Callable[[str], Any]) -> None:
        self._layer_of = _layer_of(scapy)
        fields = scapy("fields")
        self._address_fields = (fields.IPField, fields.IP6Field, fields.MACField)

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | bytes() | None):
                return node.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List() | ast.Tuple():
                items = [self.value(item) for item in node.elts]
                return items if isinstance(node, ast.List) else tuple(items)
            case ast.BinOp(op=ast.Div()):
                return self._stacked(self.value(node.left), self.value(node.right))
            case ast.BinOp(op=ast.Mult()):
                return _repeated(self.value(node.left), self.value(node.right))
            case ast.Call(func=ast.Name(id=name)):
                return self._layer(name, node)
        raise _unclear(f"{ast.unparse(node)!r} is not allowed here")

    def _stacked(self, below: Any, above: Any) -> Any:
        if not _is_packet(below) or not (_is_packet(above) or isinstance(above, bytes | str)):
            raise _unclear("`/` puts a layer, or bytes, onto a layer")
        return below / above

    def _layer(self, name: str, node: ast.Call) -> Any:
        layer = self._layer_of(name)
        fields = {field.name: field for field in layer.fields_desc}
        values = {}
        for keyword in node.keywords:
            field = keyword.arg or "**"
            if field not in fields:
                near = difflib.get_close_matches(field, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(fields) or 'none'}"
                raise _unclear(f"{name} has no field {field!r}", hint)
            values[field] = self.value(keyword.value)
            if field in _ADDRESSES or isinstance(_innermost(fields[field]), self._address_fields):
                _check_addresses(name, field, values[field])
        load = [self.value(argument) for argument in node.args]
        if load and not (len(load) == 1 and isinstance(load[0], bytes | str)):
            raise _unclear(f"{name}(...) takes fields by name, or the bytes of the whole layer")
        try:
            built = layer(*load, **values)
            bytes(_known(built))
        except PacketError:
            raise
        except Exception as error:
            raise _unclear(f"{name} does not take these values: {str(error).partition(chr(10))[0]}") from error
        return built


def _is_packet(value: Any) -> bool:
    return hasattr(value, "fields_desc")


def _innermost(field: Any) -> Any:
    """The field itself, without what says when it is there or how it looks."""
    while hasattr(field, "fld"):
        field = field.fld
    return field


def _check_addresses(layer: str, field: str, value: Any) -> None:
    """Addresses must be addresses: scapy would look a name up."""
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, str) and not _is_address(one):
            raise _unclear(f"{layer}: {field} = {one!r} is no address", "names are not looked up: write the address")


def _is_address(text: str) -> bool:
    pairs = text.split(":")
    if len(pairs) == 6 and all(len(pair) == 2 and not set(pair) - set("0123456789abcdefABCDEF") for pair in pairs):
        return True
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _repeated(left: Any, right: Any) -> Any:
    text, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(text, bytes | str) or not isinstance(times, int) or isinstance(times, bool):
        raise _unclear('`*` repeats bytes or text: b"x" * 100')
    if len(text) * times > MAX_LENGTH:
        raise _unclear(f"`*` makes {len(text) * times} bytes", f"{MAX_LENGTH} at most")
    return text * times


def _unclear(message: str, hint: str = "") -> PacketError:
    return PacketError(message, hint=hint or 'for example: Ether()/IP(dst="10.0.0.1")/TCP(dport=80, flags="S")')
