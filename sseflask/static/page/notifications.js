import { shared } from "./shared.js";

const CHANNEL = "page.notifications";

/** A channel: what is published is in every tab and every browser that has the page open. */
export function notifications(panel, wire) {
  const form = panel.querySelector("form");
  const notes = panel.querySelector("[data-notes]");
  const share = panel.querySelector("[data-share]");
  const { note } = form.elements;
  const add = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    notes.prepend(item);
    if (notes.children.length > 100) notes.lastChild.remove();
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await fetch(`/channels/${CHANNEL}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": String(Math.random()) },
      body: JSON.stringify({ data: note.value }),
    });
    if (response.ok) note.value = "";
    else share.textContent = (await response.json()).error.message;
  });

  let begun = false;
  return () => {
    if (begun) return;
    begun = true;
    shared(CHANNEL, `/channels/${CHANNEL}`, {
      fetch: wire.fetch,
      done: null,
      onRole: (role) => {
        share.textContent =
          role === "reads"
            ? "This tab reads for all tabs of this browser."
            : "Another tab of this browser reads for this one: there is one connection.";
      },
      onEvent: ({ data }) => add(data),
      onGap: () => add("(some were missed)"),
      onRetry: (retry) => wire.waiting(retry),
      onFailure: (error) => {
        begun = false;
        share.textContent = error.message;
      },
    });
  };
}
