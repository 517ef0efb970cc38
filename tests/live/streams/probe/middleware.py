"""The probe's views behind what others put around an application, each under its own prefix.

Sentry wraps every Flask application of a process, so it has a process of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from flask import Flask, Response, abort, request
from flask.typing import ResponseReturnValue
from flask_compress import Compress
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, make_wsgi_app
from prometheus_flask_exporter import PrometheusMetrics
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from sseflask import SSE, EventSourceResponse
from tests.live.kit.notes import ProbeError, held, mark, open_gate, tag
from tests.live.streams.probe import behaviour

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make_app(name: str) -> Flask:
    app = Flask(name)
    app.config["SSEFLASK_CHANNEL_LOG"] = f"{os.environ['PROBE_MARKS']}/{name}.sqlite3"
    sse = SSE(app)
    app.register_blueprint(behaviour.blueprint)

    @app.get("/hello")
    def hello() -> ResponseReturnValue:
        return {"scheme": request.scheme, "root": request.script_root}

    @app.post("/wake")
    def wake() -> ResponseReturnValue:
        return {"woken": open_gate(tag())}

    @app.get("/stats")
    def stats() -> ResponseReturnValue:
        return {**held()}

    @app.get("/refused/<int:status>")
    def refused(status: int) -> ResponseReturnValue:
        """Refuses before the first event, and crashes where there is no status; with `plain` in a
        plain response's generator."""

        def events() -> Iterator[str]:
            if request.args.get("never"):
                yield "never"
            if not status:
                raise ArithmeticError("on purpose")
            abort(status)

        if "plain" in request.args:
            return Response(events(), mimetype="text/event-stream")
        return EventSourceResponse(events())

    @app.get("/subscribe")
    def subscribe() -> ResponseReturnValue:
        return sse.subscribe("news")

    @app.post("/publish")
    def publish() -> ResponseReturnValue:
        return {"id": sse.publish("news", request.get_data(as_text=True))}

    @app.errorhandler(ProbeError)
    def page(error: ProbeError) -> ResponseReturnValue:
        return {"page": type(error).__name__}, 418

    return app


class _Exporter(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        for span in spans:
            mark("spans", json.dumps(_noted(span)))
        return SpanExportResult.SUCCESS


def _noted(span: ReadableSpan) -> dict[str, Any]:
    attributes = dict(span.attributes or {})
    return {
        "query": str(attributes.get("http.target", "")).partition("?")[2],
        "status": attributes.get("http.status_code"),
        "outcome": span.status.status_code.name,
        "events": [event.name for event in span.events],
    }


def otel_around() -> WSGI:
    """OpenTelemetry around the application: its span ends when the body has been read."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_Exporter()))
    around: WSGI = OpenTelemetryMiddleware(make_app("otel-around"), tracer_provider=provider)
    return around


def otel() -> WSGI:
    app = make_app("otel")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_Exporter()))
    FlaskInstrumentor().instrument_app(app, tracer_provider=provider)
    return app


def compress() -> WSGI:
    app = make_app("compress")
    Compress(app)
    return app


def prometheus() -> WSGI:
    """Both ways: in Flask's hooks, and counted around the application."""
    app = make_app("prometheus")
    registry = CollectorRegistry()
    PrometheusMetrics(app, registry=registry, path="/flask-metrics")
    answers = Counter("answers", "By status", ["status"], registry=registry)

    def counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        statuses: list[str] = []

        def noted(status: str, *arguments: Any) -> Any:
            statuses.append(status)
            return start_response(status, *arguments)

        body = app(environ, noted)
        answers.labels(statuses[0][:3]).inc()  # it is known when the application has returned
        return body

    return DispatcherMiddleware(counted, {"/metrics": make_wsgi_app(registry)})


def timing() -> WSGI:
    """Hand-made: adds a header, and passes the body through a generator of its own."""
    app = make_app("timing")

    def timed(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        began = time.perf_counter()

        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            taken = f"app;dur={1000 * (time.perf_counter() - began):.1f}"
            return start_response(status, [*headers, ("Server-Timing", taken)], exc_info)

        body = app(environ, started)
        try:
            yield from body
        finally:
            body.close()  # type: ignore[attr-defined]  # Flask's always has it
            mark("timing", environ["QUERY_STRING"])

    return timed


def proxyfix() -> WSGI:
    app = make_app("proxyfix")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_prefix=1)  # type: ignore[method-assign]  # as its docs say
    return app


def blocking() -> WSGI:
    """Its ``start_response`` takes a while and reads the request, as one that asks a service."""
    app = make_app("blocking")

    def inner(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            gevent.sleep(0.05)
            return start_response(status, [*headers, ("X-Path", request.path)], exc_info)

        return wsgi_app(environ, started)

    wsgi_app, app.wsgi_app = app.wsgi_app, inner  # type: ignore[method-assign]
    return app


def zipped() -> WSGI:
    """Compresses each piece by itself, and says so."""
    app = make_app("zipped")

    def zipping(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            kept = [header for header in headers if header[0] != "Content-Length"]
            return start_response(status, [*kept, ("Content-Encoding", "gzip")], exc_info)

        body = app(environ, started)
        try:
            for piece in body:
                yield gzip.compress(piece)
        finally:
            body.close()  # type: ignore[attr-defined]

    return zipping


def holding() -> WSGI:
    """Holds ``start_response`` back until the first piece is there, and changes the pieces."""
    app = make_app("holding")

    def held_back(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        started: list[Any] = []

        def noted(*arguments: Any) -> Any:
            started.append(arguments)

        body = app(environ, noted)
        begun = False
        try:
            for piece in body:
                if not begun:
                    begun = True
                    start_response(*started[0])
                yield piece.replace(b"data", b"DATA")
        finally:
            body.close()  # type: ignore[attr-defined]

    return held_back


def sentry() -> WSGI:
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    class Noting(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            for item in envelope.items:
                event = item.get_event() or item.get_transaction_event()
                if event is not None:
                    mark("sentry", json.dumps(_reported(event)))

    def _reported(event: Any) -> dict[str, Any]:
        raised = [each["value"] for each in event.get("exception", {}).get("values", ())]
        trace = event.get("contexts", {}).get("trace", {})
        return {
            "type": event.get("type", "error"),
            "query": event.get("request", {}).get("query_string"),
            "raised": raised,
            "status": trace.get("status"),
        }

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=Noting, traces_sample_rate=1.0, debug=False
    )
    return make_app("sentry")


_KINDS = (otel, otel_around, compress, prometheus, timing, proxyfix, blocking, zipped, holding)

app: WSGI
if os.environ["PROBE_MIDDLEWARE"] == "sentry":
    app = DispatcherMiddleware(make_app("top"), {"/sentry": sentry()})
else:
    app = DispatcherMiddleware(make_app("top"), {f"/{kind.__name__}": kind() for kind in _KINDS})
