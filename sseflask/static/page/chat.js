import { stream } from "../sse.js";
import { ofTab, PLACE } from "./storage.js";
import { markdown } from "./markdown.js";
import { messageOf } from "./session.js";

const SAVED = `${PLACE} sseflask.chat`;
const EMPTY = { messages: [], run: null, key: null };
const REFUSED = new Set(["token_expired", "token_missing", "token_invalid"]);

/** Completions: an answer belongs to the run, not to the connection or to the page. */
export function chat(panel, wire, session) {
  const form = panel.querySelector("form");
  const said = panel.querySelector("[data-said]");
  const watch = panel.querySelector("[data-watch]");
  const hint = panel.querySelector("[data-hint]");
  const { message, stop, drop, clear } = form.elements;
  const watched = new URLSearchParams(location.search).get("run");
  // The conversation so far, and the running completion: saved over a reload of this tab. Until the run is
  // known there is its key, with which asking again attaches to it.
  let saved = { ...EMPTY, messages: [], ...(watched ? { run: watched } : ofTab.get(SAVED)) };
  let abort = null;

  const keep = () => watched || ofTab.set(SAVED, saved);
  const follow = (change) => {
    const following = said.scrollHeight - said.scrollTop - said.clientHeight < 60;
    change();
    if (following) said.scrollTop = said.scrollHeight;
  };
  const add = (kind, ...children) => {
    const made = document.createElement("div");
    made.className = kind;
    made.append(...children);
    hint.hidden = true;
    follow(() => said.append(made));
    return made;
  };
  const request = () => ({
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": saved.key },
    body: JSON.stringify({ messages: saved.messages, format: "events" }),
  });

  async function read(url, options) {
    const mine = new AbortController();
    abort = mine;
    stop.disabled = drop.disabled = false;
    clear.disabled = true;
    const answer = add("assistant");
    const reasoning = document.createElement("details");
    const thoughts = document.createElement("div");
    const summary = document.createElement("summary");
    const body = document.createElement("div");
    summary.textContent = "Reasoning";
    reasoning.append(summary, thoughts);
    reasoning.hidden = true;
    body.className = "answer waiting";
    // A screen reader says the answer when it is complete, not each word of it.
    answer.setAttribute("aria-busy", "true");
    answer.append(reasoning, body);
    let [text, due, refused] = ["", 0, false];
    const draw = () => {
      due = 0;
      follow(() => body.replaceChildren(markdown(text)));
    };
    const ended = await stream(url, {
      ...options,
      signal: mine.signal,
      fetch: wire.fetch,
      onOpen: (response) => {
        delete answer.dataset.retry;
        saved.run = response.headers.get("X-Run-Id") ?? saved.run;
        watch.href = `?run=${saved.run}#chat`;
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
          body.classList.remove("waiting");
          due ||= requestAnimationFrame(draw);
        } else if (event === "tool_call" && piece.name) add("ended", `calls ${piece.name}`);
      },
      onRetry: (retry) => {
        answer.dataset.retry = "Reconnecting…";
        wire.waiting(retry);
      },
      onDone: (data) => {
        if (data?.finish_reason && data.finish_reason !== "stop") add("ended", `Ended: ${data.finish_reason}`);
      },
      onFailure: (error) => {
        refused = error.status === 401 || REFUSED.has(error.code);
        add("failed", session.explain(error, "--complete --sub NAME"));
      },
    });
    cancelAnimationFrame(due);
    if (abort !== mine) return wire.ended("signed out");
    draw();
    abort = null;
    body.classList.remove("waiting");
    answer.removeAttribute("aria-busy");
    delete answer.dataset.retry;
    if (!text && reasoning.hidden) answer.remove();
    wire.ended(ended === "aborted" ? "stopped" : ended);
    stop.disabled = drop.disabled = true;
    clear.disabled = false;
    watch.hidden = true;
    // Whoever signs in again gets the answer: it has gone on meanwhile.
    if (refused) return;
    if (text) saved.messages.push({ role: "assistant", content: text });
    saved.run = saved.key = null;
    keep();
  }

  const ask = () => read("sse/openai_out", request());
  const resume = () => {
    if (saved.run) read(`runs/${saved.run}?format=events`, {});
    else if (saved.key) ask();
  };
  const empty = () => {
    saved = { ...EMPTY, messages: [] };
    keep();
    hint.hidden = false;
    clear.disabled = true;
    said.replaceChildren(hint);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (abort || !message.value.trim()) return;
    saved.messages.push({ role: "user", content: message.value });
    add("user", message.value);
    said.scrollTop = said.scrollHeight;
    message.value = "";
    saved.run = null;
    saved.key = crypto.getRandomValues(new Uint32Array(4)).join("-");
    keep();
    ask();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  message.addEventListener("input", () => {
    if (abort || !message.value) return;
    const messages = [...saved.messages, { role: "user", content: message.value }];
    wire.propose(new Request("sse/openai_out", { ...request(), body: JSON.stringify({ messages, format: "events" }) }));
  });
  stop.addEventListener("click", async () => {
    if (!saved.run) return abort.abort();
    let response;
    try {
      response = await fetch(`runs/${saved.run}`, { method: "DELETE" });
    } catch {
      return add("failed", "Not stopped: the service can't be reached.");
    }
    if (!response.ok) add("failed", await messageOf(response));
  });
  drop.addEventListener("click", () => wire.drop());
  clear.addEventListener("click", () => {
    empty();
    message.focus();
  });

  for (const { role, content } of saved.messages) {
    const body = document.createElement("div");
    body.className = "answer";
    body.append(markdown(content));
    add(role, role === "user" ? content : body);
  }
  clear.disabled = !saved.messages.length;
  wire.propose(
    new Request("sse/openai_out", { method: "POST", body: '{"user_message": "Hello", "format": "events"}' }),
  );
  resume();
  return {
    changed: (how) => {
      if (how === "in" && !abort) resume();
      if (how !== "out" || watched) return;
      const reading = abort;
      abort = null;
      reading?.abort();
      stop.disabled = drop.disabled = watch.hidden = true;
      empty();
    },
  };
}
