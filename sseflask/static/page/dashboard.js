import { Chart } from "./chart.js";
import { KINDS, MIB, spelled, sum, workerOf } from "./figures.js";

/** The four charts of the service's figures, all at the same time. */
export class Dashboard {
  #charts = {
    streams: new Chart("Open streams", { spelled: spelled.count, least: 4 }),
    events: new Chart("Events a second", { spelled: spelled.rate, least: 4 }),
    cpu: new Chart("CPU, in % of one core", { spelled: spelled.percent, least: 10 }),
    memory: new Chart("Memory", { spelled: spelled.memory, least: 40 }),
  };
  #looked = null;

  /** `onLook` is called when the pointer moves to another time, or away. */
  constructor(place, onLook) {
    for (const chart of Object.values(this.#charts)) {
      const look = (event) => {
        this.#looked = event.type === "pointerleave" ? null : { chart, event };
        onLook();
      };
      for (const name of ["pointermove", "pointerdown", "pointerleave"]) chart.element.addEventListener(name, look);
      place.append(chart.element);
    }
  }

  /** Draws what there is, with `now` at the right edge, and says how long ago what the legends have was. */
  draw(figures, now) {
    const at = this.#looked?.chart.timeAt(this.#looked.event, now) ?? null;
    const point = figures.near(at ?? now);
    const { streams, events, cpu, memory } = this.#charts;
    const value = (spell, valueOf) => (point ? spell(valueOf(point)) : "–");
    const total = (spell, valueOf) => value(spell, (each) => sum(each, valueOf));
    const lines = (named, spell) =>
      Object.entries(named).map(([name, valueOf], slot) => ({
        name, slot, pieces: figures.pieces(valueOf), value: value(spell, valueOf),
      }));
    const ofWorkers = (spell, valueOf) =>
      figures.workers.map(({ pid, slot }) => {
        const valueAt = (each) => {
          const worker = workerOf(each, pid);
          return worker && valueOf(worker);
        };
        const gone = point && !workerOf(point, pid);
        const said = gone ? "gone" : value(spell, valueAt);
        return { name: `Worker ${pid}`, slot, pieces: figures.pieces(valueAt), value: said };
      });
    const kinds = Object.entries(KINDS).map(([kind, name]) => [
      name, (each) => sum(each, (worker) => worker.streams[kind] ?? 0),
    ]);
    const rates = { delivered: (each) => sum(each, (worker) => worker.events), published: (each) => each.published };
    const bytes = total(spelled.bytes, (worker) => worker.bytes);
    const open = (worker) => Object.values(worker.streams).reduce((one, other) => one + other, 0);
    const cores = (worker) => worker.cpu * 100;
    const mebibytes = (worker) => worker.memory / MIB;
    streams.draw(lines(Object.fromEntries(kinds), spelled.count), now, at, total(spelled.count, open));
    const traffic = lines(rates, spelled.rate);
    const delivered = traffic[0].value;
    if (point) traffic[0].value = `${bytes}, ${delivered}`;
    events.draw(traffic, now, at, delivered);
    cpu.draw(ofWorkers(spelled.percent, cores), now, at, total(spelled.percent, cores));
    memory.draw(ofWorkers(spelled.memory, mebibytes), now, at, total(spelled.memory, mebibytes));
    return { looking: at !== null, ago: point && Math.round(now - point.at) };
  }

  clear() {
    for (const chart of Object.values(this.#charts)) chart.clear();
  }
}

/** The present figures of a worker, for those who do not see the charts. */
export function rowOf({ pid, streams, events, bytes, cpu, memory }) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = pid;
  const cells = [
    ...Object.keys(KINDS).map((kind) => spelled.count(streams[kind] ?? 0)),
    spelled.rate(events), spelled.bytes(bytes), spelled.percent(cpu * 100), spelled.memory(memory / MIB),
  ];
  row.append(head, ...cells.map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  }));
  return row;
}
