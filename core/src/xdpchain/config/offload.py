# SPDX-License-Identifier: Apache-2.0
"""Whether a chain can run in the network card: one function, of one XDP program, with maps that a card can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xdpchain.config.instances import fault
from xdpchain.config.misfit import quoted
from xdpchain.config.model import InstanceConfig, InterfaceConfig, XdpMode
from xdpchain.config.report import Report
from xdpchain.function import Hook
from xdpchain.schema import MapKind

_CARD_KINDS = {MapKind.ARRAY, MapKind.HASH}
"""What `bpf_map_offload_ops` of the kernel's drivers know."""


def check_offload(interfaces: Sequence[InterfaceConfig], instances: Mapping[str, InstanceConfig | None], report: Report) -> None:
    """Report every interface with `xdp_mode = "offload"` whose chain cannot be self-contained in a card."""
    for interface in interfaces:
        if interface.xdp_mode is XdpMode.OFFLOAD:
            for message in _obstacles(interface.chain, instances):
                hint = 'use "native", or a chain of one self-contained function'
                report.error(("interface", interface.pattern, "xdp_mode"), f'"offload" {message}', hint)


def _obstacles(chain: Sequence[str], instances: Mapping[str, InstanceConfig | None]) -> Iterator[str]:
    if len(chain) > 1:
        yield f"takes a chain of one function, not of {len(chain)}: no NIC can jump from program to program"
        return
    instance = instances.get(chain[0])
    if instance is None:
        return  # told already
    function = instance.function
    others = sorted({program.hook.value for program in function.programs} - {Hook.XDP.value})
    if others:
        yield f"takes a function of one XDP program: {quoted(function.name)} has programs for {', '.join(others)} too"
    try:
        kinds = {schema.name: schema.kind for schema in function.maps(instance.config)}
    except (Exception, SystemExit) as error:
        raise fault(function, "its maps() raised", error) from error
    for name, kind in kinds.items():
        if kind not in _CARD_KINDS:
            yield f"takes maps of the kinds array and hash: {name} of {quoted(function.name)} is {kind.name.lower()}"
