# SPDX-License-Identifier: Apache-2.0
"""A node under test: chains on a real interface, real traffic from a client behind it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from xdpchain.chain.engine import Engine, unload
from xdpchain.netlink import list_interfaces
from xdpchain.sockets import tcp_sockets
from xdpchain.testing.chain import Document, Functions, read_document
from xdpchain.testing.namespace import Netns

if TYPE_CHECKING:
    from xdpchain.bpf.compiler.compile import Compiler
    from xdpchain.bpf.maps import KernelMap
    from xdpchain.chain.model import Plan, Snapshot


class RunNode(Protocol):
    """The fixture `node`."""

    def __call__(self, document: Document, functions: Functions | None = None) -> Node: ...


class Node:
    """
    A node in a namespace of its own, whose interface `eth0` is joined with a client's.

    The chains are applied by the same engine as in the daemon, with pins on a bpffs of their own. Both ends have addresses of both families.

    Args:
        document: the node's configuration, with a chain for `eth0`.
        functions: the functions that it may use; those of the installed plugins when None.
        compiler: compiles them.
        mount_point: an empty directory for the bpffs.

    Raises:
        XdpchainError: as `xdpchain apply` would.
    """

    def __init__(self, document: Document, functions: Functions | None, compiler: Compiler, mount_point: Path) -> None:
        self._functions = functions
        with contextlib.ExitStack() as stack:
            netns = stack.enter_context(Netns())
            self.namespace, self.client_namespace = netns("node"), netns("client")
            self.end, self.client = self.namespace.connect(self.client_namespace)
            self.client_namespace.accept_xdp_tx(self.client.interface)
            subprocess.run(["mount", "-t", "bpf", "bpf", str(mount_point)], check=True)
            stack.callback(subprocess.run, ["umount", str(mount_point)], check=True)
            self._engine = Engine(mount_point / "xdpchain", compiler)
            stack.callback(unload, mount_point / "xdpchain")
            stack.callback(self._engine.close)
            self.apply(document)
            self._stack = stack.pop_all()

    def apply(self, document: Document) -> Plan:
        """Make another configuration run, all or nothing, under whatever traffic there is."""
        config = read_document(document, self._functions)
        with self.namespace.entered():
            return self._engine.apply(config, list_interfaces())

    def sweep(self, instance: str) -> int:
        """Have an instance compare itself with the sockets of its namespace, as the daemon does; returns how many writes that were."""
        if self._engine.config is None:
            raise LookupError("nothing is applied")
        one = self._engine.config.instances[instance]
        with self.namespace.entered():
            sockets = tcp_sockets()
        return self._engine.carry_out(instance, one.function.sweep(one.config, sockets, self.maps(instance)), method="sweep")

    def snapshot(self) -> Snapshot:
        """What runs and what it counted."""
        return self._engine.snapshot()

    def maps(self, instance: str) -> Mapping[str, KernelMap]:
        """The maps of an instance."""
        return self._engine.maps(instance)

    def close(self) -> None:
        """Take the chains away, and everything else."""
        self._stack.close()
