# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one site for all tests, with servers that know nothing of it, and a client that verifies every checksum."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdpchain.testing import Netns

from lab.balance_driver import Driver
from lab.site import Site, serving
from lab.site_client import Client
from tests.dsr.witness import Checksums


@pytest.fixture(scope="session")
def the_site(namespaces: None, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site, all of it running."""
    folder = tmp_path_factory.mktemp("site")
    bpffs = folder / "bpffs"
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    try:
        with Netns() as netns:
            site = Site(netns, folder, bpffs, cache)
            with contextlib.closing(site), serving(site.workloads):
                site.start()
                yield site
    finally:
        subprocess.run(["umount", "--lazy", str(bpffs)], check=True)


@pytest.fixture
def site(the_site: Site) -> Iterator[Site]:
    """The site, with everything where it belongs and all nodes running. What reaches the client during the test has right checksums."""
    the_site.restore()
    checksums = Checksums([the_site.client, *(one.namespace for one in the_site.workloads)])
    yield the_site

    assert {} == checksums.wrong()


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """Clients in the client's namespace."""
    with contextlib.closing(Client(site.client)) as one:
        yield one


@pytest.fixture
def driver(site: Site) -> Iterator[Driver]:
    """A client that holds connections, which ask again and again."""
    end = site.end(site.client)
    with Driver(site.client, (end.ipv4, end.ipv6)) as one:
        yield one
