# SPDX-License-Identifier: Apache-2.0
"""Plugins that are broken, each in one way: what is done to a plugin that works, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from xdpchain.errors import ExitCode

from core.tests.plugins.build import LIMITER, LIMITER_C

_BOMB = "#define B0 port += bpf_get_prandom_u32();\n" + "".join(f"#define B{n} {f'B{n - 1} ' * 10}\n" for n in range(1, 9))
_END = "\treturn next(NO_REASON);\n}\n"
_PARAMETERS = {"maps": "config", "configure": "old, new, maps", "metrics": "config, maps", "status": "config, maps"}
_HOOK = "    return [NAME()]"


@attrs.frozen
class Broken:
    """
    A plugin and how it fails when a chain is to use it.

    `code` is the exit code of that apply, `says` what its error says beside the plugin's name, and `entry` where the entry point leads.
    """

    code: ExitCode
    says: tuple[str, ...]
    python: str = LIMITER
    c: str = LIMITER_C
    entry: str = ""


def _c(*lines: str) -> str:
    """The C source with some lines before its last return."""
    head, found, _ = LIMITER_C.rpartition(_END)
    assert found
    return head + "".join(f"\t{line}\n" for line in lines) + _END


def _python(old: str, new: str) -> str:
    """The Python source with something else in place of something."""
    assert old in LIMITER
    return LIMITER.replace(old, new)


def _method(name: str, line: str) -> str:
    """The Python source with a line at the beginning of a method."""
    return _python(head := f"    def {name}(self, {_PARAMETERS[name]}):\n", f"{head}        {line}\n")


def _check(line: str) -> str:
    """The Python source with a method `check`, which it does not have by itself."""
    return _python("    def maps(", f"    def check(self, config):\n        {line}\n\n    def maps(")


NOT_LOADED: Mapping[str, Broken] = {
    "import_raises": Broken(ExitCode.CONFIG, ("cannot be imported", "ZeroDivisionError"), "1 / 0"),
    "import_exits": Broken(ExitCode.CONFIG, ("cannot be imported", "SystemExit: 3"), "import sys; sys.exit(3)"),
    "import_misses": Broken(ExitCode.CONFIG, ("cannot be imported", "No module named 'not_there'"), "import not_there"),
    "no_python": Broken(ExitCode.CONFIG, ("cannot be imported", "SyntaxError"), "def f(:"),
    "to_nothing": Broken(ExitCode.CONFIG, ("cannot be imported", "No module named 'not_there_at_all'"), entry="not_there_at_all"),
    "to_no_object": Broken(ExitCode.CONFIG, ("cannot be imported", "not_there"), entry="to_no_object:not_there"),
    "newer_api": Broken(ExitCode.CONFIG, ("was written for API 2, this core has 1",), _python("api = 1", "api = 2")),
    "hook_raises": Broken(
        ExitCode.CONFIG, ("its hook xdpchain_functions failed", "ValueError: no"), _python(_HOOK, "    raise ValueError('no')")
    ),
    "hook_exits": Broken(ExitCode.CONFIG, ("its hook xdpchain_functions failed", "SystemExit"), _python(_HOOK, "    raise SystemExit")),
    "clashing": Broken(
        ExitCode.CONFIG, ("function 'trail' is already announced by plugin trail",), _python('name = "NAME"', 'name = "trail"')
    ),
    "no_source": Broken(ExitCode.CONFIG, ("gone.bpf.c is not there",), _python("NAME.bpf.c", "gone.bpf.c")),
}
"""plugins that are left out when the daemon starts"""

NOT_APPLIED: Mapping[str, Broken] = {
    "bad_syntax": Broken(ExitCode.COMPILE, ("bad_syntax.bpf.c:", "expected ';'"), c=_c("int x = 1")),
    "bad_name": Broken(ExitCode.COMPILE, ("bad_name.bpf.c:", "not_declared"), c=_c("not_declared = 1;")),
    "bad_include": Broken(ExitCode.COMPILE, ("bad_include.bpf.c:", "not_there.h"), c='#include "not_there.h"\n' + LIMITER_C),
    "rejected": Broken(ExitCode.VERIFIER, ("xc_rejected", "rejected.bpf.c:"), c=_c("return next(*(u32 *)(packet->data + 60000));")),
    "deep_stack": Broken(
        ExitCode.COMPILE,
        ("stack",),
        c=_c(
            "volatile char large[700];", "__builtin_memset((void *)large, port, 700);", "if (large[port & 511])", "\treturn drop(LISTED);"
        ),
    ),
    "wrong_schema": Broken(ExitCode.PLUGIN, ("wrong_schema_ports", "key"), _python("key=u32, value=u32", "key=u64, value=u32")),
    "missing_map": Broken(ExitCode.PLUGIN, ("missing_map_other",), _python('name="NAME_ports"', 'name="NAME_other"')),
    "too_large": Broken(ExitCode.KERNEL, ("cannot create map", "too_large_ports"), _python("capacity=config.room", "capacity=1 << 31")),
    "maps_raises": Broken(ExitCode.PLUGIN, ("maps() raised LookupError: no maps",), _method("maps", "raise LookupError('no maps')")),
    "maps_exits": Broken(ExitCode.PLUGIN, ("maps() raised SystemExit",), _method("maps", "raise SystemExit(5)")),
    "check_raises": Broken(ExitCode.PLUGIN, ("check() raised KeyError",), _check("raise KeyError('k')")),
    "check_exits": Broken(ExitCode.PLUGIN, ("check() raised SystemExit",), _check("raise SystemExit(5)")),
    "configure_raises": Broken(ExitCode.PLUGIN, ("configure() raised OSError: no",), _method("configure", "raise OSError('no')")),
    "configure_exits": Broken(ExitCode.PLUGIN, ("configure() raised SystemExit",), _method("configure", "raise SystemExit(5)")),
    "configure_strays": Broken(ExitCode.PLUGIN, ("writes to map 'elsewhere'",), _method("configure", 'return [Put("elsewhere", 1, 1)]')),
    "configure_misfits": Broken(ExitCode.PLUGIN, ("configure() raised",), _method("configure", 'return [Put("NAME_ports", "x", 1)]')),
    "configure_tells": Broken(ExitCode.PLUGIN, ("configure() raised",), _method("configure", "return 5")),
    "overfull": Broken(
        ExitCode.KERNEL,
        ("map overfull_ports is full: 16 entries",),
        _method("configure", 'return [Put("NAME_ports", port, 1) for port in range(17)]'),
    ),
}
"""plugins that are loaded, but cannot be run; `NAME` in the texts is the plugin's own name"""

TALKING: Mapping[str, Broken] = {
    "metrics_raises": Broken(ExitCode.OK, ("RuntimeError: no metrics",), _method("metrics", "raise RuntimeError('no metrics')")),
    "metrics_exits": Broken(ExitCode.OK, ("SystemExit",), _method("metrics", "raise SystemExit(5)")),
    "metrics_misnamed": Broken(ExitCode.OK, ("speed",), _python('"gauge", "Ports that', '"speed", "Ports that')),
    "status_raises": Broken(
        ExitCode.PLUGIN, ("status() raised RuntimeError: no status",), _method("status", "raise RuntimeError('no status')")
    ),
    "status_exits": Broken(ExitCode.PLUGIN, ("status() raised SystemExit",), _method("status", "raise SystemExit(5)")),
}
"""plugins that run, and fail when they are asked about themselves: `code` is that of `xdpchain show`"""

HANGING = Broken(
    ExitCode.COMPILE,
    ("the compiler was stopped: not done after 1 s",),
    c=_BOMB + _c("port = 0;", "B8", "if (port == 7)", "\treturn drop(LISTED);"),
)
"""a plugin whose compilation does not end within the second that the daemon is told to wait"""
