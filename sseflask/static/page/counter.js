import { stream } from "../sse.js";

const MOST_BEADS = 400;

/** The counter: each event has an id, so that nothing is lost between two connections. */
export function counter(panel, wire) {
  const form = panel.querySelector("form");
  const number = panel.querySelector("[data-number]");
  const said = panel.querySelector("[data-said]");
  const beads = panel.querySelector("[data-beads]");
  const { drop, stop } = form.elements;
  let abort = null;
  const url = () => `sse/v1?${new URLSearchParams(new FormData(form))}`;
  const propose = () => form.checkValidity() && wire.propose(new Request(url()));

  form.addEventListener("input", () => abort || propose());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    abort?.abort();
    const mine = new AbortController();
    abort = mine;
    drop.disabled = stop.disabled = false;
    said.textContent = "";
    beads.replaceChildren();
    let [seen, opened] = [0, 0];
    const ended = await stream(url(), {
      signal: mine.signal,
      fetch: wire.fetch,
      onOpen: () => { opened += 1; },
      onEvent: ({ data }) => {
        seen += 1;
        number.textContent = data;
        if (seen > MOST_BEADS) return;
        const bead = document.createElement("i");
        bead.dataset.connection = (opened - 1) % 4;
        beads.append(bead);
      },
      onRetry: (retry) => wire.waiting(retry),
      onFailure: (error) => { said.textContent = error.message; },
    });
    if (abort !== mine) return;
    abort = null;
    drop.disabled = stop.disabled = true;
    propose();
    wire.ended(ended === "aborted" ? "stopped" : ended);
    const times = opened === 1 ? "one connection" : `${opened} connections`;
    if (ended !== "failure") said.textContent = `${seen} events over ${times}, none lost and none twice.`;
  });
  drop.addEventListener("click", () => wire.drop());
  stop.addEventListener("click", () => abort.abort());
  propose();
  return {};
}
