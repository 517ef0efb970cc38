// Subscribes with npm's eventsource and prints what it dispatches, one JSON line each.
// Usage: node eventsource.mjs <url> <event types, comma separated> [how many events, then close]
import { EventSource } from "eventsource";

const [url, types, limit] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const source = new EventSource(url);
let left = limit === undefined ? Infinity : Number(limit);

source.addEventListener("open", () => print({ open: true }));
source.addEventListener("error", (event) => {
  const closed = source.readyState === EventSource.CLOSED;
  print({ error: event.code ?? null, closed });
});
for (const type of types.split(",")) {
  source.addEventListener(type, (event) => {
    print({ type: event.type, data: event.data, lastEventId: event.lastEventId });
    left -= 1;
    if (left === 0) source.close();
  });
}
