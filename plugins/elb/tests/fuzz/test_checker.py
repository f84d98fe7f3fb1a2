# SPDX-License-Identifier: Apache-2.0
"""The judge of the mutated packets: it lets right frames through, made by scapy, and finds every bit that is wrong."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from xdpchain.testing.frames import bytes_of, error_of, link_of, mend

from plugins.elb.tests.fuzz.checker import ANSWERED, DROP, ENCAPSULATED, PASS, TX, Checker, WrongError
from plugins.elb.tests.fuzz.seeds import BACKENDS4, BACKENDS6, CLIENT4, GUE_PORT, NETWORKS, NEXT_HOP, OURS, ROUTER, SOURCE4, SOURCE6, seeds

MTU = 1500
JUDGE = Checker(
    networks=NETWORKS,
    backends=frozenset(ip_address(one).packed for one in (*BACKENDS4, *BACKENDS6)),
    sources=frozenset(ip_address(one).packed for one in (SOURCE4, SOURCE6)),
    next_hop=NEXT_HOP,
    gue_port=GUE_PORT,
    mtu=MTU,
)
INNER = {
    "tcp": IP(src=CLIENT4, dst="10.200.1.1", tos=0x5B) / TCP(sport=1, dport=80) / Raw(b"odd"),
    "udp without checksum": IP(src=CLIENT4, dst="10.200.1.1", tos=0x5B) / UDP(sport=1, dport=443, chksum=0) / Raw(b"odd"),
    "wrong checksum": IP(src=CLIENT4, dst="10.200.1.1", tos=0x5B) / TCP(sport=1, dport=80, chksum=77) / Raw(b"odd"),
    "ipv6": IPv6(src="2001:db8:c::7", dst="2001:db8:200::1", tc=0x5B) / UDP(sport=1, dport=443) / Raw(b"odd"),
}


def outer(inner: Packet, family: int, *, gue: bool) -> Packet:
    """What the inner packet is behind, its checksum over what is there."""
    nothing = 4 if inner.version == 4 else 41
    proto = 17 if gue else nothing
    if family == 4:
        ip: Packet = IP(src=SOURCE4 if gue else "172.16.9.9", dst=BACKENDS4[0], tos=0x5B, id=0, proto=proto)
    else:
        ip = IPv6(src=SOURCE6 if gue else "100::9:9", dst=BACKENDS6[0], tc=0x5B, nh=proto)
    return ip / UDP(sport=7, dport=GUE_PORT) if gue else ip


def frame(mac: str, *layers: Packet) -> bytes:
    whole: Packet = Ether(src=OURS, dst=mac) / Dot1Q(vlan=5, type=0x86DD if layers[0].version == 6 else 0x0800)
    for layer in layers:
        whole /= layer
    return bytes(whole)


WAYS = [(kind, family, gue) for kind in INNER for family in (4, 6) for gue in (False, True) if (kind, family, gue) != ("ipv6", 4, False)]


@pytest.mark.parametrize(("kind", "family", "gue"), WAYS)
def test_what_is_right_is_let_through_and_no_wrong_bit_is(kind: str, family: int, gue: bool) -> None:
    inner = INNER[kind]
    sent = bytes(Ether(src=ROUTER, dst=OURS) / Dot1Q(vlan=5) / inner)
    got = frame(NEXT_HOP.hex(":"), outer(inner, family, gue=gue), Raw(bytes(inner)))
    of_the_client = set() if gue else set(range(32, 34) if family == 4 else range(38, 42))  # where IPIP has it; other tests know how

    assert ENCAPSULATED == JUDGE.check(sent, TX, got)

    for at in set(range(len(got))) - of_the_client:
        wrong = bytearray(got)
        wrong[at] ^= 0x10
        assert_wrong(sent, wrong)


def assert_wrong(sent: bytes, got: bytes | bytearray) -> None:
    with pytest.raises(WrongError):
        JUDGE.check(sent, TX, bytes(got))


@pytest.mark.parametrize("gue", [False, True])
def test_what_is_longer_than_the_way_allows_is_wrong(gue: bool) -> None:
    def way(size: int) -> tuple[bytes, bytes]:
        inner = IP(src=CLIENT4, dst="10.200.1.1", tos=0x5B) / TCP(sport=1, dport=80) / Raw(bytes(size))
        sent = bytes(Ether(src=ROUTER, dst=OURS) / Dot1Q(vlan=5) / inner)
        return sent, frame(NEXT_HOP.hex(":"), outer(inner, 4, gue=gue), Raw(bytes(inner)))

    most = MTU - 40 - (28 if gue else 20)

    assert ENCAPSULATED == JUDGE.check(way(most)[0], TX, way(most)[1])
    assert_wrong(*way(most + 1))


def test_verdicts_other_than_these_are_wrong_and_what_passes_is_not_changed() -> None:
    sent = seeds()[0]

    assert "" == JUDGE.check(sent, PASS, sent)
    assert "" == JUDGE.check(sent, DROP, b"")
    with pytest.raises(WrongError, match="passed, but changed"):
        JUDGE.check(sent, PASS, sent + b"\0")
    for verdict in (0, 4):
        with pytest.raises(WrongError, match="the verdict"):
            JUDGE.check(sent, verdict, sent)


def test_answers_are_judged_bit_by_bit() -> None:
    ping = Ether(src=ROUTER, dst=OURS) / IP(src=CLIENT4, dst="10.200.1.1") / ICMP(id=1, seq=2) / Raw(b"ping")
    pong = bytes(Ether(src=OURS, dst=ROUTER) / IP(src="10.200.1.1", dst=CLIENT4) / ICMP(type=0, id=1, seq=2) / Raw(b"ping"))
    large = IP(src=CLIENT4, dst="10.200.1.1") / TCP(sport=1, dport=80) / Raw(bytes(1450))
    error = bytes(
        Ether(src=OURS, dst=ROUTER)
        / IP(src="10.200.1.1", dst=CLIENT4, flags="DF", id=0)
        / ICMP(type=3, code=4, nexthopmtu=1472)
        / Raw(bytes(large)[:512])
    )
    for sent, got in ((bytes(ping), pong), (bytes(Ether(src=ROUTER, dst=OURS) / large), error)):
        assert ANSWERED == JUDGE.check(sent, TX, got)
        for at in range(len(got)):
            wrong = bytearray(got)
            wrong[at] ^= 0x10
            assert_wrong(sent, wrong)


def test_mended_frames_have_right_checksums() -> None:
    for whole in seeds():
        at, ethertype = link_of(whole)
        end = at + bytes_of(whole, at, ethertype)
        spoiled = bytearray(whole)
        spoiled[end - 1] ^= 0x55
        mend(spoiled)

        assert error_of(whole[at:end])[1], whole.hex()
        assert error_of(spoiled[at:end])[1], spoiled.hex()
