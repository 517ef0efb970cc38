import { Dashboard, rowOf } from "./dashboard.js";
import { Figures } from "./figures.js";
import { ofTab, PLACE } from "./storage.js";
import { shared } from "./shared.js";

const CHANNEL = "sseflask.live";
const URL_OF = `channels/${CHANNEL}`;
const BEGIN = `${PLACE} ${CHANNEL}`;

/** The service's own figures: a channel like any other, published while somebody looks. */
export function live(panel, wire, session) {
  const { pause, drop } = panel.querySelector("form").elements;
  const said = panel.querySelector("[data-said]");
  const failed = panel.querySelector("[data-failed]");
  const body = panel.querySelector("tbody");
  const table = panel.querySelector("details");
  const place = panel.querySelector("[data-charts]");

  let figures = new Figures();
  let [abort, why] = [null, ""];
  let [visible, paused, listens] = [false, false, false];
  let [came, timer, due] = [0, 0, 0];
  // At most once for each picture of the screen: history comes all at once.
  const redraw = () => {
    due ||= requestAnimationFrame(draw);
  };
  const dashboard = new Dashboard(place, redraw);

  // By the service's clock, which need not be this one's: what has passed since the last figures is added.
  const now = () =>
    figures.newest + (abort ? Math.max(0, Math.floor((performance.now() - came) / 1000 - 0.9)) : 0);

  function draw() {
    due = 0;
    clearTimeout(timer);
    if (!visible) return;
    // While nothing comes the charts go on, so that a gap is seen to grow.
    if (abort) timer = setTimeout(redraw, 1000);
    place.hidden = table.hidden = !figures.points.length;
    if (place.hidden) {
      said.textContent = abort ? "Waiting for the first figures." : "";
      return;
    }
    said.textContent = spoken(dashboard.draw(figures, now()));
    if (table.open) body.replaceChildren(...figures.points.at(-1).workers.map(rowOf));
  }

  /** What the legends are about, if it is not the present. */
  function spoken({ looking, ago }) {
    if (looking) return ago === null ? "No figures of that time." : `${ago} s ago`;
    if (paused) return "Paused.";
    return ago === null ? "No figures come at present." : "";
  }

  async function read() {
    const mine = new AbortController();
    abort = mine;
    pause.disabled = false;
    failed.textContent = "";
    redraw();
    const ended = await shared(CHANNEL, URL_OF, {
      signal: mine.signal,
      fetch: wire.fetch,
      done: null,
      // What was published while somebody looked is there still: the charts begin filled.
      lastEventId: figures.points.at(-1)?.id ?? ofTab.get(BEGIN) ?? "earliest",
      keep: 150,
      onRole: (role) => {
        listens = role === "listens";
        drop.disabled = listens;
        if (listens) wire.shared();
      },
      onEvent: (event) => {
        if (listens) wire.passed(event);
        figures.add(event);
        came = performance.now();
        redraw();
      },
      onRetry: (retry) => wire.waiting(retry),
      onFailure: (error) => {
        failed.textContent = session.explain(error, `--subscribe ${CHANNEL}`);
        pause.disabled = true;
      },
    });
    if (abort && abort !== mine) return;
    abort = null;
    drop.disabled = true;
    wire.ended(ended === "aborted" ? why : ended);
    redraw();
  }

  function leave(how) {
    why = how;
    const reading = abort;
    abort = null;
    reading?.abort();
    if (figures.before) ofTab.set(BEGIN, figures.before);
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) leave("paused");
    else read();
  });
  drop.addEventListener("click", () => wire.drop());
  table.addEventListener("toggle", redraw);
  new ResizeObserver(redraw).observe(panel);

  wire.propose(new Request(URL_OF));
  return {
    shown: () => {
      visible = true;
      if (!abort && !paused) read();
      redraw();
    },
    hidden: () => {
      visible = false;
      leave("closed, as nobody looks");
    },
    changed: (how) => {
      if (how === "expired") return;
      leave("signed out");
      if (how === "out") {
        figures = new Figures();
        ofTab.remove(BEGIN);
        dashboard.clear();
        body.replaceChildren();
        redraw();
      }
      if (visible && !paused) read();
    },
  };
}
