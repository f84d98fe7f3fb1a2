# SPDX-License-Identifier: Apache-2.0
"""What there is in the kernel, read without the daemon: pins, programs, and what a process holds."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from xdpchain.bpf import libbpf
from xdpchain.bpf.handle import Handle
from xdpchain.bpf.loader import PROG_ARRAY, ProgArray
from xdpchain.bpf.maps import KernelMap
from xdpchain.chain.observe import observe
from xdpchain.errors import KernelError
from xdpchain.schema import Map

_HELD = re.compile(r"^(map|prog|link|btf)_id:\s+(\d+)$", re.MULTILINE)


def pinned_map(root: Path, instance: str, schema: Map) -> KernelMap:
    """A state map of an instance, by its pin."""
    (path,) = (root / "state" / instance).glob(f"{schema.name}-*")
    return KernelMap(Handle(libbpf.obj_get(str(path))), schema)


def order(root: Path, interface: str) -> list[str]:
    """The instances on an interface's XDP hook as the kernel chains them; empty where no chain is attached."""
    found = [place for place in observe(root).places if place.interface == interface and place.place.hook.value == "xdp"]
    return list(found[0].in_kernel) if found else []


def pins(root: Path) -> list[str]:
    """All pins below a root, with N for generations and * for fingerprints."""
    names = (str(Path(folder, name).relative_to(root)) for folder, _, files in os.walk(root) for name in files)
    return sorted(_general(name) for name in names)


def _general(name: str) -> str:
    name = re.sub(r"(root|next)-\d+", r"\1-N", name)
    return re.sub(r"(state/[^/]+/\w+|counts-\w+)-[0-9a-f]+$", r"\1-*", name)


def expected_pins(chains: Mapping[int, Sequence[str]], state: Mapping[str, Sequence[str]], mode: str = "native") -> list[str]:
    """The pins of XDP chains by interface index, and of the state maps of instances: these, and none beside them."""
    names = [f"state/{instance}/{name}-*" for instance, maps in state.items() for name in maps]
    for index, chain in chains.items():
        folder = f"chains/{index}-xdp"
        names += [f"{folder}/link-{mode}", f"{folder}/root-N"]
        names += [f"{folder}/next-N-{position}-{instance}" for position, instance in enumerate(chain)]
        names += [f"{folder}/counts-{instance}-*" for instance in chain]
    return sorted(names)


@attrs.frozen
class Objects:
    """
    What is loaded that belongs to some instances: their hops' programs, and the dispatchers that lead to these.

    Everything else of a chain lives by them or by a pin: a map that no program uses, no pin names and no process holds does not exist.
    """

    hops: Counter[str]
    dispatchers: int
    links: int


def objects(instances: Iterable[str]) -> Objects:
    """
    Look through everything in the kernel for what belongs to these instances.

    Programs are known by their instance's name, so the names must be this test's own: the machine may run other nodes.
    """
    wanted = {name[:15] for name in instances}
    hops: dict[int, str] = {}
    dispatchers: dict[int, Handle] = {}
    for program in _programs():
        info = libbpf.prog_info(program.fd)
        name = info.raw_name.decode()
        if name in wanted:
            hops[info.id] = name
        elif name == "xc_dispatch":
            dispatchers[info.id] = program
    ours = {number for number, program in dispatchers.items() if _leads_to(program) & hops.keys()}
    links = sum(1 for link in _links() if libbpf.link_info(link.fd).prog_id in ours)
    return Objects(Counter(hops.values()), len(ours), links)


def _leads_to(dispatcher: Handle) -> set[int]:
    """The ids of the programs in the prog arrays of a program."""
    found = set()
    for number in libbpf.prog_map_ids(dispatcher.fd):
        handle = Handle(libbpf.map_by_id(number))
        if libbpf.map_info(handle.fd).type == PROG_ARRAY:
            target = ProgArray(handle).target()
            if target is not None:
                found.add(target)
    return found


def _programs() -> Iterator[Handle]:
    for number in libbpf.program_ids():
        try:
            yield Handle(libbpf.prog_by_id(number))
        except KernelError:  # gone since
            continue


def _links() -> Iterator[Handle]:
    for number in libbpf.link_ids():
        descriptor = libbpf.library().bpf_link_get_fd_by_id(number)
        if descriptor >= 0:
            yield Handle(descriptor)


def held_by(pid: int) -> Counter[str]:
    """How many BPF objects of each kind a process holds, each counted once."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found.update(_HELD.findall(descriptor.read_text()))
        except OSError:  # closed since
            continue
    return Counter(kind for kind, _ in found)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process that is its own (what it shares with others is not counted)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) << 10 for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", rollup, re.MULTILINE))
