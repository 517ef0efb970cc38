"""Streams that are ended below a platform's cap and resumed; runs that are forgotten in time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.events import Sent
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import RESUMABLE, after, end_of, plain, text_of
from tests.live.kit.runs import (
    JSON,
    START,
    ask,
    ask_start,
    attach,
    path_of,
    replay,
    rest,
    run_of,
    run_service,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.waiting import until

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def rotating(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """A service that ends its streams after a second, to be resumed."""
    settings = {"SSEFLASK_LIFETIME": "1"}
    with run_service(tmp_path_factory.mktemp("rotating"), scripted, settings=settings) as server:
        yield server


@pytest.fixture(scope="module")
def forgetful(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """A service that keeps runs for two seconds after their end."""
    directory, settings = tmp_path_factory.mktemp("forgetful"), {"SSEFLASK_RUN_SECONDS": "2"}
    with run_service(directory, scripted, workers=1, settings=settings) as server:
        yield server


class Reader(threading.Thread):
    """Reads one stream to its end, coming back with its last id when the stream ends.

    Args:
        server: where.
        path: what.
        headers: with each request.
    """

    def __init__(self, server: Server, path: str, headers: dict[str, str]) -> None:
        super().__init__()
        self.server = server
        self.path = path
        self.headers = headers
        self.events: list[Sent] = []
        self.connections = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            last: str | None = None
            while True:
                cursor = {"Last-Event-ID": last} if last else {}
                stream = open_stream(self.server, self.path, headers={**self.headers, **cursor})
                if stream.head.status == 204:
                    stream.connection.close()
                    return
                self.connections += 1
                assert stream.head.status == 200, stream.head
                with stream:
                    events = plain(stream.rest())
                self.events += [event for event in events if event.data is not None]
                last = next((event.id for event in events[::-1] if event.id), last)
                assert all(500 <= int(pauses) <= 3000 for pauses in stream.retries)
        except BaseException as error:
            self.error = error

    def wait(self) -> list[Sent]:
        self.join(60)
        assert not self.is_alive(), "the reader has not come to an end"
        if self.error is not None:
            raise self.error
        return self.events


def speak(script: ScriptedAnswer, count: int, pause: float) -> None:
    """An answer that takes its time."""
    for n in range(count):
        script.say(f"{n} ")
        time.sleep(pause)
    script.finish()


def test_no_event_is_lost_or_doubled(rotating: Server, script: ScriptedAnswer) -> None:
    """Three formats while the upstream speaks for more than three lifetimes."""
    script.say("begin ")
    with start(rotating, script, on_disconnect="continue") as stream:
        run = run_of(stream)
        stream.next()
    readers = [Reader(rotating, f"/runs/{run}?format={format}", {}) for format in RESUMABLE]
    url = path_of(START, user_message=script.message, format="text", last_event_id=f"{run}.0")
    readers.append(Reader(rotating, url, EVENT_SOURCE))
    for reader in readers:
        reader.start()
    speak(script, 120, 0.03)
    got = [reader.wait() for reader in readers]
    text = "begin " + "".join(f"{n} " for n in range(120))
    for format, events, reader in zip([*RESUMABLE, "text"], got, readers, strict=True):
        assert events == replay(rotating, run, format)
        assert text_of(format, events) == text
        assert end_of(format, events) == ("[DONE]" if format == "chunks" else "stop")
        assert reader.connections >= 3, "its stream was ended"
    assert script.count == 1


def test_an_event_source_is_sent_away_before_the_first_token(
    rotating: Server, script: ScriptedAnswer
) -> None:
    """It has had an id by then, with which it comes back to the same run."""
    script.begin()
    reader = Reader(rotating, path_of(START, user_message=script.message), EVENT_SOURCE)
    reader.start()
    until(lambda: reader.connections >= 3, "its stream has been ended twice")
    script.say("one")
    script.finish()
    events = reader.wait()
    assert text_of("chunks", events) == "one"
    assert [(event.id or "").partition(".")[2] for event in events] == ["1", "2", "3", "4"]
    assert script.count == 1


def test_streams_that_are_not_rotated(rotating: Server, script: ScriptedAnswer) -> None:
    """`ui` can't be resumed, and OpenAI's clients do not know how."""
    script.say("begin ")
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "%s"}]}'
    v1 = open_stream(
        rotating, CHAT, method="POST", headers=JSON, body=body % script.message.encode()
    )
    ui = start(rotating, script, format="ui")
    viewer = attach(rotating, run_of(ui), "ui")
    streams = [("chunks", v1), ("ui", ui), ("ui", viewer)]
    with contextlib.ExitStack() as stack:
        for _, stream in streams:
            stack.enter_context(stream)
        speak(script, 60, 0.05)
        for format, stream in streams:
            events = rest(stream)
            assert text_of(format, events) == "begin " + "".join(f"{n} " for n in range(60))
            assert end_of(format, events) == ("[DONE]" if format == "chunks" else "stop")
    assert script.count == 2


def forgotten(server: Server, run: str) -> None:
    def gone() -> bool:
        answer = ask(server, f"/runs/{run}")
        return answer.status == 404 and error_of(answer, 404)["code"] == "run_not_found"

    until(gone, "the run is forgotten", seconds=30, pause=0.2)


@pytest.mark.parametrize("how", ["finished", "stopped", "failed"])
def test_forgotten_after_its_end(forgetful: Server, script: ScriptedAnswer, how: str) -> None:
    """With all that belongs to it: cursors, the key, DELETE."""
    script.say("one")
    key = {"Idempotency-Key": f"key-{script.message}"}
    with start(forgetful, script, key) as stream:
        run = run_of(stream)
        stream.next()
        if how == "finished":
            script.finish()
        elif how == "stopped":
            stop(forgetful, run)
        else:
            script.hang_up()
        last = rest(stream)[-1].id
    forgotten(forgetful, run)
    assert ask(forgetful, f"/runs/{run}?format=ui").status == 204
    error_of(ask(forgetful, f"/runs/{run}", "DELETE"), 404)
    path = path_of(START, user_message=script.message)
    for cursor in (f"{run}.1", last or ""):
        answer = ask(forgetful, path, headers={"Last-Event-ID": cursor})
        assert error_of(answer, 404)["code"] == "run_not_found"
    assert script.count == 1
    with start(forgetful, script, key, system_prompt="something else") as stream:
        assert stream.head.status == 200, "the key is free again, for any content"
        assert run_of(stream) != run
        assert "idempotency-replayed" not in stream.head.headers


def test_a_refused_one_is_forgotten_too(forgetful: Server, script: ScriptedAnswer) -> None:
    script.answer(400, b'{"error": {"message": "No."}}')
    key = {"Idempotency-Key": f"key-{script.message}"}
    run = run_of(ask_start(forgetful, script, key))
    forgotten(forgetful, run)
    again = ask_start(forgetful, script, key)
    assert run_of(again) != run
    assert script.count == 2


def test_not_forgotten_while_it_runs(forgetful: Server, script: ScriptedAnswer) -> None:
    """The time is counted from its end."""
    script.say("begin ")
    with start(forgetful, script, format="text") as stream:
        run = run_of(stream)
        begun = time.monotonic()
        n = 0
        while time.monotonic() < begun + 6:
            assert stream.next().data is not None
            script.say(f"{n} ")
            n += 1
            time.sleep(0.2)
        script.finish()
        rest(stream)
    events = replay(forgetful, run, "text")
    assert text_of("text", events) == "begin " + "".join(f"{n} " for n in range(n))
    assert rest(attach(forgetful, run, "text", f"{run}.1")) == after(run, events, 1)
