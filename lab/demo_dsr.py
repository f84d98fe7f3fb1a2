# SPDX-License-Identifier: Apache-2.0
"""The demo's step with the whole site: requests go through the balancer, answers do not, and nothing that changes fails a request."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from xdpchain.testing.namespace import Netns

from lab.capture import Capture
from lab.network import Lab
from lab.site import SHARED, WEB, Site, serving
from lab.site_client import Client
from lab.story import Story, words

SHORT = 300
DOWNLOAD = 20_000_000
LONG_DOWNLOAD, LONG_S = 10_000_000, 9
SHORT_PER_S = 40
_PICTURE = """\
client -- router -- balancer            ratelimit -> maxconn -> elb
            |  |  \\
           hv1 hv2  host                 dsr_agent on each
          /  \\        |
    tap-vm  veth-box  app                servers with addresses of their own; no VIP is configured on any
"""


def direct_return(story: Story, lab: Lab) -> None:
    """Tell it."""
    story.step("7. All of it: workloads that know of no balancer answer clients directly")
    with _site(lab) as site:
        story.show(_PICTURE)
        site.start()
        story.say("hv1's file, and the first of its services:")
        node = site.nodes[site.hv1.name]
        story.show(node.file.read_text())
        story.show("\n".join(node.file.with_name("services").read_text().splitlines()[:3]) + "\n...")
        with contextlib.closing(Client(site.client)) as client:
            _past_the_balancer(story, site, client)
            _meanwhile(story, site, client)


def _past_the_balancer(story: Story, site: Site, client: Client) -> None:
    """Which way packets go."""
    seen = client.run("short", *SHARED, port=WEB, number=SHORT).counts
    story.say(f"{SHORT} requests to {SHARED[0]} and {SHARED[1]}: {words(seen)}")
    story.claim("a machine behind a tap, a container and an application serve them", true=seen == {"ok": SHORT})
    vip = site.vip(site.vm, 4)
    before = site.bytes_to(site.balancer), site.bytes_from(site.balancer), site.bytes_from(site.hv1)
    with Capture(site.router_end(site.balancer), [vip]) as capture:
        seen = client.run("transfer", vip, port=WEB, down=DOWNLOAD).counts
        answers = capture.seen()
    after = site.bytes_to(site.balancer), site.bytes_from(site.balancer), site.bytes_from(site.hv1)
    asked, passed_on, answered = (now - then for now, then in zip(after, before, strict=True))
    story.say(f"{_megabytes(DOWNLOAD)} from {vip}, which tap-vm serves; on the router's cables meanwhile:")
    story.say(f"    {_megabytes(asked)} to the balancer, {_megabytes(passed_on)} from it, {_megabytes(answered)} from hv1")
    story.claim("every byte came", true=seen == {"ok": 1})
    story.claim("the requests went through the balancer", true=0 < asked < DOWNLOAD / 10 and 0 < passed_on < DOWNLOAD / 10)
    story.claim(f"the answers did not: {answers} packets from {vip} were seen there", true=not answers and answered > DOWNLOAD)


def _meanwhile(story: Story, site: Site, client: Client) -> None:
    """Everything changes under traffic."""
    vip = site.vip(site.vm, 4)
    story.say(f"now a download of {_megabytes(LONG_DOWNLOAD)} from tap-vm goes on, with {SHORT_PER_S} requests a second beside it")
    download = client.start("transfer", vip, port=WEB, down=LONG_DOWNLOAD, seconds=LONG_S)
    requests = client.start("short", *SHARED, port=WEB, rate=SHORT_PER_S, seconds=LONG_S, at_once=16)
    site.drain("app")
    fresh = client.run("short", *SHARED, port=WEB, number=20).counts
    story.claim("app drains: the others serve new requests", true=fresh == {"ok": 20})
    site.move(site.vm, site.hv2)
    story.claim("tap-vm has moved to hv2, whose agent knows nothing of its connections", true=site.vm.at is site.hv2)
    node = site.nodes[site.hv2.name]
    node.stop(signal.SIGKILL)
    node.start()
    story.claim("the daemon on hv2 was killed, and a new one has taken over", true=node.running)
    story.claim("the download is whole: not a byte is missing", true=download.seen().counts == {"ok": 1})
    seen = requests.seen().counts
    story.say(f"the requests beside it: {words(seen)}")
    story.claim("none of them failed", true={*seen} == {"ok"})
    story.command(node, "show", "dsr_agent", until="tables of flows")


def _megabytes(number: int) -> str:
    return f"{number / 1_000_000:.1f} MB"


@contextlib.contextmanager
def _site(lab: Lab) -> Iterator[Site]:
    """The network with servers; all of it goes at the end."""
    with Netns() as netns:
        site = Site(netns, lab.folder / "site", lab.bpffs, lab.cache)
        with contextlib.closing(site), serving(site.workloads):
            yield site
