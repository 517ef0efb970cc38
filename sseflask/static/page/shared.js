import { stream } from "../sse.js";

/**
 * One connection for all tabs of a browser: over HTTP/1.1 it has six for all of them. The tab that holds the
 * lock reads, and passes on; when it is closed the next one goes on after the last id.
 *
 * `onRole` is told "reads" or "listens"; everything else is as for `stream`.
 */
export function shared(name, url, { onRole, onEvent, onGap, ...options }) {
  const channel = new BroadcastChannel(name);
  let last = "";
  channel.addEventListener("message", ({ data: { id, event, gap } }) => {
    last = id ?? last;
    if (event) onEvent(event);
    else if (gap) onGap?.(gap);
  });
  onRole("listens");
  const reading = navigator.locks.request(name, () => {
    onRole("reads");
    const pass = (said) => channel.postMessage({ id: last, ...said });
    return stream(url, {
      ...options,
      lastEventId: last,
      onOpen: (response) => {
        last ||= response.headers.get("Last-Event-ID") ?? "";
        pass({});
      },
      onEvent: (event) => {
        last = event.id;
        pass({ event });
        onEvent(event);
      },
      onGap: (gap) => {
        pass({ gap });
        onGap?.(gap);
      },
    });
  });
  return reading.finally(() => channel.close());
}
