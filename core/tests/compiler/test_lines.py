# SPDX-License-Identifier: Apache-2.0
"""From numbers in the compiler's output back to the author's lines."""

import re

from xdpchain.bpf.compiler.lines import NumberedText

UNIT = '#line 10 "a.c"\nint a;\n#define TWO \\\n  2\n\n#line 3 "dir/b \\"c\\".h"\nint b;\n'


def number_before(text, line):
    found = re.search(rf'#line (\d+) "[^"]*"\n{re.escape(line)}', text.text)
    assert found
    return int(found[1])


def test_each_line_leads_to_its_file_and_line():
    text = NumberedText(UNIT)

    assert str(text.origin(number_before(text, "int a;"))) == "a.c:10"
    assert str(text.origin(number_before(text, "int b;"))) == 'dir/b "c".h:3'
    assert text.origin(number_before(text, "int a;")) == ("a.c", 10, "int a;")


def test_lines_that_bcc_adds_still_lead_there():
    text = NumberedText(UNIT)
    number = number_before(text, "int a;")

    assert {str(text.origin(number + added)) for added in range(20)} == {"a.c:10"}


def test_a_continued_line_is_left_whole():
    assert "#define TWO \\\n  2\n" in NumberedText(UNIT).text


def test_numbers_that_no_line_has_lead_nowhere():
    text = NumberedText("int a;")

    assert text.origin(0) is None
    assert text.origin(1 << 20) is None
    assert text.translate("xdpchain-unit.c:0: x") == "xdpchain-unit.c:0: x"
    assert text.translate("kept\n;  @ xdpchain-unit.c:0") == "kept"


def test_the_verifiers_places_get_their_source_text():
    text = NumberedText(UNIT)
    number = number_before(text, "int a;")

    assert text.translate(f";  @ xdpchain-unit.c:{number}\n0: (95) exit") == "; int a; @ a.c:10\n0: (95) exit"


def test_text_before_the_first_line_directive_is_the_cores():
    assert str(NumberedText("int a;").origin(64)) == "the core's text:1"
