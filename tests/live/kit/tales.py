"""Tales: runs that go on for a second or two, asked for one after the other."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.live.kit.background import Background
from tests.live.kit.publishing import JSON
from tests.live.kit.runs import START
from tests.live.kit.services import KEY
from tests.scripted_upstream import DONE, LAST_CHUNK, Exchange, chunk, frame, upstream

#: How many texts a tale has, and the seconds between two of them.
TEXTS, PAUSE = 40, 0.03


def texts_of(tale: str) -> list[str]:
    return [f"{tale}:{n};" for n in range(TEXTS)]


def tell(exchange: Exchange) -> None:
    """The upstream: the last message of a request is the name of the tale."""
    exchange.begin()
    for text in texts_of(exchange.body["messages"][-1]["content"]):
        exchange.chunk(frame(text))
        time.sleep(PAUSE)
    exchange.chunk(frame(finish="stop"))
    exchange.send(chunk(DONE) + LAST_CHUNK)


@contextlib.contextmanager
def tale_upstream(host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """An upstream that tells tales; gives the settings that make it the service's."""
    with upstream(tell, seconds=30, cut=True, host=host) as server:
        yield {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}


class Tales(Background):
    """Asks for one tale after the other, each until a run of it has begun; in a thread.

    Args:
        ports: those of the machines: each tale is asked of one at random, and then of the next.
        name: what the tales' names begin with.
        headers: further request headers.
        begun: called with the name of a tale and the id of its run.
        choice: what is random.
    """

    def __init__(
        self,
        ports: Sequence[int],
        name: str,
        headers: Mapping[str, str],
        begun: Callable[[str, str], None],
        choice: random.Random,
    ) -> None:
        self._ports = ports
        self._name = name
        self._headers = headers
        self._begun = begun
        self._random = choice
        #: The statuses of answers that began no run.
        self.refused: list[int] = []

    def run(self) -> None:
        """Ask; the tale under way still begins."""
        numbers = itertools.count()
        while self.going_on:
            self._ask(f"{self._name}-{next(numbers)}")
            time.sleep(0.5)

    def _ask(self, tale: str) -> None:
        body = json.dumps({"user_message": tale, "format": "text", "on_disconnect": "continue"})
        headers = {**self._headers, "Content-Type": JSON, "Idempotency-Key": tale}
        for at in itertools.count(self._random.randrange(len(self._ports))):
            port = self._ports[at % len(self._ports)]
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as to,
            ):
                to.request("POST", START, body, headers)
                answer = to.getresponse()
                if answer.status == 200:
                    self._begun(tale, answer.headers["X-Run-Id"])
                    return
                assert answer.status == 503, f"{answer.status} {answer.read()!r}"
                self.refused.append(answer.status)
            time.sleep(0.05)
