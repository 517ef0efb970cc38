"""Imported by every Python that finds this folder on its path: has the service leave marks.

`benchmarks.marks` describes them.
"""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_VARIABLE = "BENCHMARK_MARKS"


class _BeforeTheService(importlib.abc.MetaPathFinder):
    """Adds the notes just before the service is imported: gevent has replaced things by then."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  # the base's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == "sseflask.app":
            sys.meta_path.remove(self)
            from benchmarks.marks import Marks, note_all

            note_all(Marks(Path(os.environ[_VARIABLE])))
        return None


if _VARIABLE in os.environ:
    sys.meta_path.insert(0, _BeforeTheService())
