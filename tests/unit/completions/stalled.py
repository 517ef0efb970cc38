"""``python -m tests.unit.completions.stalled``: reads an answer under gevent, whose loop
stands still from its first frame until there is a line to read; prints how the answer ended."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import os

import gevent

from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from sseflask.errors import Failure


def stall() -> None:
    print("stalled", flush=True)
    os.read(0, 100)  # not gevent's: nobody else runs


def main() -> str:
    frames = Upstream(load()).stream(CompletionRequest("/chat/completions", b"{}"))
    next(frames)
    gevent.get_hub().loop.run_callback(stall)  # as soon as the next frame is waited for
    try:
        list(frames)
    except Failure as failure:
        return str(failure.code)
    return "complete"


if __name__ == "__main__":
    print(main(), flush=True)
