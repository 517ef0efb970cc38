"""Settings of runs that make no sense stop the start with one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.servers import GUNICORN, ROOT, environment, free_port


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSEFLASK_MAX_PROMPT", "-1"),
        ("SSEFLASK_MAX_PROMPT", "much"),
        ("SSEFLASK_RATE_LIMIT", "often"),
        ("SSEFLASK_RATE_LIMIT", "-5/minute"),
        ("SSEFLASK_MAX_RUNS", "-1"),
        ("SSEFLASK_MAX_RUNS", "1.5"),
        ("SSEFLASK_RUN_SECONDS", "-1"),
        ("SSEFLASK_RUN_SECONDS", "nan"),
        ("SSEFLASK_RUN_SECONDS", "a day"),
    ],
)
@pytest.mark.parametrize("how", ["serve", "production"])
def test_a_bad_setting(how: str, name: str, value: str) -> None:
    command = {
        "serve": [sys.executable, "-m", "sseflask", "serve", "--dev"],
        "production": [*GUNICORN, "wsgi:app", "-c", "sseflask/gunicorn_conf.py"],
    }[how]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(PORT=str(free_port()), **{name: value}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = (done.stdout + done.stderr).strip()
    assert done.returncode != 0
    assert "Traceback" not in said
    assert name in said
    assert len(said.splitlines()) == 1, said
