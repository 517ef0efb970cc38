"""The programs that the machine may lack: tests that need them are skipped then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.kit.servers import ROOT, environment


def tool(name: str) -> str:
    """The path of a program; the test is skipped if the machine lacks it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def node_packages() -> Path:
    """The directory of the node clients; skipped if node or its packages are missing."""
    tool("node")
    directory = ROOT / "tests" / "node"
    if not (directory / "node_modules").is_dir():
        pytest.skip("the node packages are not installed: run npm ci in tests/node")
    return directory


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of tests/node and what it prints; it has to come to a good end."""
    return subprocess.run(
        ["node", *arguments],
        cwd=node_packages(),
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=90,
    )
