"""Tells whether a database has been committed to, by any process, without asking SQLite.

With write-ahead logging the processes share an index of the log in a file beside the database. It
begins with a header, which says where the log ends: each commit has written it before it returns
(https://www.sqlite.org/walformat.html, section 2.1). Reading these bytes takes a microsecond and
waits for nothing, so it is fit for the event loop.
"""

from __future__ import annotations

import os

#: Bytes of the header's first copy, which a commit writes last.
_BYTES = 48

#: What the header begins with, in the machine's own byte order. If another version of SQLite had
#: another header, nothing would be told.
_FORMAT = (3_007_000).to_bytes(4, "little"), (3_007_000).to_bytes(4, "big")


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
