# SPDX-License-Identifier: Apache-2.0
"""Splicing quoted includes into one text."""

from pathlib import Path

import pytest
from xdpchain.bpf.compiler.splice import splice
from xdpchain.errors import CompileError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_an_include_is_replaced_by_the_file_and_lines_keep_their_place(tmp_path):
    write(tmp_path / "a.h", "int a;\n")
    main = write(tmp_path / "main.c", 'int before;\n#include "a.h"\nint after;\n')

    text = splice(main, ())

    assert text == f'#line 1 "{main}"\nint before;\n#line 1 "{tmp_path}/a.h"\nint a;\n#line 3 "{main}"\nint after;\n'


def test_a_file_is_spliced_once_and_cycles_end(tmp_path):
    write(tmp_path / "a.h", '#include "b.h"\nint a;\n')
    write(tmp_path / "b.h", '#include "a.h"\nint b;\n')
    main = write(tmp_path / "main.c", '#include "a.h"\n#include "b.h"\n#include "main.c"\nint m;\n')

    text = splice(main, ())

    assert [text.count(name) for name in ("int a;", "int b;", "int m;")] == [1, 1, 1]
    assert text.index("int b;") < text.index("int a;") < text.index("int m;")


def test_the_file_beside_the_one_that_asks_comes_before_the_include_directories(tmp_path):
    core = write(tmp_path / "core" / "x.h", "int core;\n").parent
    write(core / "only_core.h", "int only;\n")
    write(tmp_path / "plugin" / "sub" / "x.h", "int sub;\n")
    write(tmp_path / "plugin" / "sub" / "y.h", '#include "x.h"\n')
    main = write(tmp_path / "plugin" / "main.c", '#include "sub/y.h"\n#include "only_core.h"\n#include "x.h"\n')

    text = splice(main, (core,))

    assert text.index("int sub;") < text.index("int only;") < text.index("int core;")


def test_system_includes_and_what_comments_say_stay(tmp_path):
    source = '#include <linux/ip.h>\n/* it\'s "here":\n#include "nowhere.h"\n*/ // /*\n// #include "nowhere.h"\nchar *s = "/*";\n  #  include "a.h"\n'
    write(tmp_path / "a.h", "int a;\n")

    text = splice(write(tmp_path / "main.c", source), ())

    assert "#include <linux/ip.h>\n" in text
    assert text.count('#include "nowhere.h"') == 2
    assert "int a;" in text


def test_a_missing_file_is_told_with_the_including_line_and_the_plugin(tmp_path):
    main = write(tmp_path / "main.c", 'int x;\n#include "gone.h"\n')

    with pytest.raises(CompileError) as caught:
        splice(main, (), owner="geoblock")

    assert str(caught.value) == f"plugin 'geoblock': {main}:2: \"gone.h\" is not there"
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize("name", ["../secret.h", "inside/../../secret.h", "{tmp}/secret.h", "link.h"])
def test_code_from_elsewhere_is_refused(tmp_path, name):
    write(tmp_path / "secret.h", "int secret;\n")
    write(tmp_path / "plugin" / "inside" / "x.h", "")
    (tmp_path / "plugin" / "link.h").symlink_to(tmp_path / "secret.h")
    main = write(tmp_path / "plugin" / "main.c", f'#include "{name.format(tmp=tmp_path)}"\n')

    with pytest.raises(CompileError, match="no code from elsewhere"):
        splice(main, ())


@pytest.mark.parametrize("include", ["<../../etc/passwd>", "</etc/passwd>", "<linux/../../secret.h>"])
def test_a_system_include_cannot_leave_the_systems_headers(tmp_path, include):
    with pytest.raises(CompileError, match="leads out"):
        splice(write(tmp_path / "main.c", f"#include {include}\n"), ())


def test_an_include_by_macro_is_refused(tmp_path):
    with pytest.raises(CompileError, match=r"main.c:2: #include HEADER does not name a file"):
        splice(write(tmp_path / "main.c", '#define HEADER "x.h"\n#include HEADER\n'), ())


def test_a_source_that_is_not_there_or_not_text_is_a_compile_error(tmp_path):
    with pytest.raises(CompileError, match="cannot be read: No such file"):
        splice(tmp_path / "gone.c", ())
    (tmp_path / "binary.c").write_bytes(b"\xff\xfe")
    with pytest.raises(CompileError, match="not UTF-8"):
        splice(tmp_path / "binary.c", ())
    (tmp_path / "nul.c").write_bytes(b"int x;\0")
    with pytest.raises(CompileError, match="not a text"):
        splice(tmp_path / "nul.c", ())
