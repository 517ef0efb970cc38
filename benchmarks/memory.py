"""How much memory a server's processes take, shared pages counted once."""

from __future__ import annotations

from pathlib import Path

from benchmarks.server_process import Running

#: The parts of the proportional set size (PSS) that a server takes for itself. Pages of files are
#: left out: their share changes with other processes that use the same libraries.
_COUNTED = ("Pss_Anon", "Pss_Shmem")


def memory(server: Running) -> int:
    """Give what all the server's processes take beside the pages of files, in KiB.

    One that ends meanwhile takes none.
    """
    return sum(map(_proportional, server.processes()))


def _proportional(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(sizes[name].split()[0]) for name in _COUNTED)
