"""The browser's file of Datastar. `python -m tests.live.kit.datastar` fetches it, once.

It is in no registry by itself. A package has the bundle of a release as it is; to install that
package takes a newer Python than ours, to unpack it does not.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

BUNDLE = Path(__file__).parents[2] / "node" / "node_modules" / "datastar.js"
#: Of the release that the example names.
DIGEST = "727844adfc825ee651fb93c544a2a739986f9a21820a94524b35f0cac470cf91"


def bundle() -> Path:
    """Its path; the test is skipped if it has not been fetched."""
    if not BUNDLE.exists():
        pytest.skip("Datastar is not there: run python -m tests.live.kit.datastar")
    return BUNDLE


def fetch() -> None:
    with tempfile.TemporaryDirectory() as directory:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.14"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", directory]
        subprocess.run([*command, "stario-create==5.2.0"], check=True)
        (wheel,) = Path(directory).glob("*.whl")
        content = zipfile.ZipFile(wheel).read("stario_create/vendor/datastar.js")
    assert hashlib.sha256(content).hexdigest() == DIGEST
    BUNDLE.write_bytes(content)


if __name__ == "__main__":
    fetch()
