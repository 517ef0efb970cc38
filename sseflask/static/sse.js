/** Server-Sent Events over fetch, reopened after all that passes. docs/javascript.md, sse.d.ts */

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);
const FINAL = new Set(["insufficient_quota", "internal_error"]); // it would fail again
const SILENCE = 60_000; // ms without a heartbeat, where some were sent

/** Reads a stream until it is over: "done", "failure" or "aborted". */
export async function stream(url, options = {}) {
  const { signal, credentials, done = "done", attach, fetch: ask = fetch } = options;
  const { onOpen, onEvent, onGap, onDone, onFailure, onRetry } = options;
  let { method = "GET", body, lastEventId = "", retry = 1000 } = options;
  let own = method !== "GET" && { "Idempotency-Key": randomKey() };
  let run; // its id, once it is known
  const finish = (data) => (onDone?.(data), "done");
  const fail = (error) => (onFailure?.(error), "failure");
  for (let tries = 0; ; tries += 1) {
    let asked = false; // the server has said when to come back
    let wait = 0;
    let cause;
    const stop = new AbortController();
    const abort = () => stop.abort();
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      const given = typeof options.headers === "function" ? await options.headers() : options.headers;
      const headers = new Headers({ Accept: "text/event-stream", ...own });
      new Headers(given).forEach((value, name) => headers.set(name, value));
      if (lastEventId) headers.set("Last-Event-ID", lastEventId);
      const init = { method, body, credentials, headers, cache: "no-store", signal: stop.signal };
      const response = await ask(new Request(url, init)).catch(broken);
      const said = response.headers;
      if (response.broken) cause = response.broken;
      else if (response.status === 204) return finish();
      else if (response.status !== 200 || !/^text\/event-stream\b/i.test(said.get("Content-Type"))) {
        cause = await errorOf(response);
        const passes = PASSING.has(response.status) && said.get("X-Should-Retry") !== "false";
        if (!passes || FINAL.has(cause.code)) return fail(cause);
        wait = milliseconds(said.get("Retry-After"));
      } else {
        lastEventId ||= said.get("Last-Event-ID") ?? "";
        run = attach && said.get("X-Run-Id");
        if (run) [url, method, body, own] = [attach(run), "GET"];
        onOpen?.(response);
        for await (const part of blocks(response.body, abort)) {
          if (signal?.aborted) return "aborted";
          const { id, event, data } = part;
          if (part.broken) cause = part.broken;
          if (part.retry >= 0) [retry, asked] = [part.retry, true];
          if (id !== undefined) lastEventId = id;
          if (data === undefined) continue;
          tries = 0;
          if (event === "gap") onGap?.(json(data));
          else if (event === done || data === "[DONE]") return finish(json(data));
          else if (event !== "failure") onEvent?.({ id: lastEventId, event, data });
          else {
            cause = json(data)?.error ?? { message: data };
            // Without an id only this connection has failed.
            if (id || !(lastEventId || run) || FINAL.has(cause.code)) return fail(cause);
          }
        }
        // Nothing wrong, and nothing to go on from.
        if (!cause && !lastEventId && !run && !asked) return finish();
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      abort();
    }
    if (signal?.aborted) return "aborted";
    const delay = Math.max(wait, retry) + Math.random() * Math.min(3e4, 1000 * 2 ** tries);
    onRetry?.({ delay, cause, lastEventId });
    await pause(delay, signal);
  }
}

const broken = ({ message }) => ({ broken: { message, code: "connection_lost" } });

/** A body's events, parsed as in section 9.2.6 of the HTML standard. */
async function* blocks(body, abort) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let [text, block, halfCrlf, beats, timer] = ["", {}, false, false, 0];
  for (;;) {
    if (beats) timer = setTimeout(abort, SILENCE);
    const piece = await reader.read().catch(broken);
    clearTimeout(timer);
    if (piece.broken) yield piece;
    if (!piece.value) return;
    let more = decoder.decode(piece.value, { stream: true });
    if (halfCrlf && more[0] === "\n") [more, halfCrlf] = [more.slice(1), false];
    if (more) halfCrlf = more.endsWith("\r");
    const lines = more.split(/\r\n?|\n/);
    lines[0] = text + lines[0];
    text = lines.pop();
    for (const line of lines) {
      const [, name, value] = /^([^:]*):? ?([^]*)$/.exec(line);
      if (line === "") {
        yield block.data === undefined ? { id: block.id } : { event: "message", ...block };
        block = {};
      } else if (name === "data") block.data = block.data === undefined ? value : block.data + "\n" + value;
      else if (name === "event") block.event = value || "message";
      else if (name === "id" && !value.includes("\0")) block.id = value;
      else if (name === "retry" && /^\d+$/.test(value)) yield { retry: Number(value) };
      else if (name === "") beats = true;
    }
  }
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  const error = json(text)?.error;
  const body = error?.message ? error : { message: text.slice(0, 200) };
  return { ...body, status: response.status };
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Of a Retry-After: seconds, or a date. */
function milliseconds(value) {
  const found = /^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now();
  return Math.max(0, found) || 0;
}

// crypto.randomUUID needs a secure context.
const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/** Ends early if the stream is aborted or the network is back. */
function pause(delay, signal) {
  return new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", go);
      globalThis.removeEventListener?.("online", go);
      resolve();
    };
    const timer = setTimeout(go, Math.min(delay, 2 ** 31 - 1));
    signal?.addEventListener("abort", go);
    globalThis.addEventListener?.("online", go);
  });
}
