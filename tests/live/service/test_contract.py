"""Schemathesis, which makes requests of the OpenAPI document, finds nothing that is not in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.kit.servers import ROOT, environment
from tests.live.kit.services import SECRET, make_token, service

#: Streams end after this time, and can be resumed; those without an end too.
LIFETIME = "0.05"
#: As the Procfile has it.
CONFIGURATION = ("-c", "sseflask/gunicorn_conf.py")


@pytest.mark.timeout(240)
@pytest.mark.waits_long
def test_the_service_is_as_documented(tmp_path: Path) -> None:
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PAGE": "true",
        "SSEFLASK_LIFETIME": LIFETIME,
        "SSEFLASK_RATE_LIMIT": "off",
    }
    rights = ("--sub", "contract", "--complete", "--publish", "**", "--subscribe", "**")
    application = "tests.live.service.quick_app:create_quick_app()"
    with service(tmp_path, *CONFIGURATION, settings=settings, application=application) as server:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(ROOT / "tests" / "live" / "service" / "schemathesis.toml")),
                *("run", f"{server.url}/openapi.json"),
            ],
            cwd=tmp_path,
            env=environment(CONTRACT_TOKEN=make_token(*rights)),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-4000:]
    assert "No issues found" in done.stdout, done.stdout[-4000:]
