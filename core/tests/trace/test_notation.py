# SPDX-License-Identifier: Apache-2.0
"""scapy's notation on a command line: what it may say, and that nothing in it is ever run."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.packets import PacketError
from xdpchain.packets.notation import dissect, frame_of, packets

MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
SOURCE_4, SOURCE_6 = "192.0.2.1", "2001:db8::1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may look a name up or send a packet."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the notation reached for the network")

    resolve = socket.getaddrinfo

    def numbers_only(host: str, *arguments: Any, **options: Any) -> Any:
        ipaddress.ip_address(host)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    monkeypatch.setattr(socket, "gethostbyname", refuse)
    monkeypatch.setattr("scapy.layers.l2.getmacbyip", refuse)
    monkeypatch.setattr("scapy.layers.inet6.getmacbyip6", refuse)


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ('Ether()/IP(dst="10.0.0.1")/TCP(dport=80,flags="S")', IP(src=SOURCE_4, dst="10.0.0.1") / TCP(dport=80, flags="S")),
        ('IP(dst="10.0.0.1")/UDP()', IP(src=SOURCE_4, dst="10.0.0.1") / UDP()),
        (' IPv6(dst="2001:db8::2", tc=0x2e) ', IPv6(src=SOURCE_6, dst="2001:db8::2", tc=0x2E)),
        ('Dot1Q(vlan=5)/IP(src="1.2.3.4")/UDP()/Raw(b"x" * 3)', Dot1Q(vlan=5) / IP(src="1.2.3.4") / UDP() / b"xxx"),
        ('IP()/TCP(options=[("MSS", 1460), ("NOP", None)])', IP(src=SOURCE_4) / TCP(options=[("MSS", 1460), ("NOP", None)])),
        ('IP()/UDP()/b"hello"', IP(src=SOURCE_4) / UDP() / b"hello"),
        ('IP()/UDP()/(2 * "ab")', IP(src=SOURCE_4) / UDP() / b"abab"),
        ('ARP(pdst="10.0.0.7")', ARP(hwsrc=MACS["src"], psrc=SOURCE_4, pdst="10.0.0.7")),
    ],
)
def test_a_notation_makes_the_packet_that_scapy_would(text: str, packet: Packet) -> None:
    (made,) = packets(text)

    assert frame_of(made) == bytes(Ether(**MACS) / packet)


def test_lists_ranges_and_prefixes_make_a_packet_for_each_value() -> None:
    made = list(packets('IP(dst="10.0.0.0/31")/TCP(dport=[80, (443, 444)])'))

    assert [(one[IP].dst, one[TCP].dport) for one in made] == [(f"10.0.0.{host}", port) for host in (0, 1) for port in (80, 443, 444)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("Ether(", "cannot be read"),
        ("(" * 300, "cannot be read"),
        ("Ether() if 1 else 2", "is not allowed here"),
        ("__import__('os').system('touch ran')", "is not allowed here"),
        ("Ether().__class__", "is not allowed here"),
        ("(lambda: open('ran', 'w'))()", "is not allowed here"),
        ("[open('ran', 'w') for _ in 'x']", "is not allowed here"),
        ('exec(\'open("ran", "w")\')', "no layer 'exec'"),
        ("open('ran', 'w')", "no layer 'open'"),
        ("fuzz(IP())", "no layer 'fuzz'"),
        ("Packet()", "no layer 'Packet'"),
        ("sniff()", "no layer 'sniff'"),
        ("IP(src=RandIP())", "no layer 'RandIP'"),
        ("Ether(post_transform=1)", "no field 'post_transform'"),
        ("Ether(_pkt=b'')", "no field '_pkt'"),
        ("Ether(**{})", "no field '**'"),
        ("Ether(*[1])", "is not allowed here"),
        ("IP(b'x', b'y')", "takes fields by name"),
        ("IP(7)", "takes fields by name"),
        ("IP(ttl='a')", "does not take these values"),
        ("TCP(dport=70000)", "does not take these values"),
        ("IP(dst='example.com')", "is no address"),
        ("IP(dst=['10.0.0.1', 'example.com'])", "is no address"),
        ("Ether(dst='router')", "is no address"),
        ("ARP(pdst='router')", "is no address"),
        ("IPv6(src='fe80::1.example')", "is no address"),
        ("ICMP(gw='router')", "is no address"),
        ("IP()/1", "`/` puts"),
        ("b'x'/IP()", "`/` puts"),
        ("b'x' * 70000", "makes 70000 bytes"),
        ("b'x' * 3", "not a packet"),
        ("7", "not a packet"),
        ("IP() * 3", "repeats bytes"),
        ("f'{IP()}'", "is not allowed here"),
    ],
)
def test_anything_else_is_refused_in_words_and_not_run(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PacketError) as caught:
        list(packets(text))

    assert words in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "hint"), [("Ehter()", "did you mean Ether?"), ("IP(scr=1)", "did you mean 'src'?")])
def test_a_slip_is_answered_with_the_nearest_name(text: str, hint: str) -> None:
    with pytest.raises(PacketError) as caught:
        packets(text)

    assert caught.value.hint == hint


def test_without_scapy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scapy", None)

    with pytest.raises(PacketError) as caught:
        packets("Ether()")
    assert "xdpchain[trace]" in caught.value.hint


def test_a_frame_of_bytes_is_that_frame() -> None:
    assert frame_of(b"as it is") == b"as it is"
    assert frame_of(Raw(b"as it is")) == b"as it is"


def test_what_a_packet_says_stays_and_the_packet_itself_too() -> None:
    packet = Ether(dst="02:00:00:00:00:aa") / IP(src="1.2.3.4")
    before = dict(packet.fields)

    frame = dissect(frame_of(packet))

    assert (frame.dst, frame.src, frame[IP].src) == ("02:00:00:00:00:aa", MACS["src"], "1.2.3.4")
    assert packet.fields == before
