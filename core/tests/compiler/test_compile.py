# SPDX-License-Identifier: Apache-2.0
"""Real compilations, in real workers, before the real verifier."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xdpchain.bpf.artifact import Artifact
from xdpchain.bpf.compiler import process
from xdpchain.bpf.compiler.compile import Compiler, Unit
from xdpchain.errors import CompileError, ExitCode, KernelError, VerifierError
from xdpchain.function import Hook

TRIVIAL = "int entry(struct xdp_md *ctx)\n{\n\treturn XDP_PASS;\n}\n"
SOURCE_ROOT = Path(process.__file__).parents[3]


def unit(text, hook=Hook.XDP):
    return Unit("demo", text, {"entry": hook})


def compiled(text, hook=Hook.XDP):
    return Compiler(None).compile(unit(text, hook))


def entry(body, before=""):
    """A program in a file of its own, `demo.bpf.c`: `body` begins at line 5, `before` stands on line 1."""
    return f'#line 1 "demo.bpf.c"\n{before}\n\nint entry(struct xdp_md *ctx)\n{{\n{body}\n}}\n'


def refused(text, kind=CompileError, **options):
    with pytest.raises(kind) as caught:
        Compiler(None, **options).compile(unit(text))
    assert caught.value.plugin == "demo"
    assert caught.value.hint
    return caught.value


def wide_loads(code):
    """(index, source register, value) of each 64-bit load."""
    found, at = [], 0
    while at < len(code):
        opcode, registers, _, low = struct.unpack_from("<BBhI", code, at)
        if opcode == 0x18:
            found.append((at // 8, registers >> 4, struct.unpack_from("<I", code, at + 12)[0] << 32 | low))
        at += 16 if opcode == 0x18 else 8
    return found


ALL_KINDS = """
struct key { __be32 source; u32 port; };
struct lpm { u32 prefix; __be32 address; };
struct locked { struct bpf_spin_lock lock; u32 n; };
BPF_TABLE("hash", struct key, u64, m_hash, 1);
BPF_TABLE("lru_hash", struct key, u64, m_lru, 1);
BPF_TABLE("lru_percpu_hash", struct key, u64, m_lru_percpu, 1);
BPF_TABLE("percpu_hash", struct key, u64, m_percpu_hash, 1);
BPF_TABLE("percpu_array", u32, u64, m_percpu_array, 1);
BPF_TABLE("array", u32, u64, m_array, 1);
BPF_F_TABLE("lpm_trie", struct lpm, u64, m_lpm, 1, BPF_F_NO_PREALLOC);
BPF_TABLE("hash", u32, struct locked, m_locked, 1);
BPF_TABLE("array", u32, u64, m_template, 1);
BPF_ARRAY_OF_MAPS(m_list, "m_template", 1);
BPF_HASH_OF_MAPS(m_outer, struct key, "m_template", 1);
BPF_RINGBUF_OUTPUT(m_events, 1);
BPF_TABLE("prog", u32, u32, xc_next, 1);

