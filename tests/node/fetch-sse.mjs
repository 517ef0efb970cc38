// Reads a stream by POST as @microsoft/fetch-event-source does: fetch, a parser, and the same
// request again with Last-Event-ID when the connection breaks. A proper end is the end. Prints
// what it dispatches, then how it ended, one JSON line each.
// Usage: node fetch-sse.mjs <url> <JSON body>
import { createParser } from "eventsource-parser";

const [url, body] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
let last = null;
let run = null;

async function readOnce() {
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: {
      Accept: "text/event-stream",
      "Content-Type": "application/json",
      ...(last !== null && { "Last-Event-ID": last }),
    },
  });
  print({ open: response.status, run: response.headers.get("x-run-id") });
  run = response.headers.get("x-run-id") ?? run;
  if (response.status !== 200) return true;
  const parser = createParser({
    onEvent({ id, event, data }) {
      if (id !== undefined) last = id;
      print({ type: event ?? "message", data, lastEventId: id ?? "" });
    },
  });
  const decoder = new TextDecoder();
  try {
    for await (const piece of response.body) parser.feed(decoder.decode(piece, { stream: true }));
  } catch (error) {
    print({ broken: error.message });
    return false;
  }
  return true;
}

while (!(await readOnce())) await new Promise((resolve) => setTimeout(resolve, 100));
print({ end: true });
