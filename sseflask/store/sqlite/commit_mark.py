"""Tells whether a database has been committed to, by any process, without asking SQLite.

With write-ahead logging the processes share an index of the log in a file beside the database. It
begins with a header, which says where the log ends: each commit has written it before it returns
(https://www.sqlite.org/walformat.html, section 2.1). What of the log has been copied into the
database comes after it. Reading these bytes takes a microsecond and waits for nothing, so it is fit
for the event loop.
"""

from __future__ import annotations

import os
import struct

#: Bytes of the header's first copy, which a commit writes last.
_BYTES = 48

#: What the header begins with, in the machine's own byte order. If another version of SQLite had
#: another header, nothing would be told.
_FORMAT = (3_007_000).to_bytes(4, "little"), (3_007_000).to_bytes(4, "big")

#: The header twice, with the number of pages in the log; then how many of them have been copied.
_PAGES = struct.Struct("=16xI76xI")


def commit_mark(descriptor: int | None) -> bytes:
    """What changes with each commit; empty if that can't be told now.

    If it is the same before and after, nothing was committed in between. Any thread; never blocks.

    Args:
        descriptor: that of the index, see `private_files.index_of`. It may be closed by now, and
            even be another file's.
    """
    if descriptor is None:
        return b""
    try:
        header = os.pread(descriptor, _BYTES, 0)
    except OSError:
        return b""
    return header if len(header) == _BYTES and header.startswith(_FORMAT) else b""


def pages_to_copy(descriptor: int | None) -> int | None:
    """How many pages of the log have not been copied into the database; ``None`` if not known.

    Any thread; never blocks.

    Args:
        descriptor: see `commit_mark`.
    """
    if descriptor is None:
        return None
    try:
        header = os.pread(descriptor, _PAGES.size, 0)
    except OSError:
        return None
    if len(header) < _PAGES.size or not header.startswith(_FORMAT):
        return None
    pages: int
    copied: int
    pages, copied = _PAGES.unpack(header)
    return max(0, pages - copied)
