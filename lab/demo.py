# SPDX-License-Identifier: Apache-2.0
"""
The demo: a node between a client and a web server, then a load balancer before its backends, then workloads that know of neither, told in steps
with real connections.

`./run demo` ends by itself in about a minute and leaves nothing behind; `./run demo --keep` leaves the lab up; `./run demo --stop` takes
such a lab away. It ends with 1 when a step does not show what it should.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from lab.demo_dsr import direct_return
from lab.demo_elb import balance
from lab.network import PORT, REPOSITORY, Lab, Seen, stop_kept
from lab.node import BIN
from lab.story import Story, words

RATE = 100
BURST = 300
BURSTS = 5
"""tries, on a busy machine"""
STEADY_PER_S = 60
NODE_FILE = f"""\
[node]
metrics = "127.0.0.1:9977"

[interface.clients]              # towards the clients
chain = ["ratelimit"]

[[function.ratelimit.rule]]
ports = [{PORT}]
rate = {RATE}                       # new connections a second
"""
WITH_GEOBLOCK = (
    NODE_FILE.replace('chain = ["ratelimit"]', 'chain = ["geoblock", "ratelimit"]')
    + '\n[function.geoblock]\nprefixes = ["198.51.100.0/24"]\n'
)


def main() -> int:
    """Tell the story."""
    parser = argparse.ArgumentParser(description="Watch xdpchain at work, in network namespaces of its own.")
    parser.add_argument("--keep", action="store_true", help="leave the lab up, to play with")
    parser.add_argument("--stop", action="store_true", help="take away a lab that was left up")
    choice = parser.parse_args()
    stopped = stop_kept()
    if stopped or choice.stop:
        print("The lab that was left up is gone." if stopped else "No lab is up.")
    if choice.stop:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # everything is taken away then, too
    began = time.monotonic()
    story = Story()
    with Lab(NODE_FILE) as lab:
        for tell in (set_up, limit, extend, survive, trace, balance, direct_return):
            tell(story, lab)
        story.step("8. To look further")
        lab.keep = choice.keep
        look_further(story, lab)
    print(f"\n{'All of it held' if not story.broken else f'{story.broken} claims did not hold'}; {time.monotonic() - began:.0f} s.")
    return 1 if story.broken else 0


def set_up(story: Story, lab: Lab) -> None:
    """A network, a file, a daemon."""
    story.step("1. Three network namespaces, one TOML file, one daemon")
    story.say(f"client {lab.client_end.ipv4}  --  [clients] node [servers]  --  web server {lab.url}")
    story.show(NODE_FILE)
    seconds = lab.node.start()
    story.say(f"xdpchaind answers after {seconds:.1f} s, the compiler's work included")
    story.command(lab.node, "status")


def limit(story: Story, lab: Lab) -> None:
    """A burst that is limited."""
    story.step(f"2. A burst: {BURST} connections at once against {RATE} a second")
    seen, counted = burst(story, lab, BURSTS)
    story.say(f"the client saw: {words(seen.counts)}")
    story.say(f"the counters say: {words(counted)}")
    story.claim(f"exactly {RATE} connections were let in", true=seen.counts.get("ok") == RATE)
    story.claim("the rest was dropped at XDP, before the kernel's network stack", true=counted.get("DROP rate_exceeded", 0) >= BURST - RATE)
    story.claim("two seconds later everybody is welcome again", true=lab.load("--connections", "20").counts == {"ok": 20})


def burst(story: Story, lab: Lab, tries: int) -> tuple[Seen, dict[str, int]]:
    """All connections within the second that the rate is for: what the client saw, and what was counted."""
    before = counters(lab)
    seen = lab.load("--connections", str(BURST))
    counted = {what: number - before.get(what, 0) for what, number in counters(lab).items()}
    time.sleep(2)  # the window slides on
    if seen.seconds < 1 or tries == 1:
        return seen, counted
    story.say(f"this machine is busy: it took {seen.seconds:.1f} s to begin them all; once more")
    return burst(story, lab, tries - 1)


def extend(story: Story, lab: Lab) -> None:
    """A function of one's own, added under traffic."""
    story.step("3. A function of your own, added to the running chain under traffic")
    traffic = lab.start_load("--rate", str(STEADY_PER_S), "--seconds", "7", "--patience", "5")
    story.command(lab.node, "new", "geoblock", "--directory", str(lab.folder / "geoblock"))
    pip = (
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(lab.node.plugins),
        str(lab.folder / "geoblock"),
    )
    story.say("$ pip install ./geoblock")
    subprocess.run([sys.executable, "-m", "pip", *pip], check=True)
    lab.node.stop()
    story.say("the daemon is restarted to see the new package; the chain in the kernel goes on meanwhile")
    lab.node.start()
    lab.node.file.write_text(WITH_GEOBLOCK)
    story.command(lab.node, "plan")
    story.command(lab.node, "apply")
    running = json.loads(lab.node.xdpchain("status", "--json").stdout)
    seen = Seen.of(traffic).counts
    story.say(f"what the client saw meanwhile: {words(seen)}")
    story.claim("no request failed", true=set(seen) == {"ok"})
    story.claim("read back from the kernel: geoblock -> ratelimit", true=chain_in_kernel(running) == ["geoblock", "ratelimit"])


