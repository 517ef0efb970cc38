import { stream } from "../sse.js";
import { PLACE } from "./storage.js";

/**
 * One connection for all tabs of a browser: over HTTP/1.1 it has six for all of them. The tab that holds the
 * lock reads, and passes on; when it leaves, the next one goes on after the last id.
 *
 * `onRole` is called with "reads", or "listens" once another tab has answered. The last `keep` events are passed on to
 * tabs that come later as well. Everything else is as for `stream`. Without locks, which need HTTPS or localhost,
 * each tab reads for itself: "alone".
 */
export async function shared(name, url, { onRole, onEvent, onGap, keep = 0, lastEventId = "", ...options }) {
  const { signal } = options;
  const recent = [];
  let last = lastEventId;
  const take = (event) => {
    last = event.id;
    recent.push(event);
    if (recent.length > keep) recent.shift();
    onEvent(event);
  };
  if (!navigator.locks) {
    onRole("alone");
    return stream(url, { ...options, lastEventId, onGap, onEvent });
  }
  const key = `${PLACE} ${name}`;
  const me = crypto.getRandomValues(new Uint32Array(2)).join();
  const channel = new BroadcastChannel(key);
  let [reads, upToDate] = [false, false];
  const ask = () => channel.postMessage({ ask: me });
  channel.addEventListener("message", ({ data }) => {
    if (data.ask) {
      if (reads) channel.postMessage({ answers: data.ask, recent, last });
    } else if (reads) return;
    else if (data.answers === me && !upToDate) {
      upToDate = true;
      onRole("listens");
      data.recent.forEach(take);
      last = data.last;
    } else if (data.begins && !upToDate) ask();
    else if (!upToDate) return; // the answer will have it
    else if (data.event) take(data.event);
    else if (data.gap) onGap?.(data.gap);
    else last = data.last ?? last;
  });
  ask();
  const read = () => {
    reads = true;
    onRole("reads");
    const pass = (said) => channel.postMessage(said);
    pass({ begins: true });
    return stream(url, {
      ...options,
      lastEventId: last,
      onOpen: (response) => {
        options.onOpen?.(response);
        last ||= response.headers.get("Last-Event-ID") ?? "";
        pass({ last });
      },
      onEvent: (event) => {
        take(event);
        pass({ event });
      },
      onGap: (gap) => {
        pass({ gap });
        onGap?.(gap);
      },
    });
  };
  try {
    return await navigator.locks.request(key, { signal }, read);
  } catch (error) {
    if (signal?.aborted) return "aborted";
    throw error;
  } finally {
    channel.close();
  }
}
