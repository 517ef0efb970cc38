"""How much memory a server's processes take, shared pages counted once."""

from __future__ import annotations

from pathlib import Path

from benchmarks.server_process import Running


def memory(server: Running) -> int:
    """Give the proportional set size (PSS) of all the server's processes, in KiB.

    One that ends meanwhile takes none.
    """
    return sum(map(_proportional, server.processes()))


def _proportional(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0])
    raise LookupError(f"no Pss of process {process}")
