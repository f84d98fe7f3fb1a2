# SPDX-License-Identifier: Apache-2.0
"""The tables of a load balancer in the kernel: led from config to config, and read as packets would read them."""

from __future__ import annotations

import ipaddress
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from xdpchain import Put, PutMany, Write
from xdpchain.testing import LoadedChain
from xdpchain_elb import Elb, ElbConfig
from xdpchain_elb.gates import ANY_PORTS, KINDS, PREFIXES
from xdpchain_elb.headers import OUTER6
from xdpchain_elb.shape import GONE
from xdpchain_elb.tables import RING_SIZE

MOVING, MEMBER = 1 << 31, 0xFFFFFF
LIMITS: dict[str, Any] = {"max_vips": 8, "max_backends": 16, "max_members": 64, "flow_table": 1024}
NOTHING = ElbConfig(**LIMITS)


class Kept:
    """What a load balancer keeps in the kernel."""

    def __init__(self, chain: LoadedChain) -> None:
        self.chain = chain
        self.function = Elb()
        self.maps: Mapping[str, Any] = chain.maps["elb"]

    def writes(self, old: ElbConfig | None, new: ElbConfig) -> list[Write]:
        """What leads from a config to another, in the smallest steps that packets may see."""
        return [step for one in self.function.configure(old, new, self.maps) for step in _steps(one)]

    def lead(self, old: ElbConfig | None, new: ElbConfig) -> int:
        """From a config to another; returns how many writes it took."""
        return self.carry_out(self.writes(old, new))

    def carry_out(self, writes: list[Write]) -> int:
        return self.chain.carry_out("elb", writes)

    def empty(self) -> None:
        self.lead(None, NOTHING)

    def members(self) -> dict[tuple[int, str], int]:
        """The numbers of members by the names of their pools and their addresses."""
        names = [pool["name"] for _, pool in self.maps["elb_pools"].items()]
        found = self.maps["elb_directory"].items()
        return {(names[key["pool"]], str(key["address"])): member for key, member in found if key["pool"]}

    def ring(self, pool: int) -> array[int] | None:
        """The words of a pool's ring."""
        ring = self.maps["elb_rings"].inner(pool)
        if ring is None:
            return None
        words = array("I")
        words.frombytes(ring.blob())
        return words[1:]

    def services(self) -> dict[tuple[str, tuple[Any, ...]], int]:
        """The numbers of the VIPs; 0 marks an address."""
        return {(name, tuple(key.values())): number for name in ("elb_services", "elb_prefixes") for key, number in self.maps[name].items()}

    def assert_consistent(self, *, known_hops: bool) -> None:
        """Whatever a packet may find leads to something that is complete."""
        gates = self.maps["elb_gates"].get(0) or 0
        sources: dict[int, list[int]] = {}
        for key, pool in self.maps["elb_sources"].items():
            sources.setdefault(key["pool"], []).append(pool)
        for (name, key), number in self.services().items():
            if not number:
                continue
            assert name == "elb_services" or gates & PREFIXES, "packets look for prefixes"
            assert gates & ANY_PORTS or _port_of(name, key), "packets look for VIPs of any port"
            vip = self.maps["elb_vips"].get(number)
            assert vip["pool"], f"VIP {number} is complete"
            pools = [vip["pool"], *sources.get(vip["pool"], [])]
            for pool in pools:
                words = set(self.ring(pool) or ())
                assert words, f"pool {pool} has a ring"
                assert not any(word & MOVING for word in words) or self.maps["elb_moves"].inner(pool) is not None
                for member in {word & MEMBER for word in words} - {0}:
                    self._assert_complete(member, vip["side"], pool, known_hops=known_hops)
            for id_, member in self.maps["elb_ids"].items():
                if id_["pool"] == vip["pool"]:
                    self._assert_complete(member, vip["side"], None, known_hops=known_hops)
                    assert self.maps["elb_states"].get(member) & 3 != GONE, "an id leads to somebody who is there"

    def _assert_complete(self, member: int, side: int, pool: int | None, *, known_hops: bool) -> None:
        header = self.maps["elb_members"].get(2 * member + side)
        assert header["overhead"], f"member {member} has an outer header"
        address = ipaddress.IPv6Address(_mapped(header))
        found = {"pool": header["pool"], "address": address}
        assert member == self.maps["elb_directory"].get(found), "the header is that of the backend whose number it is"
        assert pool in {None, header["pool"]}
        assert header["backend"] == self.maps["elb_directory"].get({"pool": 0, "address": address})
        assert self.maps["elb_hops"].get(header["backend"]) or not known_hops

    def content(self) -> Mapping[str, Any]:
        """Everything that packets find, with names in the place of numbers: it depends on the config alone, once nothing moves."""
        names = {number: pool["name"] for number, pool in self.maps["elb_pools"].items()}
        found: dict[str, Any] = {"gates": (self.maps["elb_gates"].get(0) or 0) & KINDS}
        for (name, key), number in self.services().items():
            if not number:
                found[f"{name} {key}"] = "marker"
                continue
            vip = self.maps["elb_vips"].get(number)
            pool, side = vip["pool"], vip["side"]
            sources = {
                (key["length"], str(key["address"])): self._pool(to, side, names)
                for key, to in self.maps["elb_sources"].items()
                if key["pool"] == pool
            }
            ids = {id_["id"]: self._address(member, side) for id_, member in self.maps["elb_ids"].items() if id_["pool"] == pool}
            found[f"{name} {key}"] = (vip["options"], vip["hold"], self._pool(pool, side, names), sources, ids)
        found["pools"] = {name for name in names.values() if name}
        found["numbers"] = len(list(self.maps["elb_directory"].items()))
        return found

    def _pool(self, pool: int, side: int, names: Mapping[int, int]) -> Any:
        words = self.ring(pool)
        assert words is not None
        addresses = {word: self._address(word & MEMBER, side) for word in set(words)}
        ring = [addresses[word] for word in words]
        assert RING_SIZE == len(ring)
        members = {key["address"]: number for key, number in self.maps["elb_directory"].items() if key["pool"] == pool}
        seats = {str(address): self._seat(member, side) for address, member in members.items()}
        # a difference of all slots would be no help to anybody
        return names[pool], seats, Counter(ring), hash(tuple(ring))

    def _seat(self, member: int, side: int) -> Any:
        header = self.maps["elb_members"].get(2 * member + side)
        hop = self.maps["elb_hops"].get(header["backend"])
        return self.maps["elb_states"].get(member) & 3, hop, {**header, "backend": None, "pool": None}

    def _address(self, member: int, side: int) -> str | None:
        return str(ipaddress.IPv6Address(_mapped(self.maps["elb_members"].get(2 * member + side)))) if member else None


def _steps(write: Write) -> Iterable[Write]:
    if not isinstance(write, PutMany):
        return (write,)
    return (Put(write.map, key, value) for key, value in zip(write.keys, write.values, strict=True))


def _port_of(name: str, key: tuple[Any, ...]) -> int:
    port: int = key[1] if name == "elb_services" else key[3]
    return port


def _mapped(header: Mapping[str, Any]) -> bytes:
    destination: bytes = header["destination"]
    return destination if header["form"] & OUTER6 else bytes(10) + b"\xff\xff" + destination[:4]
