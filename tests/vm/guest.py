# SPDX-License-Identifier: Apache-2.0
"""
A small guest: a stock kernel and busybox in an initramfs, with one virtio NIC on a tap, under software emulation.

The kernel comes from the distribution's package, which is unpacked and not installed; qemu and busybox must be there.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from xdpchain.testing.namespace import Namespace

META = "linux-image-cloud-amd64"
"""the package that names the kernel's"""
NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}
MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net"),
)
"""in the order in which they are loaded"""
MEMORY_MB = 256
BIG_MB = 8

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module.ko; done
for word in $(cat /proc/cmdline); do
    case $word in xc.*) export "${{word#xc.}}" ;; esac
done
ip link set lo up
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set eth0 up
ip address add "$IPV4/32" dev eth0
ip address add "$IPV6/128" dev eth0
ip route add "$GATEWAY4/32" dev eth0
ip route add default via "$GATEWAY4" dev eth0
ip -6 route add default via "$GATEWAY6" dev eth0
dd if=/dev/urandom of=/www/big bs=1M count={big} 2>/dev/null
sha256sum </www/big | cut -d ' ' -f 1 >/www/big.sum
httpd -p "$PORT" -h /www
echo guest-is-up >/dev/console
while :; do sleep 1000; done
"""
_SUM = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
head -c "$CONTENT_LENGTH" | sha256sum | cut -d ' ' -f 1
"""


def missing() -> list[str]:
    """The packages that are to be installed first."""
    return [package for program, package in NEEDED.items() if shutil.which(program) is None]


def fetch_kernel(folder: Path) -> Path:
    """Unpack the distribution's kernel into a folder, once; returns where."""
    tree = folder / "kernel"
    if (tree / "whole").exists():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    said = subprocess.run(("apt-cache", "depends", META), check=True, capture_output=True, text=True).stdout
    package = next(line.split()[-1] for line in said.splitlines() if "Depends: linux-image" in line)
    subprocess.run(("apt-get", "-q", "download", package), check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(("dpkg-deb", "-x", str(archive), str(tree)), check=True)
    archive.unlink()
    (tree / "whole").touch()
    return tree


def make_initramfs(kernel: Path, to: Path) -> None:
    """The guest's whole file system."""
    found = {path.stem: path.read_bytes() for path in kernel.glob("**/kernel/**/*.ko") if path.stem in MODULES}
    busybox = Path(str(shutil.which("busybox"))).read_bytes()
    files: dict[str, tuple[int, bytes]] = {
        **dict.fromkeys(("bin", "proc", "sys", "dev", "modules", "www", "www/cgi-bin", "tmp"), (0o040755, b"")),
        "bin/busybox": (0o100755, busybox),
        "init": (0o100755, _INIT.format(modules=" ".join(MODULES), big=BIG_MB).encode()),
        "www/hello": (0o100644, b"hello from a guest\n"),
        "www/cgi-bin/sum": (0o100755, _SUM.encode()),
        **{f"modules/{name}.ko": (0o100644, found[name]) for name in MODULES},
    }
    to.write_bytes(gzip.compress(b"".join(_cpio(files)), 1))


def _cpio(files: Mapping[str, tuple[int, bytes]]) -> Iterator[bytes]:
    """The "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        header = b"070701" + b"".join(b"%08x" % value for value in (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0))
        start = header + name.encode() + b"\0"
        yield start + bytes(-len(start) % 4)
        yield data + bytes(-len(data) % 4)


class Guest:
    """
    A guest that is starting.

    Args:
        namespace: where its tap is.
        tap: the tap's name.
        mac: of the guest.
        settings: IPV4, IPV6, GATEWAY4, GATEWAY6, and the PORT on which it serves.
        kernel: as `fetch_kernel` returns it.
        folder: for its files.
    """

    def __init__(self, namespace: Namespace, tap: str, mac: str, settings: Mapping[str, str], kernel: Path, folder: Path) -> None:
        initramfs, self._console = folder / "initramfs.gz", folder / "console"
        make_initramfs(kernel, initramfs)
        self._console.unlink(missing_ok=True)
        (image,) = (kernel / "boot").glob("vmlinuz-*")
        words = " ".join(f"xc.{name}={value}" for name, value in settings.items())
        command = (
            "qemu-system-x86_64",
            *("-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY_MB), "-smp", "1"),
            *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", f"file:{self._console}"),
            *("-kernel", str(image), "-initrd", str(initramfs), "-append", f"console=ttyS0 quiet panic=-1 {words}"),
            *("-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net,mac={mac}"),
        )
        self._said = folder / "qemu.log"
        with self._said.open("w") as said:
            self.process = namespace.start(*command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    @property
    def console(self) -> str:
        """What it has said."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    @property
    def is_up(self) -> bool:
        """Whether it serves."""
        if self.process.poll() is not None:
            raise RuntimeError(f"qemu ended with {self.process.returncode}: {self._said.read_text()}\n{self.console}")
        return "guest-is-up" in self.console
