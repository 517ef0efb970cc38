import { chat } from "./chat.js";
import { counter } from "./counter.js";
import { notifications } from "./notifications.js";
import { session } from "./session.js";
import { Wire } from "./wire.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const made = { counter, chat, notifications };
const panels = new Map();

for (const tab of tabs) {
  const name = tab.getAttribute("aria-controls");
  const panel = document.getElementById(name);
  const wire = new Wire();
  panels.set(name, { tab, panel, wire, begin: made[name](panel, wire) });
}

function select(name, focus = false) {
  for (const [each, { tab, panel, wire, begin }] of panels) {
    const chosen = each === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    panel.hidden = !chosen;
    if (!chosen) wire.hide();
    else {
      wire.show();
      begin?.();
      if (focus) tab.focus();
    }
  }
}

for (const [at, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    location.hash = tab.getAttribute("aria-controls");
  });
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    history.replaceState(null, "", `#${tabs[to % tabs.length].getAttribute("aria-controls")}`);
    select(chosen(), true);
  });
}

const chosen = () => (panels.has(location.hash.slice(1)) ? location.hash.slice(1) : tabs[0].getAttribute("aria-controls"));
addEventListener("hashchange", () => select(chosen()));
select(chosen());
session(document.getElementById("session"), () => select(chosen()));

document.getElementById("copy").addEventListener("click", async ({ target }) => {
  await navigator.clipboard.writeText(document.getElementById("curl").textContent);
  target.textContent = "Copied";
  setTimeout(() => { target.textContent = "Copy"; }, 1500);
});
