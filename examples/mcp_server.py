"""An MCP server whose clients lose nothing: each message is in the log before it is sent.

    uvicorn examples.mcp_server:app

Connect any client of streamable HTTP to http://127.0.0.1:8000/mcp, and call the tool `count`. One
that comes back with Last-Event-ID may come to any process that has the same store, also after a
restart. Needs mcp and uvicorn.
"""

import asyncio
import re
import threading
import uuid
from contextvars import ContextVar
from weakref import WeakValueDictionary

from anyio import CancelScope
from anyio.to_thread import run_sync
from flask import Flask
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import (
    EventCallback,
    EventMessage,
    EventStore,
    StreamableHTTPServerTransport,
)
from mcp.types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sseflask import SSE, Failure

flask_app = Flask(__name__)
flask_app.config.from_prefixed_env()
sse = SSE(flask_app)
PATH = "/mcp"
server = MCPServer("counting")


@server.tool()
async def count(to: int, context: Context) -> str:
    """Counts slowly, and tells of each number."""
    for number in range(1, to + 1):
        await asyncio.sleep(0.1)
        await context.report_progress(number, to)
    return f"counted to {to}"


@server.custom_route("/", methods=["GET"])
async def ready(_: Request) -> Response:
    return Response("ready")


class Session:
    """What the SDK does not say to its event store: whose stream it is.

    The tasks of a session keep it in their context, as the request has it that opens the session.
    """

    def __init__(self) -> None:
        self.key = uuid.uuid4().hex


SESSION: ContextVar[Session] = ContextVar("SESSION")


class EventLog(EventStore):
    """Each stream is a channel. An event's id names it, and can't be guessed.

    The SDK is async and the log is not: it is asked in threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = ""
        self._ends = threading.Event()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        process = self._process or await run_sync(self._begin)
        # A stream is named by its client, in any characters.
        stream = uuid.uuid5(uuid.UUID(SESSION.get().key), stream_id)
        channel = f"mcp.{process}.{stream.hex}"
        text = message.model_dump_json(by_alias=True, exclude_unset=True) if message else ""
        last = isinstance(message, JSONRPCResponse | JSONRPCError)
        id = await run_sync(sse.publish, channel, text, "last" if last else None)
        return f"{channel}/{id}"

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> None:
        """Follows the stream to its end, whichever process it grows in."""
        channel, _, cursor = last_event_id.partition("/")
        known = re.fullmatch(r"mcp\.(\w{1,64})\.[0-9a-f]{32}", channel)  # else it were a pattern
        if known is None or not cursor:
            await send_callback(failed("There is no such stream."))
            return
        goes_on = True
        while True:
            came = await run_sync(sse.history, channel, cursor)
            cursor = came.cursor
            if came.gap:
                await send_callback(failed("Events are missing."))
                return
            for event in came.events:
                if event.data:
                    message = jsonrpc_message_adapter.validate_json(event.data)
                    await send_callback(EventMessage(message, f"{channel}/{event.id}"))
                if event.event == "last":
                    return
            if not goes_on:
                await send_callback(failed("The server that ran this has ended."))
                return
            if not came.events:
                await asyncio.sleep(0.1)
                # A process that was killed is found to be dead within ten seconds.
                goes_on = await run_sync(self._goes_on, known[1])

    def _begin(self) -> str:
        """The run that lasts as long as this process: all others see its end."""
        with self._lock:
            if not self._process:
                self._process = sse.start(self._last, max_seconds=float("inf"))
            return self._process

    def _last(self) -> None:
        self._ends.wait()

    def _goes_on(self, process: str) -> bool:
        try:
            return sse.result(process).state == "running"
        except Failure as failure:
            if failure.status == 404:
                return False  # it ended long ago
            raise

    def close(self) -> None:
        self._ends.set()


def failed(reason: str) -> EventMessage:
    """The answer to a request that gets no other. The client knows which it is."""
    error = ErrorData(code=INTERNAL_ERROR, message=reason)
    return EventMessage(JSONRPCError(jsonrpc="2.0", id=None, error=error))


class Resumable:
    """Lets clients that come back read the log, in place of the process that has their session."""

    def __init__(self, app: ASGIApp, log: EventLog) -> None:
        self._app = app
        self._log = log
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                self._log.close()
            return
        headers = Headers(scope=scope)
        if (scope["method"], scope["path"]) == ("GET", PATH) and "last-event-id" in headers:
            id = headers.get("mcp-session-id")
            transport = StreamableHTTPServerTransport(id, event_store=self._log)
            async with transport.connect():
                try:
                    await transport.handle_request(scope, receive, send)
                finally:
                    with CancelScope(shield=True):
                        await transport.terminate()
        else:
            await self._in_session(scope, receive, send)

    async def _in_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        id = Headers(scope=scope).get("mcp-session-id")
        session = (self._sessions.get(id) if id else None) or Session()
        SESSION.set(session)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened = Headers(raw=message["headers"]).get("mcp-session-id")
                if opened:
                    self._sessions[opened] = session
            await send(message)

        await self._app(scope, receive, noting)


log = EventLog()
app = Resumable(server.streamable_http_app(streamable_http_path=PATH, event_store=log), log)
