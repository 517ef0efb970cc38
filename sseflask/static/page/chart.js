import { WINDOW } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const SLOTS = 6;

/**
 * Lines over the last two minutes, with a legend that has the values.
 *
 * `series` is `{ name, slot, pieces, value }`: `pieces` as `Figures.pieces` gives them, `value` what the legend says.
 * Colours and dashes come with the class `s0` to `s5`, and those after with `thin` as well.
 */
export class Chart {
  #figure = document.createElement("figure");
  #total = document.createElement("strong");
  #legend = document.createElement("ul");
  #svg = made("svg", { class: "chart", role: "img" });
  #grid = made("g", { class: "grid" });
  #moving = made("g", {});
  #cursor = made("line", { class: "cursor", y1: 0 });
  #spelled;
  #least;
  #drawn = null;

  /** `spelled` writes a value with its unit; the axis goes up to `least` at least. */
  constructor(title, { spelled, least }) {
    const caption = document.createElement("figcaption");
    caption.append(title, this.#total);
    this.#spelled = spelled;
    this.#least = least;
    this.#svg.setAttribute("aria-label", `${title} over the last two minutes. The table below has the present figures.`);
    this.#svg.append(this.#grid, this.#moving, this.#cursor);
    this.#figure.append(caption, this.#svg, this.#legend);
  }

  get element() {
    return this.#figure;
  }

  /** The time at which the pointer is, if it is over the chart. */
  timeAt(event, now) {
    const box = this.#svg.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right;
    return inside ? now - ((box.right - event.clientX) / box.width) * WINDOW : null;
  }

  /** Draws everything anew. `now` is the right edge, `at` the time that is looked at, or null. */
  draw(series, now, at, total) {
    const width = this.#svg.clientWidth;
    const height = this.#svg.clientHeight;
    if (!width) return;
    const size = Number.parseFloat(getComputedStyle(this.#svg).fontSize);
    const bottom = height - 1.5 * size;
    const values = series.flatMap(({ pieces }) => pieces.flat().map(([, value]) => value));
    const step = stepOf(Math.max(this.#least, ...values));
    const most = Math.ceil(Math.max(this.#least, ...values) / step) * step;
    const x = (time) => width - ((now - time) / WINDOW) * width;
    const y = (value) => bottom - (value / most) * (bottom - 1.4 * size);

    const ticks = [];
    for (let value = 0; value <= most * 1.001; value += step) {
      ticks.push(made("line", { x1: 0, x2: width, y1: y(value), y2: y(value) }));
      ticks.push(text(this.#spelled(value), { x: 0, y: y(value) - 0.25 * size }));
    }
    const under = height - 0.3 * size;
    ticks.push(text("2 min ago", { x: 0, y: under }), text("now", { x: width, y: under, "text-anchor": "end" }));
    const roomy = width > 16 * size;
    if (roomy) ticks.push(text("1 min ago", { x: width / 2, y: under, "text-anchor": "middle" }));
    this.#grid.replaceChildren(...ticks);

    const paths = series.map(({ slot, pieces }) =>
      made("path", { class: classOf(slot), d: pieces.map((piece) => pathOf(piece, x, y)).join("") }),
    );
    this.#moving.replaceChildren(...paths);
    this.#cursor.toggleAttribute("hidden", at === null);
    if (at !== null) for (const [name, value] of [["x1", x(at)], ["x2", x(at)], ["y2", bottom]]) this.#cursor.setAttribute(name, value);
    const moved = this.#drawn === null ? 0 : now - this.#drawn;
    this.#drawn = now;
    // It arrives from the right, in the second that it took to come about.
    if (!STILL.matches && moved > 0 && moved < 3) {
      const from = `translateX(${(moved / WINDOW) * width}px)`;
      this.#moving.animate([{ transform: from }, { transform: "none" }], { duration: 1000 * moved });
    }
    this.#total.textContent = total;
    this.#legend.replaceChildren(...series.map(itemOf));
  }

  clear() {
    this.#drawn = null;
    this.#total.textContent = "";
    for (const each of [this.#grid, this.#moving, this.#legend]) each.replaceChildren();
  }
}

function pathOf(piece, x, y) {
  const points = piece.map(([time, value]) => `${x(time).toFixed(1)} ${y(value).toFixed(1)}`);
  // A single point is a dot: a line without a length has round ends.
  return points.length === 1 ? `M${points[0]}h0` : `M${points.join("L")}`;
}

// With more lines than colours, the ones after are thin.
const classOf = (slot) => `s${slot % SLOTS}${slot < SLOTS ? "" : " thin"}`;

function itemOf({ name, slot, value }) {
  const item = document.createElement("li");
  const sample = made("svg", { class: "sample", "aria-hidden": "true" });
  const said = document.createElement("span");
  sample.append(made("path", { class: classOf(slot), d: "M2 5H26" }));
  said.textContent = value;
  item.append(sample, `${name} `, said);
  return item;
}

/** Two to five steps of 1, 2 or 5 times a power of ten. */
export function stepOf(most) {
  const power = 10 ** Math.floor(Math.log10(most / 2));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => most / step <= 4);
}

function made(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(said, attributes) {
  const element = made("text", attributes);
  element.textContent = said;
  return element;
}
