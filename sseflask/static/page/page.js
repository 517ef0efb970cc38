import { chat } from "./chat.js";
import { counter } from "./counter.js";
import { live } from "./live.js";
import { notifications } from "./notifications.js";
import { Session } from "./session.js";
import { Wire } from "./wire.js";

document.getElementById("scriptless").remove();

const tabs = [...document.querySelectorAll("[role=tab]")];
const session = new Session(document.getElementById("session"));
const made = { counter, chat, notifications, live };
const panels = new Map();

for (const tab of tabs) {
  const name = tab.getAttribute("aria-controls");
  const panel = document.getElementById(name);
  const wire = new Wire(session, (state) => { tab.dataset.state = state; });
  panels.set(name, { tab, panel, wire, looked: false, ...made[name](panel, wire, session) });
}

const chosen = () => (panels.has(location.hash.slice(1)) ? location.hash.slice(1) : tabs[0].getAttribute("aria-controls"));

function select(focus = false) {
  for (const [name, { tab, panel, wire }] of panels) {
    const it = name === chosen();
    tab.setAttribute("aria-selected", String(it));
    tab.tabIndex = it ? 0 : -1;
    panel.hidden = !it;
    if (!it) wire.hide();
    else {
      wire.show();
      if (focus) tab.focus();
    }
  }
  look();
}

/** Which panel somebody sees: none in a tab that is hidden. */
function look() {
  for (const [name, each] of panels) {
    const looked = name === chosen() && !document.hidden;
    if (looked === each.looked) continue;
    each.looked = looked;
    if (looked) each.shown?.();
    else each.hidden?.();
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
    select(true);
  });
}

addEventListener("hashchange", () => select());
document.addEventListener("visibilitychange", look);
session.onChange((how) => {
  for (const { changed } of panels.values()) changed?.(how);
});
select();

const copy = document.getElementById("copy");
copy.addEventListener("click", async () => {
  const line = document.getElementById("curl");
  try {
    await navigator.clipboard.writeText(line.textContent);
    copy.textContent = "Copied";
  } catch {
    // It needs HTTPS or localhost, and leave: else the line is selected, ready to be copied by hand.
    getSelection().selectAllChildren(line);
    copy.textContent = "Selected";
  }
  setTimeout(() => { copy.textContent = "Copy"; }, 1500);
});
