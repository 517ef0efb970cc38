// Reads a stream with the project's own client module, and prints what it tells, one JSON line each.
// Usage: node sse.mjs <url> <JSON options>. Without the random part of its delays. Options are the
// module's, but for `size` (of the pieces in which a body is read) and `attach` (a run's address
// without its id).
import { stream } from "../../sseflask/static/sse.js";

const [url, options = "{}"] = process.argv.slice(2);
const print = (...line) => process.stdout.write(JSON.stringify(line) + "\n");
Math.random = () => 0;

const { size, attach, ...given } = JSON.parse(options);

/** A body in pieces of so many bytes, each read by itself. */
async function inPieces(request) {
  const response = await fetch(request);
  if (response.status !== 200) return response;
  const bytes = new Uint8Array(await response.arrayBuffer());
  let at = 0;
  const pull = (controller) => {
    if (at >= bytes.length) controller.close();
    else controller.enqueue(bytes.slice(at, (at += size)));
  };
  return new Response(new ReadableStream({ pull }), response);
}

const ended = await stream(url, {
  retry: 10,
  ...given,
  ...(size && { fetch: inPieces }),
  ...(attach && { attach: (run) => attach + run }),
  onOpen: (response) => print("open", response.status),
  onEvent: ({ id, event, data }) => print("event", id, event, data),
  onGap: (gap) => print("gap", gap),
  onDone: (data) => print("done", data ?? null),
  onFailure: (error) => print("failure", error.message, error.code ?? null),
  onRetry: ({ delay, cause, lastEventId }) => print("again", lastEventId, delay),
});
print("ended", ended);
