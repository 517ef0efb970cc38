"""The application of `sseflask_worker` with two workers, which read what the other one has stored.

Its log is a file, which `SSEFLASK_CHANNEL_LOG` has to name: memory is each worker's own.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.servers import sseflask_worker

STACK = replace(
    sseflask_worker.STACK,
    name="sseflask_library_workers",
    title="Flask + sseflask, gunicorn -k StreamWorker, two workers",
    command=(*sseflask_worker.STACK.command, "--workers", "2"),
    routes={
        "subscribe": sseflask_worker.STACK.routes["subscribe"],
        "publish": sseflask_worker.STACK.routes["publish"],
        "publish_across": sseflask_worker.STACK.routes["publish"],
    },
)
