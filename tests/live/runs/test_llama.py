"""llama.cpp's `llama-server` as the upstream, where it is on the path and has a model.

Nothing is collected elsewhere, as nothing may be skipped. `SSEFLASK_TESTS_GGUF` names the model's
file; one with random weights will do, as what it says is not looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.live.kit.connection import fetch
from tests.live.kit.run_events import Decoded, last_id
from tests.live.kit.runs import attach, read, read_run, run_of, run_service, start, stop, take
from tests.live.kit.servers import Server, free_port
from tests.live.kit.waiting import until

PROGRAM = shutil.which("llama-server")
MODEL = os.environ.get("SSEFLASK_TESTS_GGUF")

if PROGRAM and MODEL:

    @pytest.fixture(scope="module")
    def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
        """The port of a llama-server."""
        assert PROGRAM is not None
        assert MODEL is not None
        port = free_port()
        command = [PROGRAM, "-m", MODEL, "--host", "127.0.0.1", "--port", str(port), "--slots"]
        with (
            (tmp_path_factory.mktemp("llama") / "llama.log").open("wb") as log,
            subprocess.Popen(
                [*command, "-c", "4096", "-np", "1", "-t", "1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as process,
        ):

            def healthy() -> bool:
                assert process.poll() is None
                try:
                    return fetch(port, "/health").status == 200
                except OSError:
                    return False

            try:
                until(healthy, "llama-server is ready", seconds=60)
                yield port
            finally:
                process.kill()

    @pytest.fixture(scope="module")
    def server(llama: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with run_service(tmp_path_factory.mktemp("service"), llama) as running:
            yield running

    def busy(port: int) -> bool:
        """Whether it generates, by its own account."""
        return any(slot["is_processing"] for slot in json.loads(fetch(port, "/slots").body))

    def test_llama_is_read_whole(server: Server, access_token: str) -> None:
        url = f"{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key=access_token, max_retries=0) as client:
            chunks = list(
                client.chat.completions.create(
                    model="m",
                    messages=[{"role": "user", "content": "Hello"}],
                    max_tokens=32,
                    stream=True,
                )
            )
        assert [each.finish_reason for chunk in chunks for each in chunk.choices][-1]

    @pytest.mark.parametrize("how", ["leaving", "stopping"])
    def test_llama_is_cancelled(server: Server, llama: int, how: str) -> None:
        """It stops generating, and what it has said stays."""
        with start(server, "Hello", format="text", on_disconnect="cancel") as stream:
            run = run_of(stream)
            before = take(stream, 2)
            assert busy(llama)
            if how == "stopping":
                assert stop(server, run) == "stopped"
                assert read(stream, "text", before).outcome == "stopped"
        until(lambda: not busy(llama), "it generates no more")
        answer = read_run(server, run)
        assert answer.text.startswith(Decoded("text", before).text)
        assert answer.outcome == ("stopped" if how == "stopping" else "cancelled")

    def test_llama_is_resumed(server: Server, llama: int, tmp_path: Path) -> None:
        """From the id before: one generation, one text."""
        del tmp_path
        with start(server, "Hello", format="text") as stream:
            run = run_of(stream)
            before = take(stream, 2)
        last = last_id(before)
        assert busy(llama)
        with attach(server, run, "text", last=last) as stream:
            rest = take(stream, 5)
            assert stop(server, run) == "stopped"
            answer = read(stream, "text", [*before, *rest])
        assert read_run(server, run).events == answer.events
