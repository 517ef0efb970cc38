"""What a type checker says of code that uses the public calls for durable generators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

#: A line that ends with ``# error`` has to be refused, and no other.
CODE = """\
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from flask import Flask, Response

from openai import AsyncOpenAI, AzureOpenAI, OpenAI

from sseflask import SSE, Event, openai_chunks, openai_response, text_chunks

app = Flask(__name__)
sse = SSE(app)


def words() -> Iterator[str]:
    yield "one"


def counted() -> Generator[Event | dict[str, int], None, int]:
    yield Event("one", event="note")
    yield {"n": 1}
    return 2


def emitting(run: Any) -> Iterator[str]:
    run.emit("one")
    run.emit({"n": 1})
    yield "two"


def again(run_id: str, last_item: Any) -> Iterator[str]:
    yield run_id


async def asynchronous() -> AsyncIterator[str]:
    yield "never"


@app.post("/answers")
def ask() -> Response:
    return sse.run(words(), owner="ann", idempotency_key="k", on_disconnect="cancel")


@app.get("/answers/<run_id>")
def follow(run_id: str) -> Response:
    return sse.attach(run_id, owner="ann", last_event_id="earliest")


one: Response = sse.run(counted(), on_disconnect=30, heartbeat=5.0, keep=60)
two: Response = sse.run(emitting, owner=7, on_disconnect="continue")
three: Response = sse.run([1, "two", {"three": 3}])
four: Response = sse.run(words(), resume=again)
run_id: str = sse.start(words(), owner=None, idempotency_key=None)
state: str = sse.stop(run_id, owner="ann")
result = sse.result(run_id, owner="ann")
how: str = result.state
count: int = len(result.events)
for item in result.events:
    print(item)

client, azure = OpenAI(), AzureOpenAI(api_version="2026-01-01", azure_endpoint="https://a.invalid")
sse.run(openai_chunks(client, [{"role": "user", "content": "Hi"}], model="m"), format="ui")
sse.start(openai_chunks(azure, [], model="m", temperature=0), owner=7)
sse.run(openai_response(client, "Hi", model="m"), format="text", idempotency_key="k")
sse.run(openai_response(client, input=[{"role": "user", "content": "Hi"}], model="m"))
sse.run(text_chunks(words(), model="m"), format="chunks")

openai_chunks(AsyncOpenAI(), [], model="m")  # error
openai_chunks(client, "Hi", model="m")  # error
openai_chunks(client, [], "m")  # error
openai_response(client, 7)  # error
text_chunks(asynchronous())  # error
text_chunks([b"bytes"])  # error
text_chunks(words(), "m")  # error
sse.run()  # error
sse.run(7)  # error
sse.run(asynchronous())  # error
sse.run(words(), on_disconnect="leave")  # error
sse.run(words(), "ann")  # error
sse.run(words(), idempotency_key=7)  # error
sse.run(words(), resume=words())  # error
sse.run(words(), keep="a day")  # error
sse.attach()  # error
sse.attach(7)  # error
sse.attach(run_id, "ann")  # error
sse.stop(None)  # error
bad: int = sse.stop(run_id)  # error
sse.start(words(), after="earliest")  # error
result.nonsense  # error
"""


def test_the_public_calls(tmp_path: Path) -> None:
    file = tmp_path / "application.py"
    file.write_text(CODE)
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--no-error-summary", str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    said = [line.split(":") for line in done.stdout.splitlines() if ": error: " in line]
    refused = sorted({int(parts[1]) for parts in said if parts[0].endswith("application.py")})
    lines = CODE.splitlines()
    expected = [n for n, line in enumerate(lines, 1) if line.endswith("# error")]
    assert refused == expected, done.stdout + done.stderr
