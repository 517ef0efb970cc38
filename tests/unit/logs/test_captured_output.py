"""What is printed is written line by line."""

from __future__ import annotations

import io

from sseflask.logs.captured_output import Printed


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    written = io.StringIO()
    printed = Printed(written, lambda line: line, longest=100)
    printed.write("x" * 60)
    assert written.getvalue() == "", "it may go on"
    printed.write("x" * 60)
    (line,) = written.getvalue().splitlines()
    assert "(20 characters)" in line, "what is left out"
    printed.write("y\n")
    assert written.getvalue() == f"{line}\ny\n"
