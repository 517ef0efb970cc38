import { stream } from "../sse.js";
import { markdown } from "./markdown.js";

const KEPT = "sseflask.chat";

/** Completions: an answer belongs to the run, not to the connection or to the page. */
export function chat(panel, wire) {
  const form = panel.querySelector("form");
  const said = panel.querySelector("[data-said]");
  const watch = panel.querySelector("[data-watch]");
  const { message, stop, drop } = form.elements;
  const watched = new URLSearchParams(location.search).get("run");
  // What is said so far, and the run that is going on: kept over a reload of this tab. Until the run is
  // known there is its key, with which asking again attaches to it.
  const kept = (!watched && JSON.parse(sessionStorage.getItem(KEPT))) || { messages: [], run: watched, key: null };
  let abort = null;

  const keep = () => watched || sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const add = (kind, ...children) => {
    const made = document.createElement("div");
    made.className = kind;
    made.append(...children);
    said.append(made);
    said.scrollTop = said.scrollHeight;
    return made;
  };

  async function read(url, options) {
    abort = new AbortController();
    stop.disabled = drop.disabled = false;
    const answer = add("assistant");
    const reasoning = document.createElement("details");
    const thoughts = document.createElement("div");
    const summary = document.createElement("summary");
    const body = document.createElement("div");
    summary.textContent = "Reasoning";
    reasoning.append(summary, thoughts);
    reasoning.hidden = true;
    body.className = "answer";
    answer.append(reasoning, body);
    let [text, due] = ["", 0];
    const draw = () => {
      due = 0;
      body.replaceChildren(markdown(text));
      said.scrollTop = said.scrollHeight;
    };
    const ended = await stream(url, {
      ...options,
      signal: abort.signal,
      fetch: wire.fetch,
      onOpen: (response) => {
        kept.run = response.headers.get("X-Run-Id") ?? kept.run;
        watch.href = `/?run=${kept.run}#chat`;
        watch.hidden = false;
        keep();
      },
      onEvent: ({ event, data }) => {
        const piece = JSON.parse(data);
        if (event === "reasoning") {
          reasoning.hidden = false;
          thoughts.append(piece.text);
        } else if (event === "text") {
          text += piece.text;
          due ||= requestAnimationFrame(draw);
        } else if (event === "tool_call" && piece.name) add("ended", `calls ${piece.name}`);
      },
      onRetry: (retry) => wire.waiting(retry),
      onDone: (data) => {
        if (data?.finish_reason && data.finish_reason !== "stop") add("ended", `Ended: ${data.finish_reason}`);
      },
      onFailure: (error) => add("failed", error.message),
    });
    cancelAnimationFrame(due);
    draw();
    wire.ended(ended);
    stop.disabled = drop.disabled = true;
    watch.hidden = true;
    if (text) kept.messages.push({ role: "assistant", content: text });
    kept.run = kept.key = null;
    keep();
  }

  const ask = () =>
    read("/sse/openai_out", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": kept.key },
      body: JSON.stringify({ messages: kept.messages, format: "events" }),
    });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!stop.disabled) return;
    kept.messages.push({ role: "user", content: message.value });
    add("user", message.value);
    message.value = "";
    kept.key = crypto.getRandomValues(new Uint32Array(4)).join("-");
    keep();
    ask();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  stop.addEventListener("click", async () => {
    if (!kept.run) return abort.abort();
    const response = await fetch(`/runs/${kept.run}`, { method: "DELETE" });
    if (!response.ok) add("failed", (await response.json()).error.message);
  });
  drop.addEventListener("click", () => wire.drop());

  for (const { role, content } of kept.messages) {
    add(role, role === "user" ? content : markdown(content));
  }
  if (kept.run) read(`/runs/${kept.run}?format=events`, {});
  else if (kept.key) ask();
}
