"""npm's openai in Chromium, on a page of another origin that is allowed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.live.kit.browser import chromium
from tests.live.kit.services import service
from tests.live.kit.tools import node_packages

#: Every header that the client can send makes the browser ask first.
PAGE = """<!doctype html><script type="module">
const tell = (told) => fetch("/told", { method: "POST", body: JSON.stringify(told) });
try {
  const { default: OpenAI } = await import("/openai/index.mjs");
  let run = null;
  const client = new OpenAI({
    baseURL: "SERVICE/v1", apiKey: "none", organization: "o", project: "p", maxRetries: 0,
    defaultHeaders: { "Helicone-Auth": "h" }, dangerouslyAllowBrowser: true,
    fetch: async (address, init) => {
      const response = await fetch(address, init);
      run = response.headers.get("x-run-id");
      return response;
    },
  });
  const messages = [{ role: "user", content: "hello" }];
  const stream = await client.chat.completions.create({ model: "m", stream: true, messages });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  await tell({ text, run });
} catch (error) {
  await tell({ error: String(error) });
}
</script>"""


class Pages(SimpleHTTPRequestHandler):
    """The page, the client's modules beside it, and what the page tells."""

    page = b""
    reported: SimpleQueue[Any] = SimpleQueue()
    extensions_map = {".mjs": "text/javascript"}  # noqa: RUF012  # the base class's

    def do_GET(self) -> None:
        """Its page, and files."""
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page)

    def do_POST(self) -> None:
        """What it tells."""
        self.reported.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def pages() -> Iterator[tuple[str, type[Pages]]]:
    handler = type("Handler", (Pages,), {"reported": SimpleQueue()})
    serve: Any = partial(handler, directory=str(node_packages() / "node_modules"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()


def test_openai_in_a_browser(tmp_path: Path) -> None:
    with (
        pages() as (origin, handler),
        service(tmp_path, settings={"SSEFLASK_CORS_ORIGINS": origin}) as server,
    ):
        handler.page = PAGE.replace("SERVICE", server.url).encode()
        with chromium(tmp_path, origin):
            reported = handler.reported.get(timeout=60)
    assert reported["text"].endswith("You said: hello"), reported
    assert len(reported["run"]) == 32
