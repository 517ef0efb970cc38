"""A shell that runs what a document shows, step by step, against a server of the tests."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.live.kit.servers import environment

__all__ = ["Shell"]

_END = "\x1e"

# A stream without an end is left after some seconds. What is installed, built or served is only
# looked at: the tests of a fresh clone do it.
_PRELUDE = r"""
set -E
trap 'failed="$failed $BASH_COMMAND;"' ERR
curl() { command curl -sS --max-time "$STREAM_SECONDS" "$@" || [ $? -eq 28 ]; }
gunicorn() { command python -m gunicorn --check-config "$@"; }
make() { command make --dry-run "$@" > /dev/null; }
pip() { [ "$1" = install ] && [ -e "${@: -1}" ]; }
"""


class Shell:
    """One bash, so that later steps have the variables of earlier ones.

    Args:
        directory: where it runs.
        settings: further environment variables.
        stream_seconds: after which curl leaves a stream that has no end.
    """

    def __init__(
        self, directory: Path, settings: dict[str, str], stream_seconds: float = 2
    ) -> None:
        scripts = str(Path(sys.executable).parent)
        path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
        self._errors = directory / "errors.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=directory,
                env=environment(PATH=path, STREAM_SECONDS=str(stream_seconds), **settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.run(_PRELUDE)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, text: str, seconds: float = 60) -> str:
        """What a script prints; each of its commands must succeed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        script = f"failed=\n{text}\nprintf '{_END}%s{_END}' \"$failed\"\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        printed, deadline = b"", time.monotonic() + seconds
        while printed.count(_END.encode()) < 2:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(left, 0))
            piece = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            assert piece, f"not done after {seconds} s, or ended:\n{text}\n{printed.decode()}"
            printed += piece
        output, failed, _ = printed.decode().split(_END)
        assert not failed, f"failed:{failed}\n{text}\n{output}\n{self._errors.read_text()}"
        return output