int entry(struct xdp_md *ctx)
{
	struct key key = {};
	struct lpm lpm = { .prefix = 32 };
	struct locked *locked;
	u64 magic, *value;
	u32 zero = 0;
	void *inner;

	asm volatile("%0 = 0x7863000000000001 ll" : "=r"(magic));
	value = m_hash.lookup(&key);
	if (value)
		__sync_val_compare_and_swap(value, 1, 2);
	value = m_lru.lookup(&key);
	if (value)
		__sync_fetch_and_add(value, 1);
	value = m_lru_percpu.lookup(&key);
	if (value)
		*value = magic;
	value = m_percpu_hash.lookup(&key);
	if (value)
		*value = 1;
	value = m_percpu_array.lookup(&zero);
	if (value)
		*value = 1;
	value = m_array.lookup(&zero);
	if (value)
		*value = 1;
	value = m_lpm.lookup(&lpm);
	if (value)
		*value = 1;
	inner = m_list.lookup(&zero);
	if (inner) {
		value = bpf_map_lookup_elem(inner, &zero);
		if (value)
			*value = 1;
	}
	inner = m_outer.lookup(&key);
	if (inner) {
		value = bpf_map_lookup_elem(inner, &zero);
		if (value)
			*value = 1;
	}
	locked = m_locked.lookup(&zero);
	if (locked) {
		bpf_spin_lock(&locked->lock);
		locked->n++;
		bpf_spin_unlock(&locked->lock);
	}
	value = m_events.ringbuf_reserve(sizeof(u64));
	if (value) {
		*value = 1;
		m_events.ringbuf_submit(value, 0);
	}
	xc_next.call(ctx, 0);
	return XDP_PASS;
}
"""


def test_every_kind_of_map_and_a_load_time_constant_come_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    artifact = compiled(ALL_KINDS)

    kinds = {name: layout.kind for name, layout in artifact.maps.items()}
    assert kinds == {
        "m_hash": 1, "m_lru": 9, "m_lru_percpu": 10, "m_percpu_hash": 5, "m_percpu_array": 6, "m_array": 2, "m_lpm": 11, "m_locked": 1,
        "m_template": 2, "m_list": 12, "m_outer": 13, "m_events": 27, "xc_next": 3,
    }  # fmt: skip
    assert artifact.maps["m_list"].inner == artifact.maps["m_outer"].inner == "m_template"
    assert artifact.maps["m_lpm"].flags == 1
    assert artifact.maps["m_locked"].btf_value_id
    code = artifact.programs["entry"]
    loads = wide_loads(code.instructions)
    assert [value for _, source, value in loads if source == 0] == [0x7863000000000001]
    assert {index for index, source, _ in loads if source == 1} == set(code.map_references)
    assert set(code.map_references.values()) == set(artifact.maps) - {"m_template"}
    assert Artifact.from_json(artifact.to_json()) == artifact
    assert not list(tmp_path.iterdir())


def test_programs_for_several_hooks_of_one_unit_may_share_a_jump():
    text = """