def survive(story: Story, lab: Lab) -> None:
    """The datapath does not need the daemon."""
    story.step("4. kill -9 of the daemon, under traffic")
    traffic = lab.start_load("--rate", str(STEADY_PER_S), "--seconds", "3", "--patience", "5")
    before = sum(counters(lab).values())
    lab.node.stop(signal.SIGKILL)
    time.sleep(1)
    story.say("without a daemon, `xdpchain status` asks the kernel:")
    story.command(lab.node, "status", check=False)
    seconds = lab.node.start()
    seen = Seen.of(traffic).counts
    story.say(f"what the client saw meanwhile: {words(seen)}")
    story.claim("no request failed", true=set(seen) == {"ok"})
    story.claim(f"the next daemon took the chain over with its counters, in {seconds:.1f} s", true=sum(counters(lab).values()) > before)


def trace(story: Story, lab: Lab) -> None:
    """What happens to one packet."""
    story.step("5. What would happen to this packet?")
    packet = f'Ether()/IP(src="198.51.100.7", dst="{lab.server_end.ipv4}")/TCP(dport={PORT}, flags="S")'
    output = story.command(lab.node, "trace", "--config", str(lab.node.file), "--interface", "clients", "--packet", packet)
    story.claim("geoblock drops it; nothing that runs was touched", true="geoblock" in output and "DROP" in output)


def look_further(story: Story, lab: Lab) -> None:
    """What to try next."""
    if not lab.keep:
        story.say("./run demo --keep    leaves this lab up and says how to work in it")
        story.say(
            "docs/operating.md    sets up a node; docs/writing-a-function.md writes a function; docs/elb.md and docs/dsr_agent.md are"
            " about the load balancer and its workloads"
        )
        return
    file = lab.folder / "environment"
    settings = {key: value for key, value in lab.node.environment.items() if key.startswith("XDPCHAIN_") or key == "PYTHONPATH"}
    settings["PATH"] = f"{BIN}:{os.environ['PATH']}"
    file.write_text("".join(f"export {key}={shlex.quote(value)}\n" for key, value in settings.items()))
    story.say(f"The lab stays up. After\n\n      cd {REPOSITORY} && . {file}\n")
    for command, why in (
        ("xdpchain status", "what runs, and what it counted"),
        ("xdpchain show ratelimit", "the limits, and how full they are"),
        ("xdpchain metrics", "what Prometheus sees at http://127.0.0.1:9977/metrics on the node"),
        (f"ip netns exec {lab.client.name} python -m lab.web load {lab.url} --connections {BURST}", "another burst"),
        (f"$EDITOR {lab.node.file}", "change it; then xdpchain plan, xdpchain apply, xdpchain rollback"),
        (f"ip netns exec {lab.node.namespace.name} bash", "be on the node"),
        ("./run demo --stop", "take it all away"),
    ):
        story.say(f"    {command}\n          {why}")


def counters(lab: Lab) -> dict[str, int]:
    """Packets by verdict and reason of all hops, from `xdpchain status`."""
    found: dict[str, int] = {}
    for place in json.loads(lab.node.xdpchain("status", "--json").stdout)["places"]:
        for hop in place["hops"]:
            for count in hop["counts"]:
                key = f"{count['verdict']} {count['reason']}".strip()
                found[key] = found.get(key, 0) + count["packets"]
    return found


def chain_in_kernel(status: Mapping[str, object]) -> list[str]:
    """The order of the hops on the first interface, as the kernel has it."""
    places = status["places"]
    return list(places[0]["in_kernel"]) if isinstance(places, list) and places else []


if __name__ == "__main__":
    sys.exit(main())
