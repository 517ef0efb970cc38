"""The answer to a plain request: what gunicorn's `AsyncWorker.handle_request` does.

Its steps, and their order, are gunicorn's. What is saved is the making of the environment
(`Environments`), and two calls that stay on the stack of each stream.
`tests/unit/transport/gunicorn/test_plain_response.py` compares what clients, hooks and logs get.
"""

from __future__ import annotations

import contextlib
import socket
from datetime import datetime
from typing import Any

import gevent

from sseflask.transport.gunicorn.plain_request import Environments, PlainRequest


def answer(
    worker: Any,
    environments: Environments,
    server: Any,
    request: PlainRequest,
    client: Any,
    address: Any,
) -> None:
    """Answer one request; a kill ends it without an error.

    Raises:
        StopIteration: the connection is to be closed.
        OSError: it is broken.
    """
    cfg, log = worker.cfg, worker.log
    began = datetime.now()
    environ: dict[str, Any] = {}
    response: Any = None
    try:
        cfg.pre_request(worker, request)
        response, environ = environments.create(request, client, address, server)
        worker.nr += 1
        if worker.nr >= worker.max_requests and worker.alive:
            log.info("Autorestarting worker after current request.")
            worker.alive = False
        if not worker.alive or not cfg.keepalive:
            response.force_close()
        body = worker.wsgi(environ, response.start_response)
        if worker.is_already_handled(body):
            return
        try:
            if isinstance(body, environ["wsgi.file_wrapper"]):
                response.write_file(body)
            else:
                for piece in body:
                    response.write(piece)
            response.close()
        finally:
            log.access(response, request, environ, datetime.now() - began)
            if hasattr(body, "close"):
                body.close()
        if response.should_close():
            raise StopIteration
    except gevent.GreenletExit:
        pass  # gunicorn's gevent worker takes it for an answer, too
    except (StopIteration, OSError):
        raise
    except (Exception, SystemExit) as error:
        if response and response.headers_sent:
            # An error page would be a part of the response.
            log.exception("Error handling request")
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
                client.close()
            raise StopIteration from None
        if not isinstance(error, SystemExit):
            raise
    finally:
        try:
            cfg.post_request(worker, request, environ, response)
        except Exception:
            log.exception("Exception in post_request hook")
