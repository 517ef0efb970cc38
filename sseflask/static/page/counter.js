import { stream } from "../sse.js";

/** The counter: each event has an id, so that nothing is lost between two connections. */
export function counter(panel, wire) {
  const form = panel.querySelector("form");
  const number = panel.querySelector("[data-number]");
  const said = panel.querySelector("[data-said]");
  const { drop, stop } = form.elements;
  let abort = null;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    abort?.abort();
    const mine = new AbortController();
    abort = mine;
    drop.disabled = stop.disabled = false;
    let [seen, opened] = [0, 0];
    const query = new URLSearchParams(new FormData(form));
    const ended = await stream(`/sse/v1?${query}`, {
      signal: mine.signal,
      fetch: wire.fetch,
      onOpen: () => { opened += 1; },
      onEvent: ({ data }) => {
        seen += 1;
        number.textContent = data;
      },
      onRetry: (retry) => wire.waiting(retry),
      onFailure: (error) => { said.textContent = error.message; },
    });
    if (abort !== mine) return;
    drop.disabled = stop.disabled = true;
    wire.ended(ended === "aborted" ? "stopped" : ended);
    const times = opened === 1 ? "one connection" : `${opened} connections`;
    if (ended !== "failure") said.textContent = `${seen} events over ${times}, none lost and none twice.`;
  });
  drop.addEventListener("click", () => wire.drop());
  stop.addEventListener("click", () => abort.abort());
}
