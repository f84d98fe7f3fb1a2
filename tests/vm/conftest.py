# SPDX-License-Identifier: Apache-2.0
"""A site whose machine behind a tap is a real one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdpchain.testing import Namespace, Netns

from lab import workload
from lab.site import OWN_PORT, Site
from tests.helpers.node import until
from tests.vm.guest import Guest, fetch_kernel, missing

MAC = "02:00:00:00:20:11"
KERNELS = Path.home() / ".cache" / "xdpchain-vm"
"""where the unpacked kernel stays from run to run"""


@pytest.fixture(scope="session")
def kernel() -> Path:
    """A stock kernel. Where it or a program is missing, that is a failure: who runs these tests wants to know about a real machine."""
    packages = missing()
    assert not packages, f"install these packages first: {' '.join(packages)}"
    KERNELS.mkdir(mode=0o700, parents=True, exist_ok=True)
    return fetch_kernel(KERNELS)


@pytest.fixture(scope="session")
def site(kernel: Path, namespaces: None, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site, with a guest in the place of the process that plays one."""
    folder = tmp_path_factory.mktemp("site")
    bpffs = folder / "bpffs"
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    try:
        with Netns() as netns:
            site = Site(netns, folder, bpffs, cache)
            with contextlib.closing(site):
                site.start()
                site.vm.unplug()
                guest = VirtualMachine(site, kernel, folder)
                site.plug_in(guest, site.hv1)
                until(guest.is_up, guest.console, patience_s=120)
                yield site
    finally:
        subprocess.run(["umount", "--lazy", str(bpffs)], check=True)


class VirtualMachine(workload.Guest):
    """In the place of the site's machine, with its addresses: a guest that boots when it has its tap."""

    def __init__(self, site: Site, kernel: Path, folder: Path) -> None:
        super().__init__(site.vm.name, site.vm.namespace, site.vm.ipv4, site.vm.ipv6)
        self._kernel, self._folder = kernel, folder
        self._guest: Guest | None = None

    def make_port(self, hypervisor: Namespace) -> None:
        """The tap, and the guest on it."""
        hypervisor.run("ip", "tuntap", "add", self.name, "mode", "tap", "vnet_hdr")
        self.at = hypervisor
        self._configure_port()
        settings = {"IPV4": self.ipv4, "IPV6": self.ipv6, "GATEWAY4": workload.GATEWAY4, "GATEWAY6": workload.GATEWAY6}
        self._guest = Guest(hypervisor, self.name, MAC, {**settings, "PORT": str(OWN_PORT)}, self._kernel, self._folder)

    def is_up(self) -> bool:
        """Whether it serves."""
        return self._guest is not None and self._guest.is_up

    def console(self) -> str:
        """What it has said."""
        return self._guest.console if self._guest else ""
