import { errorOf } from "./session.js";
import { shared } from "./shared.js";

const CHANNEL = "page.notifications";
const URL_OF = `channels/${CHANNEL}`;
const MOST = 100;
const ROLES = {
  reads: "This tab has the connection, and passes on to your other tabs.",
  listens: "Another tab of this browser has the connection, and passes on to this one.",
  alone: "This tab has a connection of its own: to share one, tabs need HTTPS or localhost.",
};

/** A channel: what is published is in every tab and every browser that has the page open. */
export function notifications(panel, wire, session) {
  const form = panel.querySelector("form");
  const notes = panel.querySelector("[data-notes]");
  const share = panel.querySelector("[data-share]");
  const failed = panel.querySelector("[data-failed]");
  const { note } = form.elements;
  const drop = panel.querySelector("[name=drop]");
  let [begun, abort, listens] = [false, null, false];

  const add = (text, kind = "") => {
    const item = document.createElement("li");
    item.textContent = text;
    item.className = kind;
    notes.prepend(item);
    if (notes.children.length > MOST) notes.lastChild.remove();
  };
  const fail = (error, right) => {
    failed.textContent = session.explain(error, right);
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    failed.textContent = "";
    let response;
    try {
      response = await fetch(URL_OF, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": String(Math.random()) },
        body: JSON.stringify({ data: note.value }),
      });
    } catch {
      failed.textContent = "Not published: the service can't be reached.";
      return;
    }
    if (response.ok) note.value = "";
    else fail(await errorOf(response), `--publish ${CHANNEL}`);
  });
  drop.addEventListener("click", () => wire.drop());

  async function read() {
    const mine = new AbortController();
    abort = mine;
    notes.replaceChildren();
    // What was there before is not read out.
    notes.ariaLive = "off";
    setTimeout(() => { notes.ariaLive = "polite"; }, 2000);
    failed.textContent = "";
    const ended = await shared(CHANNEL, URL_OF, {
      signal: mine.signal,
      fetch: wire.fetch,
      done: null,
      // What was published before is there too.
      lastEventId: "earliest",
      keep: MOST,
      onRole: (role) => {
        share.textContent = ROLES[role];
        listens = role === "listens";
        drop.disabled = listens;
        if (listens) wire.shared();
      },
      onEvent: (event) => {
        if (listens) wire.passed(event);
        add(event.data);
      },
      onGap: () => add("Some are missing here: the service has forgotten them.", "remark"),
      onRetry: (retry) => wire.waiting(retry),
      onFailure: (error) => fail(error, `--subscribe ${CHANNEL} --publish ${CHANNEL}`),
    });
    if (abort !== mine) return;
    abort = null;
    drop.disabled = true;
    share.textContent = "";
    wire.ended(ended);
  }

  wire.propose(new Request(URL_OF));
  return {
    shown: () => {
      begun = true;
      if (!abort) read();
    },
    changed: (how) => {
      if (how === "expired" || !begun) return;
      abort?.abort();
      read();
    },
  };
}
