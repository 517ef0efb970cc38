"""A bare loop over send(2) in C, `bare_c.c`: the physical limit, with nothing above the kernel.

python -m benchmarks.servers.bare_c 8000 compiles it and becomes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.stack import CHANNEL_ROUTES, ROUTES, Stack

_COMPILER = "cc" if shutil.which("cc") else "gcc"
if not shutil.which(_COMPILER):
    raise ImportError("no C compiler (cc or gcc)")

STACK = Stack(
    name="bare_c",
    title="bare send(2) loop (C)",
    family="bare",
    command=(sys.executable, "-m", "benchmarks.servers.bare_c", "{port}"),
    packages=(),
    programs={"cc": (_COMPILER, "--version")},
    routes={name: path for name, path in ROUTES.items() if name != "silent"}
    | {name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish", "health")},
)


def build(directory: Path) -> Path:
    """Compile the server into a directory and give its path; warnings go to standard error."""
    program = directory / "bare_c"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(
        [_COMPILER, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True
    )
    return program


def main(port: str) -> None:
    """Compile, open the program and take its file away, then become it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-bare-c-") as directory:
        program = os.open(build(Path(directory)), os.O_RDONLY | os.O_CLOEXEC)
    os.execve(program, ["bare_c", port], dict(os.environ))


if __name__ == "__main__":
    main(sys.argv[1])
