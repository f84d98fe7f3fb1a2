# SPDX-License-Identifier: Apache-2.0
"""A stock kernel with a virtio NIC on a tap serves a VIP that it knows nothing of: `tox -e vm`."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from lab.site import WEB, Site
from tests.dsr.witness import Checksums, reasons
from tests.vm.guest import BIG_MB

pytestmark = [pytest.mark.vm, pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])]

_FETCH = """
import hashlib, sys, urllib.request
number, url, bytes_up = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for _ in range(number):
    body = sys.stdin.buffer.read(bytes_up) if bytes_up else None
    with urllib.request.urlopen(url, data=body, timeout=60) as answer:
        data = answer.read()
    print(len(data), hashlib.sha256(data).hexdigest(), data.decode(errors="replace").strip() if len(data) < 100 else "")
"""


def url_of(site: Site, family: int, path: str) -> str:
    vip = site.vip(site.vm, family)
    return f"http://{f'[{vip}]' if family == 6 else vip}:{WEB}/{path}"


def start(site: Site, url: str, number: int = 1, body: bytes = b"") -> subprocess.Popen[str]:
    """Ask for a URL; with a body, send it there."""
    command = (sys.executable, "-c", _FETCH, str(number), url, str(len(body)))
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        return site.client.start(*command, stdin=file, stdout=subprocess.PIPE)


def ask(site: Site, url: str, number: int = 1, body: bytes = b"") -> list[list[str]]:
    return told(start(site, url, number, body))


def told(process: subprocess.Popen[str]) -> list[list[str]]:
    """What came: bytes, digest and a short text, for each time."""
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return [line.split(" ") for line in said.splitlines()]


def test_what_a_guest_serves_comes_whole_with_right_checksums_and_past_the_balancer(site: Site, family: int) -> None:
    checksums = Checksums([site.client])
    before = site.bytes_to(site.balancer)

    hellos = ask(site, url_of(site, family, "hello"), 50)
    (expected,) = ask(site, url_of(site, family, "big.sum"))
    (big,) = ask(site, url_of(site, family, "big"))

    assert {"19"} == {hello[0] for hello in hellos}
    assert [str(BIG_MB << 20), expected[2]] == big[:2]
    assert site.bytes_to(site.balancer) - before < (BIG_MB << 20) / 4
    assert {} == checksums.wrong()
    seen = reasons(site, site.hv1, site.vm.name)
    assert min(seen["delivered"], seen["answered"]) > 100


def test_what_a_guest_is_sent_comes_whole(site: Site, family: int) -> None:
    body = os.urandom(4 << 20)

    ((_, _, seen),) = ask(site, url_of(site, family, "cgi-bin/sum"), body=body)

    assert hashlib.sha256(body).hexdigest() == seen


def test_the_agents_daemon_is_killed_during_a_download(site: Site, family: int) -> None:
    node = site.nodes[site.hv1.name]
    (expected,) = ask(site, url_of(site, family, "big.sum"))
    download = start(site, url_of(site, family, "big"), 4)
    for number in (signal.SIGKILL, signal.SIGTERM):
        time.sleep(0.3)
        node.stop(number)
        node.start()

    assert [[str(BIG_MB << 20), expected[2]]] * 4 == [line[:2] for line in told(download)]
