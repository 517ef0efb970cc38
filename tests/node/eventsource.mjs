// Subscribes with npm's eventsource, or with its event-source-polyfill, and prints what it
// dispatches, one JSON line each.
// Usage: node eventsource.mjs <url> <event types, comma separated> [how many events, then close]
// CLIENT=polyfill in the environment takes the other one, which is closed at "done": it does not
// survive a 204.
import { EventSource as Standard } from "eventsource";
import { EventSourcePolyfill } from "event-source-polyfill";

const polyfill = process.env.CLIENT === "polyfill";
const EventSource = polyfill ? EventSourcePolyfill : Standard;
const [url, types, limit] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const source = new EventSource(url);
let left = limit === undefined ? Infinity : Number(limit);

source.addEventListener("open", () => print({ open: true }));
source.addEventListener("error", (event) => {
  const closed = source.readyState === EventSource.CLOSED;
  print({ error: event.code ?? event.status ?? null, closed });
});
for (const type of types.split(",")) {
  source.addEventListener(type, (event) => {
    print({ type: event.type, data: event.data, lastEventId: event.lastEventId });
    left -= 1;
    if (left === 0 || (polyfill && type === "done")) source.close();
  });
}