BPF_TABLE("prog", u32, u32, xc_next, 1);
int xdp(struct xdp_md *ctx) { xc_next.call(ctx, 0); return XDP_PASS; }
int tc(struct __sk_buff *skb) { xc_next.call(skb, 0); return -1; }
int trace(void *ctx) { return 0; }
"""
    artifact = Compiler(None).compile(Unit("demo", text, {"xdp": Hook.XDP, "tc": Hook.TC_EGRESS, "trace": Hook.TRACEPOINT}))

    assert set(artifact.programs) == {"xdp", "tc", "trace"}


HEADERS = [
    "icmp",
    "icmpv6",
    "if_ether",
    "if_packet",
    "if_tunnel",
    "if_vlan",
    "in",
    "in6",
    "ip",
    "ipv6",
    "pkt_cls",
    "tcp",
    "udp",
    "bpf",
    "mpls",
]


@pytest.mark.parametrize("order", [HEADERS, HEADERS[::-1]], ids=["forward", "backward"])
def test_the_kernels_interface_headers_can_be_included_in_any_order(order):
    sizes = '_Static_assert(sizeof(struct ipv6hdr) == 40 && sizeof(struct tcphdr) == 20 && PACKET_HOST == 0, "");\n'

    compiled("".join(f"#include <linux/{name}.h>\n" for name in order) + sizes + TRIVIAL)


def test_redirect_neigh_takes_its_four_arguments():
    compiled("int entry(struct __sk_buff *skb)\n{\n\treturn bpf_redirect_neigh(1, 0, 0, 0);\n}\n", Hook.TC_EGRESS)


def test_a_mistake_in_c_is_told_with_clangs_words_and_the_authors_line():
    error = refused(entry("\treturn XDP_PAS;"))

    assert str(error).startswith("plugin 'demo': demo.bpf.c:5:9: use of undeclared identifier 'XDP_PAS'")
    assert "did you mean 'XDP_PASS'" in error.details
    assert "error generated" not in error.details
    assert error.exit_code is ExitCode.COMPILE


def test_a_mistake_after_rewritten_lines_keeps_its_line():
    before = 'BPF_TABLE("hash", u32, u64, m, 1);'
    body = "\tu32 k = 0;\n\tu64 *v = m.lookup_or_try_init(\n\t\t&k,\n\t\t&v);\n\n\treturn *v + \\\n\t\tgone();"

    error = refused(entry(body, before))

    assert "demo.bpf.c:10:" in str(error)
    assert "implicit declaration of function 'gone'" in str(error)


def test_a_missing_system_header_says_what_to_install():
    error = refused(entry("\treturn 0;", "#include <linux/nothing.h>"))

    assert "demo.bpf.c:1:10: 'linux/nothing.h' file not found" in str(error)
    assert "linux-libc-dev" in error.hint


def test_a_map_that_the_kernel_refuses_is_told_with_its_line():
    error = refused(entry("\treturn 0;", 'BPF_TABLE("hash", u32, u64, m_none, 0);'))

    assert "demo.bpf.c:1: the kernel refuses the map m_none: Invalid argument" in str(error)


def test_an_entry_that_the_source_lacks_is_told():
    with pytest.raises(CompileError, match="no function absent"):
        Compiler(None).compile(Unit("demo", TRIVIAL, {"absent": Hook.XDP}))


@pytest.mark.parametrize(
    ("body", "before", "line", "says", "hint"),
    [
        ("\tchar *p = (void *)(long)ctx->data;\n\n\treturn *p;", "", 7, "invalid access to packet", "data_end"),
        (
            "\tu32 k = 0;\n\tu64 *v = m.lookup(\n\t\t&k);\n\n\treturn *v;",
            'BPF_TABLE("hash", u32, u64, m, 1);',
            9,
            "invalid mem access 'map_value_or_null'",
            "NULL",
        ),
        ("\tcounter += ctx->ingress_ifindex;\n\treturn 2;", "static u32 counter;", 5, "invalid mem access 'scalar'", "global variables"),
        (
            "\treturn twice(ctx->ingress_ifindex);",
            "static __attribute__((noinline)) int twice(int x) { return x * x; }",
            None,
            "last insn is not an exit",
            "__always_inline",
        ),
        (
            "\tu32 sum = 0;\n\n\tfor (u32 i = 0; i < ctx->ingress_ifindex; i++)\n\t\tsum += bpf_get_prandom_u32();\n\treturn sum;",
            "",
            None,
            "BPF program is too large. Processed",
            "fewer branches",
        ),
    ],
    ids=["packet", "null", "global", "call", "endless"],
)
def test_a_program_that_the_verifier_refuses_is_told_with_its_words_and_the_authors_line(body, before, line, says, hint):
    error = refused(entry(body, before), VerifierError)

    assert says in str(error)
    assert hint in error.hint
    assert "refuses entry: " in str(error)
    if line:
        assert str(error).startswith(f"plugin 'demo': demo.bpf.c:{line}: ")
        assert f"@ demo.bpf.c:{line}\n" in error.details
    assert error.exit_code is ExitCode.VERIFIER


def test_a_stack_that_is_too_large_ends_the_worker_not_us():
    body = "\tchar big[700] = {};\n\n\tbpf_probe_read_kernel(big, sizeof(big), ctx);\n\treturn big[ctx->data_end - ctx->data];"

    error = refused(entry(body))

    assert "the compiler ended with status 1: LLVM gave up: demo.bpf.c:" in str(error)
    assert "512 bytes" in str(error)
    assert "per-CPU array" in error.hint


def test_a_worker_that_dies_of_a_signal_is_named_so(tmp_path):
    python = script(tmp_path, "kill -ABRT $$")

    error = refused(TRIVIAL, python=python)

    assert "the compiler ended with SIGABRT: LLVM gave up: most often a stack over 512 bytes" in str(error)


BOMB = "#define B0 x += bpf_get_prandom_u32();\n" + "".join(f"#define B{n} {f'B{n - 1} ' * 10}\n" for n in range(1, 9))


def test_a_compilation_that_does_not_end_is_stopped():
    started = time.monotonic()

    error = refused(BOMB + entry("\tint x = 0;\n\tB8\n\treturn x;"), timeout_s=1.5)

    assert "the compiler was stopped: not done after 1.5 s" in str(error)
    assert time.monotonic() - started < 60


def test_a_worker_that_sleeps_is_stopped_with_all_that_it_started(tmp_path):
    python = script(tmp_path, f"sleep 60 &\necho $! > {tmp_path}/child\nwait")

    started = time.monotonic()

    error = refused(TRIVIAL, python=python, timeout_s=0.5)

    assert time.monotonic() - started < 30
    assert "not done after 0.5 s" in str(error)
    child = int((tmp_path / "child").read_text())
    assert wait_for(lambda: not running(child))


def test_an_interpreter_without_bcc_says_what_to_install(tmp_path):
    error = refused(TRIVIAL, python=script(tmp_path, 'exec /usr/bin/python3 -S "$@"'))

    assert "bcc is not there" in str(error)
    assert "python3-bpfcc" in error.hint


def test_no_interpreter_at_all_says_what_to_install():
    assert "python3" in refused(TRIVIAL, python="/nonexistent/python3").hint


def test_a_worker_that_fails_by_itself_is_not_blamed_on_llvm(tmp_path):
    error = refused(TRIVIAL, python=script(tmp_path, "exec /usr/bin/python3 -c 'import nothing_of_that_name'"))

    assert "the compiler's worker failed: ModuleNotFoundError" in str(error)


@pytest.mark.parametrize("rights", ["-all", "-all,+bpf"])
def test_without_the_rights_to_load_the_plugin_is_not_blamed(tmp_path, rights):
    python = script(tmp_path, f'exec setpriv --bounding-set={rights} --inh-caps=-all -- /usr/bin/python3 "$@"')

    with pytest.raises(KernelError, match="not allowed to load BPF programs") as caught:
        Compiler(None, python=python).compile(unit(TRIVIAL))

    assert "root" in caught.value.hint


def script(directory, command):
    """A program to stand in for the interpreter."""
    file = directory / "python3"
    file.write_text(f"#!/bin/sh\n{command}\n")
    file.chmod(0o700)
    return str(file)


def test_the_environment_of_the_caller_does_not_reach_the_compiler(tmp_path, monkeypatch):
    (tmp_path / "bcc.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nonexistent")

    compiled(TRIVIAL)


def test_a_cached_unit_needs_no_compiler(tmp_path):
    compiler = Compiler(tmp_path / "cache")
    assert not compiler.cached(unit(TRIVIAL))
    artifact = compiler.compile(unit(TRIVIAL))

    assert compiler.cached(unit(TRIVIAL))
    assert not compiler.cached(unit(TRIVIAL + "\n"))
    assert Compiler(tmp_path / "cache", python="/nonexistent").compile(unit(TRIVIAL)) == artifact


def test_a_poisoned_cache_entry_is_compiled_anew(tmp_path):
    compiler = Compiler(tmp_path / "cache")
    artifact = compiler.compile(unit(TRIVIAL))
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:100])

    assert not compiler.cached(unit(TRIVIAL))
    assert compiler.compile(unit(TRIVIAL)) == artifact
    assert compiler.cached(unit(TRIVIAL))


def test_many_units_come_back_in_order_and_equal_ones_are_compiled_once(monkeypatch):
    other = unit("int entry(struct xdp_md *ctx) { return XDP_DROP; }")
    runs = []
    run = Compiler._run

    def counted(compiler, *arguments):
        runs.append(arguments)
        return run(compiler, *arguments)

    monkeypatch.setattr(Compiler, "_run", counted)

    artifacts = Compiler(None).compile_many([unit(TRIVIAL), other, unit(TRIVIAL)])

    assert artifacts[0] == artifacts[2] != artifacts[1]
    assert len(runs) == 2


def test_of_many_units_each_that_fails_has_its_say():
    units = [unit(TRIVIAL), Unit("first", "#error one", {}), Unit("second", "#error two", {})]

    with pytest.raises(CompileError) as caught:
        Compiler(None).compile_many(units)

    assert caught.value.plugin == "first"
    assert "also: plugin 'second'" in caught.value.details


def test_a_killed_parent_leaves_no_worker_behind():
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE_ROOT)!r})
from xdpchain.bpf.compiler.compile import Compiler, Unit
Compiler(None).compile(Unit("demo", {BOMB + entry("int x = 0; B8 return x;")!r}, {{}}))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        worker = wait_for(lambda: children(parent.pid))[0]
        wait_for(lambda: b"worker.py" in Path(f"/proc/{worker}/cmdline").read_bytes() and busy(worker))

        parent.send_signal(signal.SIGKILL)

    assert wait_for(lambda: not running(worker))


def wait_for(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += task.read_text().split()
    return [int(child) for child in found]


def busy(pid):
    """Whether the worker is past its first steps: it has bcc's library open."""
    return "libbcc" in Path(f"/proc/{pid}/maps").read_text()


def running(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
